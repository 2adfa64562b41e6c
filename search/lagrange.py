"""Lagrangian relaxation, repaired, then closed as far as a bounded search goes.

With one limit the start is a point of the hull front (``supported``), with several the relaxed
answers at the best prices, stepped down to where all limits hold.
"""

from __future__ import annotations

import math
import time

from bitfront.types import Allocation, Problem

from .base import ALLOCATORS
from .closing import Solution, close
from .dual import Dual, climb
from .exact import NARROW, incumbent
from .items import Items, Picks, merge
from .limits import require
from .moves import fill
from .supported import supported


@ALLOCATORS.register("lagrange")
def lagrange(problem: Problem, *, time_limit: float | None = None, gap: float = 0.0) -> Allocation:
    """The best supported allocation within the limits, filled up, then improved inside its gap.

    The search inside the gap takes a fixed number of states: with one limit it is nearly always a
    proof, with several often. What it leaves is told as ``gap``.
    """
    start = time.perf_counter()
    items = merge(problem)
    require(items)
    deadline = math.inf if time_limit is None else start + time_limit
    best = items.best()
    if items.fits(best):
        return items.allocation(best, "lagrange", time.perf_counter() - start, items.losses(best))
    dual = climb(items, deadline)
    found = Solution(_start(items, dual, deadline), dual.bound)
    for width in NARROW:
        found = close(items, dual, found, width, deadline, gap)
    return items.allocation(found.picks, "lagrange", time.perf_counter() - start, found.bound)


def _start(items: Items, dual: Dual, deadline: float) -> Picks:
    if len(items.resources) == 1:
        return fill(items, supported(items), deadline)
    return incumbent(items, dual, deadline)
