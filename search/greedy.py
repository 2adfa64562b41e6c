"""One step at a time: down from the least loss until all limits hold, or up from the least cost."""

from __future__ import annotations

import math
import time

import numpy as np

from bitfront.types import Allocation, Problem

from .ascent import rise
from .base import ALLOCATORS
from .dual import climb
from .exact import foothold
from .items import Items, Picks, merge
from .limits import require


@ALLOCATORS.register("greedy")
def greedy(problem: Problem, *, time_limit: float | None = None, gap: float = 0.0) -> Allocation:
    """Greedy MP of MPTQ-ViT (arXiv:2401.14895), for any schemes and any number of limits.

    Each group starts at its least loss. A step takes one group to any scheme that uses less of the
    exceeded resources, each counted in units of its span. Where several limits leave no step, one
    resource is minimized exactly within the others. The bound is the Lagrangian one.
    """
    start = time.perf_counter()
    items = merge(problem)
    require(items)
    deadline = math.inf if time_limit is None else start + time_limit
    picks = foothold(items, items.best(), items.loss, deadline)
    bound = climb(items).bound
    return items.allocation(picks, "greedy", time.perf_counter() - start, bound)


@ALLOCATORS.register("greedy-up")
def greedy_up(problem: Problem, *, time_limit: float | None = None, gap: float = 0.0) -> Allocation:
    """From each group's least cost, the step up that gains most per cost, while any fits.

    The cost of a step is what it adds over all limited resources, each in units of its span; a step
    may skip schemes. Where the least costs are not within several limits, they are first stepped
    down as in ``greedy``. The bound is the Lagrangian one.
    """
    start = time.perf_counter()
    items = merge(problem)
    require(items)
    deadline = math.inf if time_limit is None else start + time_limit
    picks = rise(items, foothold(items, _cheapest(items), items.loss, deadline))
    bound = climb(items).bound
    return items.allocation(picks, "greedy-up", time.perf_counter() - start, bound)


def _cheapest(items: Items) -> Picks:
    """The least cost of each item over all resources with a limit, then the least loss."""
    cost = np.tensordot(items.per_span() * (items.sign > 0), items.cost, axes=1)
    cost[~items.allowed] = np.inf
    ties = cost == cost.min(axis=1, keepdims=True)
    return np.where(ties, items.loss, np.inf).argmin(axis=1)
