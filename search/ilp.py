"""Exact allocation: the multiple-choice integer program with every limit, group and pin."""

from __future__ import annotations

import math
import time

from bitfront.types import Allocation, Problem

from .base import ALLOCATORS, CONVERTING
from .exact import solve
from .items import merge
from .limits import require
from .linear import solve_linear

CONVERTING.add("ilp")


@ALLOCATORS.register("ilp")
def ilp(problem: Problem, *, time_limit: float | None = None, gap: float = 0.0) -> Allocation:
    """The least loss within all limits, and of equal losses the least first cost, proven.

    With a relative ``gap`` it stops where the loss is proven to be within it of the least; with a
    ``time_limit`` that runs out, the best found, with the bound proven until then.
    """
    return proven(problem, time_limit, gap=gap)


def proven(
    problem: Problem, time_limit: float | None, *, explain: bool = True, gap: float = 0.0
) -> Allocation:
    """As ``ilp``. Without ``explain``, ``Infeasible`` is sooner and says less of how limits clash.

    Whoever adds limits of its own has its own words for them.
    """
    start = time.perf_counter()
    items = merge(problem)
    deadline = math.inf if time_limit is None else start + time_limit
    if problem.conversions.keys() & problem.limits.keys():
        found = solve_linear(items, deadline, explain, gap)
    else:
        require(items)
        found = solve(items, deadline, explain, gap)
    return items.allocation(found.picks, "ilp", time.perf_counter() - start, found.bound)
