"""Supported allocations: those that minimize loss + price·cost for some price.

    hull     per item, the lower left convex hull of its (cost, loss) points
    segment  one edge of a hull: the step from a scheme to the next dearer one on the hull
    slope    loss saved per cost of a segment; a hull's slopes fall from cheap to dear

All segments of all items, by falling slope, from every item at its cheapest: each prefix is an
optimal allocation for the cost that it has, so one sort gives the whole supported front (Shoham
and Gersho 1988, "Efficient bit allocation for an arbitrary set of quantizers").
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from dataclasses import dataclass

import numpy as np

from bitfront.errors import ProblemError
from bitfront.types import Allocation, Problem

from .base import ALLOCATORS
from .dual import climb, excess
from .exact import foothold
from .items import Float, Items, Picks, merge
from .limits import require
from .moves import descend, fill


@dataclass(frozen=True, eq=False)
class Walk:
    """start (G,): the cheapest picks. Segments in order: ``group`` takes ``to``, (S,) each."""

    start: Picks
    group: Picks
    to: Picks

    def picks(self, steps: int) -> Picks:
        """(G,) after the first ``steps`` segments."""
        picks = self.start.copy()
        picks[self.group[:steps]] = self.to[:steps]  # of equal groups the last one stays
        return picks


def front(problem: Problem, resource: str) -> list[Allocation]:
    """Every supported point of loss against one resource, from cheapest to least loss.

    Limits and floors are left aside. Each point is optimal for its own cost, so its gap is 0. There
    are at most layers × (schemes - 1) + 1 points. Raises ``ProblemError`` for a resource without
    costs.
    """
    start = time.perf_counter()
    if resource not in problem.costs:
        known = ", ".join(problem.costs) or "no costs at all"
        raise ProblemError(f"a front over {resource!r}", f"the problem has {known}")
    limits = {resource: math.fsum(np.abs(problem.costs[resource][problem.allowed]))}
    items = merge(dataclasses.replace(problem, limits=limits, floors={}))
    steps = walk(items, items.cost[0])
    points = []
    for n in range(len(steps.group) + 1):
        picks = steps.picks(n)
        loss = items.losses(picks)
        seconds = time.perf_counter() - start
        points.append(items.allocation(picks, "lagrange", seconds, loss))
    return points


@ALLOCATORS.register("lagrange")
def lagrange(problem: Problem, *, time_limit: float | None = None) -> Allocation:
    """The best supported allocation within the limits, then whatever gain still fits.

    With one limit or floor the point comes from the hulls; with several, from the best prices found
    by maximizing the Lagrangian bound, repaired where it exceeds a limit.
    """
    start = time.perf_counter()
    items = merge(problem)
    require(items)
    dual = climb(items)
    if len(items.resources) == 1:
        picks = _within(items)
    else:
        value = excess(items, dual.prices)
        repaired = [descend(items, t.picks, value) for t in dual.tangents]
        found = [fill(items, p) for p in repaired if p is not None]
        deadline = math.inf if time_limit is None else start + time_limit
        if not found:
            found = [foothold(items, items.best(), items.loss, deadline)]
        picks = min(found, key=items.rank)
    picks = fill(items, picks)
    return items.allocation(picks, "lagrange", time.perf_counter() - start, dual.bound)


def walk(items: Items, cost: Float) -> Walk:
    """The supported picks for one cost table (G, C), in order of cost."""
    start = np.empty(len(items.loss), dtype=np.intp)
    group, to, slope = [], [], []
    for g, (losses, costs) in enumerate(zip(items.loss, cost, strict=True)):
        hull = _hull(losses, costs)
        start[g] = hull[0]
        for a, b in itertools.pairwise(hull):
            group.append(g)
            to.append(b)
            slope.append((losses[a] - losses[b]) / (costs[b] - costs[a]))
    order = np.argsort(-np.array(slope), kind="stable")
    return Walk(start, np.array(group, dtype=np.intp)[order], np.array(to, dtype=np.intp)[order])


def _hull(losses: Float, costs: Float) -> list[int]:
    """Schemes on the lower left hull of one item, by rising cost and falling loss."""
    hull: list[int] = []
    for c in np.lexsort((losses, costs)).tolist():
        if not np.isfinite(losses[c]) or (hull and losses[c] >= losses[hull[-1]]):
            continue
        while len(hull) > 1:
            a, b = hull[-2:]
            # b lies on or above the line from a to c
            before = (losses[a] - losses[b]) * (costs[c] - costs[b])
            after = (losses[b] - losses[c]) * (costs[b] - costs[a])
            if before > after:
                break
            hull.pop()
        hull.append(c)
    return hull


def _within(items: Items) -> Picks:
    """The last point of the walk within the one limit."""
    steps = walk(items, items.cost[0])
    rows = np.arange(len(steps.start))
    before = steps.start.copy()
    more = np.empty(len(steps.group))
    for i, (g, c) in enumerate(zip(steps.group, steps.to, strict=True)):
        more[i] = items.cost[0, g, c] - items.cost[0, g, before[g]]
        before[g] = c
    used = items.cost[0, rows, steps.start].sum() + np.cumsum(more)
    n = int(np.searchsorted(used, items.room[0] + items.slack[0], side="right"))
    while not items.fits(steps.picks(n)):  # running sums drift by roundings
        n -= 1
    return steps.picks(n)
