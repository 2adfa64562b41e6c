"""The whole front of loss against one cost: what is optimal for some price."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from bitfront.errors import ProblemError
from bitfront.types import Allocation, Problem

from .hull import Walk, walk
from .items import Float, Items, Picks, merge

SLICE = 2.0**30  # of a number, what one exact running sum of whole numbers takes
SLICES = 4


@dataclass(frozen=True, eq=False)
class Front(Sequence[Allocation]):
    """The P supported points from cheapest to least loss; an allocation is made when asked for.

    costs, losses: (P,) totals, fixed part included, within a few roundings. Each point is optimal
    for its own cost, so that ``bounds``, on the loss of any allocation of at most that cost, are
    ``losses``. seconds: what finding them took.
    """

    costs: Float
    losses: Float
    seconds: float
    items: Items
    steps: Walk

    @property
    def bounds(self) -> Float:
        return self.losses

    def __len__(self) -> int:
        return len(self.losses)

    @overload
    def __getitem__(self, index: int) -> Allocation: ...
    @overload
    def __getitem__(self, index: slice) -> list[Allocation]: ...
    def __getitem__(self, index: int | slice) -> Allocation | list[Allocation]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        picks = self.steps.picks(range(len(self))[index])
        return self.items.allocation(picks, "lagrange", self.seconds, self.items.losses(picks))


def front(problem: Problem, resource: str) -> Front:
    """Every supported point of loss against one resource, from cheapest to least loss.

    Limits and floors are left aside. There are at most layers × (schemes - 1) + 1 points. Raises
    ``ProblemError`` for a resource without costs.
    """
    start = time.perf_counter()
    if resource not in problem.costs:
        known = ", ".join(problem.costs) or "no costs at all"
        raise ProblemError(f"a front over {resource!r}", f"the problem has {known}")
    limits = {resource: float(np.abs(problem.costs[resource]).sum(where=problem.allowed))}
    items = merge(dataclasses.replace(problem, limits=limits, floors={}))
    steps = walk(items.loss, items.cost[0])
    costs = _totals(items.cost[0], steps, problem.fixed.get(resource, 0.0))
    losses = _totals(items.loss, steps, 0.0)
    return Front(costs, losses, time.perf_counter() - start, items, steps)


def supported(items: Items) -> Picks:
    """The supported picks of most cost within the one limit, which can be met."""
    cost = items.cost[0]
    steps = walk(items.loss, cost)
    used = cost[np.arange(len(steps.start)), steps.start].sum() + np.cumsum(
        cost[steps.group, steps.to] - cost[steps.group, steps.at]
    )
    n = int(np.searchsorted(used, items.room[0] + items.slack[0], side="right"))
    while not items.fits(steps.picks(n)):  # running sums drift by roundings
        n -= 1
    return steps.picks(n)


def _totals(table: Float, steps: Walk, fixed: float) -> Float:
    """(S + 1,) the total after each step; it does not drift.

    Entries are cut into slices of whole numbers in common units, whose running sums are exact.
    """
    first = table[np.arange(len(steps.start)), steps.start]
    left = np.concatenate(
        [[fixed], first, -table[steps.group, steps.at], table[steps.group, steps.to]]
    )
    S, begin = len(steps.group), 1 + len(first)
    unit = math.ldexp(1.0, math.frexp(float(np.abs(left).max()))[1]) / SLICE
    parts = []
    for _ in range(SLICES):
        whole = np.rint(left / unit)
        left = left - whole * unit
        added = whole[begin : begin + S] + whole[begin + S :]
        parts.append(unit * (whole[:begin].sum() + np.concatenate([[0.0], np.cumsum(added)])))
        unit /= SLICE
        if unit < np.finfo(np.float64).tiny:
            break
    total = np.zeros(S + 1)
    for part in reversed(parts):
        total += part
    return total
