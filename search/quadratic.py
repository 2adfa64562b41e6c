"""Allocation under the objective with interactions: a sum over layers and over pairs of them.

    F(x) = Σ_l loss[l, x_l] + κ Σ_{l<m} v[l, x_l] · v[m, x_m]

A quadratic multiple-choice knapsack with several limits, of low rank. It is not solved exactly: it
is bounded by a convex relaxation (``relaxation``) and improved by steps and moves (``descent``),
from the additive optimum and from what the relaxation suggests.
"""

from __future__ import annotations

import dataclasses
import math
import time

from bitfront.types import Allocation, Problem

from .base import ALLOCATORS, INTERACTING
from .coupled import coupled
from .descent import improved
from .exact import solve
from .items import Items, Picks, merge
from .limits import require
from .moves import descend, fill
from .relaxation import enough, relaxed

SUGGESTED = 4  # of the relaxation's allocations that are improved

INTERACTING.add("quadratic")


@ALLOCATORS.register("quadratic")
def quadratic(problem: Problem, *, time_limit: float | None = None, gap: float = 0.0) -> Allocation:
    """The least F that is found within all limits; never more than the answer of ``ilp`` has.

    ``loss`` is F (``Problem.objective``) and ``bound`` a lower bound on F of all allocations within
    the limits; ``gap`` is their difference. ``optimal`` where that is no more than rounding, which
    a relaxation seldom shows. Without interactions in the problem, or with a ``shrink`` of 0, F is
    additive, and the answer that of ``ilp``, proven. Needs 8·G·C·n bytes for G groups, C schemes
    and n samples. A ``time_limit`` ends the improvement, and loosens the bound; so does a relative
    ``gap``, as soon as an allocation is within it of the bound.
    """
    start = time.perf_counter()
    deadline = math.inf if time_limit is None else start + time_limit
    items = merge(problem)
    require(items)
    additive = solve(items, deadline, gap=gap)
    seconds = time.perf_counter() - start
    if problem.interactions is None or problem.interactions.shrink == 0:
        return items.allocation(additive.picks, "quadratic", seconds, additive.bound)
    objective = coupled(items, problem.interactions)
    relaxation = relaxed(objective, additive.picks, deadline, gap)
    least = enough(relaxation.bound, gap)
    best = additive.picks
    for picks in (additive.picks, *_fitting(items, relaxation.picks)):
        if objective.value(best) <= least:
            break
        found = improved(objective, picks, relaxation.prices, deadline, least)
        best = min(best, found, key=lambda picks: _rank(items, picks))
    r = objective.sum(best)
    return _answer(items, best, relaxation.bound, objective.rounding(r), start)


def _fitting(items: Items, suggested: tuple[Picks, ...]) -> list[Picks]:
    """The first few that are within the limits, or can be stepped down there."""
    found: dict[bytes, Picks] = {}
    for picks in suggested:
        down = descend(items, picks, items.loss)
        if down is not None:
            found.setdefault(down.tobytes(), fill(items, down))
        if len(found) == SUGGESTED:
            break
    return list(found.values())


def _rank(items: Items, picks: Picks) -> tuple[float, float]:
    """F, then the first cost."""
    return items.problem.objective(items.allocation(picks, "", 0.0).schemes), items.rank(picks)[1]


def _answer(items: Items, picks: Picks, bound: float, rounding: float, start: float) -> Allocation:
    """``picks`` with their F, and how far it may be from the least."""
    plain = items.allocation(picks, "quadratic", time.perf_counter() - start)
    loss = items.problem.objective(plain.schemes)
    optimal = bound >= loss - 4 * rounding
    bound = loss if optimal else bound
    return dataclasses.replace(plain, loss=loss, bound=bound, gap=loss - bound, optimal=optimal)
