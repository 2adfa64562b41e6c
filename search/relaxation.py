"""A lower bound on the objective with interactions: its convex relaxation.

    x   (G, C)  in the simplex of each item, on average within all limits
    f(x)        Σ base·x + ½ κ |r|²,  r = Σ v·x:  at whole x the objective F (``coupled``)

Frank and Wolfe's method (1956): the tangent of f at x is minimized, which is the linear relaxation
of an additive problem (``dual``), and x moves towards its answer as far as f falls. Every tangent
bounds F from below at its own minimum, so the bound does not rest on how far the method has come.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from ortools.linear_solver import pywraplp

from bitfront.errors import Infeasible

from .coupled import Coupled
from .dual import Dual, climb
from .exact import solve
from .items import Float, Items, Picks

STEPS = 60
CLOSE = 1e-4  # of f: how near to its least value is near enough
WHOLE = 400  # choices up to which the last tangent is minimized over whole x too


@dataclass(frozen=True, eq=False)
class Relaxed:
    """bound: on F. prices (R,): of the best tangent. picks: allocations that relaxed ones suggest.

    ``picks`` may be none, and may exceed limits.
    """

    bound: float
    prices: Float
    picks: tuple[Picks, ...]


def enough(bound: float, gap: float) -> float:
    """An F at which, and below, an allocation is within a relative ``gap`` of ``bound``."""
    if bound <= 0:
        return bound / (1 + gap)
    return bound / (1 - gap) if gap < 1 else math.inf


def relaxed(objective: Coupled, start: Picks, deadline: float, gap: float = 0.0) -> Relaxed:
    """The bound, from ``start`` on, until it is close or the ``deadline`` (perf_counter) passes.

    Or until ``start`` is proven to be within a relative ``gap`` of the least F.
    """
    rows, value = np.arange(len(start)), objective.value(start)
    linear, r = float(objective.base[rows, start].sum()), objective.sum(start)
    bound, point, prices = -np.inf, r, np.zeros(0)
    picks: tuple[Picks, ...] = ()
    for _ in range(STEPS):
        items = objective.linearized(r)
        dual = climb(items)
        here = dual.bound - objective.half(r) - objective.rounding(r)
        if here > bound:
            bound, point, prices = here, r, dual.prices
            picks = tuple(t.picks for t in dual.tangents)
        f = linear + objective.half(r)
        close = f - bound <= CLOSE * abs(f) or value <= enough(bound, gap)
        if close or time.perf_counter() > deadline:
            break
        to, to_r = _answer(objective, items, dual)
        away = to_r - r
        steepness = objective.shrink * float(away @ away)
        fall = linear - to - objective.shrink * float(r @ away)
        if not fall > 0:
            break
        step = 1.0 if fall >= steepness else fall / steepness
        linear, r = linear + step * (to - linear), r + step * away
    if objective.base.size <= WHOLE and value > enough(bound, gap):
        with suppress(Infeasible):  # in the time left
            found = solve(objective.linearized(point), deadline, explain=False)
            here = found.bound - objective.half(point) - objective.rounding(point)
            bound, picks = max(bound, here), (found.picks, *picks)
    return Relaxed(bound, prices, picks)


def _answer(objective: Coupled, items: Items, dual: Dual) -> tuple[float, Float]:
    """Σ base·x and r of the x that answers the linear relaxation: a mixture of relaxed answers."""
    rows = np.arange(len(items.loss))
    picks = [t.picks for t in dual.tangents]
    losses = np.array([items.loss[rows, p].sum() for p in picks])
    weights = _mixture(losses, np.array([t.usage for t in dual.tangents]), items)
    linear = np.array([objective.base[rows, p].sum() for p in picks])
    sums = np.stack([objective.sum(p) for p in picks])
    return float(weights @ linear), weights @ sums


def _mixture(losses: Float, usage: Float, items: Items) -> Float:
    """The weights (K,), adding up to 1, of least loss whose usage (K, R) is within the limits."""
    solver = pywraplp.Solver.CreateSolver("GLOP")
    weights = [solver.NumVar(0.0, 1.0, "") for _ in losses]
    solver.Add(sum(weights) == 1)
    span = items.per_span()
    room = (items.room + items.slack) * span
    for r, used in enumerate((usage * span).T):
        solver.Add(sum(u * w for u, w in zip(used.tolist(), weights, strict=True)) <= room[r])
    low, size = losses.min(), max(float(np.ptp(losses)), np.finfo(float).tiny)
    scaled = ((losses - low) / size).tolist()
    solver.Minimize(sum(c * w for c, w in zip(scaled, weights, strict=True)))
    if solver.Solve() != pywraplp.Solver.OPTIMAL:  # none within: any point has a tangent
        return np.eye(len(losses))[0]
    found = np.array([w.solution_value() for w in weights]).clip(0)
    return found / found.sum()
