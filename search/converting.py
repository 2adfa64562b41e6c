"""Limits on totals that conversions between layers add to (``Conversions``).

    T(x) = Σ_l cost[l, x_l] + Σ_e w_e |k_a - k_b|

An exact solver has them in its program (``linear``). Any other is asked without, which is a
relaxation: its bound holds, and so does its answer, where that is within the limits. Else T is
bounded from above by a sum over layers that is equal to it at some allocation
(``Conversions.above``): what is found within that is within the limits, and improved from there, as
far as that goes. It begins at the answer that was too dear, or at the least T.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from bitfront.errors import Infeasible
from bitfront.types import Allocation, Conversions, Problem

from .items import Items, Picks, merge, picks_of
from .limits import require, stated, unused
from .linear import least_totals

IMPROVED = 5  # times that what was found within an upper bound is improved from

Solve = Callable[[Problem, float | None], Allocation]


def converting(problem: Problem, solve: Solve, time_limit: float | None = None) -> Allocation:
    """The answer of ``solve`` to ``problem``, with conversions counted against limits.

    solve: of a problem without, in so many seconds. Raises what it does, and ``Infeasible``.
    """
    limited = {name: c for name, c in problem.conversions.items() if name in problem.limits}
    if not limited:
        return solve(problem, time_limit)
    start = time.perf_counter()

    def left() -> float | None:
        return None if time_limit is None else max(time_limit - time.perf_counter() + start, 0.0)

    items = merge(problem)
    least, fastest = least_totals(items)
    require(items, least)
    plain = replace(problem, conversions={})
    relaxed = _restated(items, solve(plain, left()))
    found = relaxed
    if not items.fits(picks_of(items, relaxed.choice)):
        anchors = [picks_of(items, relaxed.choice), *fastest.values()]
        within = _within(items, limited, anchors, lambda p: solve(p, left()))
        if within is None:
            raise Infeasible(
                f"no allocation within {stated(items)} was found, though none was excluded either",
                "raise a limit, allow more time, or allocate with ilp",
            )
        found = within
    return _bounded(items, found, relaxed.bound, time.perf_counter() - start)


def _within(
    items: Items,
    limited: Mapping[str, Conversions],
    anchors: list[Picks],
    solve: Callable[[Problem], Allocation],
) -> Allocation | None:
    """The best that is found within upper bounds of T: the first that has any, and from there."""
    problem, best = items.problem, None
    for anchor in anchors:
        picks = anchor
        for _ in range(IMPROVED):
            within = replace(problem, conversions={})
            for name, conversions in limited.items():
                more, table = conversions.above(picks[items.owner])
                row = unused(f"{name} with conversions", within)
                within = replace(
                    within,
                    costs={**within.costs, row: problem.costs[name] + table},
                    limits={**within.limits, row: problem.limits[name]},
                    fixed={**within.fixed, row: problem.fixed.get(name, 0.0) + more},
                )
            try:
                answer = _restated(items, solve(within))
            except Infeasible:
                break
            if best is not None and not answer.loss < best.loss:
                break
            best, picks = answer, picks_of(items, answer.choice)
        if best is not None:
            return best
    return None


def _bounded(items: Items, found: Allocation, bound: float, seconds: float) -> Allocation:
    """``found`` with the bound of a relaxation."""
    if math.isnan(bound):
        return replace(found, bound=math.nan, gap=math.nan, optimal=False, seconds=seconds)
    optimal = bool(bound >= found.loss - items.rounding(picks_of(items, found.choice)))
    bound = found.loss if optimal else bound
    return replace(found, bound=bound, gap=found.loss - bound, optimal=optimal, seconds=seconds)


def _restated(items: Items, found: Allocation) -> Allocation:
    """With the totals that the problem has."""
    return replace(found, costs=items.allocation(picks_of(items, found.choice), "", 0.0).costs)
