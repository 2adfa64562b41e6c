"""Start high, take the step down that loses least per cost saved, until all limits hold."""

from __future__ import annotations

import math
import time

from bitfront.types import Allocation, Problem

from .base import ALLOCATORS
from .dual import climb
from .exact import foothold
from .items import merge
from .limits import require


@ALLOCATORS.register("greedy")
def greedy(problem: Problem, *, time_limit: float | None = None) -> Allocation:
    """Greedy MP of MPTQ-ViT (arXiv:2401.14895), for any schemes and any number of limits.

    Each group starts at its least loss. A step takes one group to any scheme that uses less of the
    exceeded resources, each counted in units of its span. Where several limits leave no step, one
    resource is minimized exactly within the others. The bound is the Lagrangian one.
    """
    start = time.perf_counter()
    items = merge(problem)
    require(items)
    picks = foothold(items, math.inf if time_limit is None else start + time_limit)
    bound = climb(items).bound
    return items.allocation(picks, "greedy", time.perf_counter() - start, bound)
