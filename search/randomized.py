"""The baseline that looks at no loss: schemes by lot, within all limits."""

from __future__ import annotations

import math
import time

import numpy as np

from bitfront.errors import InvalidInput
from bitfront.types import Allocation, Problem

from .base import ALLOCATORS
from .dual import climb
from .exact import foothold
from .items import merge
from .limits import require


def randomized(
    problem: Problem, *, time_limit: float | None = None, gap: float = 0.0, seed: int = 0
) -> Allocation:
    """For each group one of its schemes, all equally likely; then down until all limits hold.

    The steps down are those of ``greedy``, with random numbers in place of the losses, so nothing
    here depends on a loss but the bound, which is the Lagrangian one. Equal seeds (0 or more) give
    equal allocations; not every allocation within the limits is equally likely.
    """
    start = time.perf_counter()
    if seed < 0:
        raise InvalidInput(f"seed {seed}", "give 0 or more")
    items = merge(problem)
    require(items)
    random = np.random.default_rng(seed)
    lots = np.where(items.allowed, random.random(items.loss.shape), np.inf)
    deadline = math.inf if time_limit is None else start + time_limit
    value = random.random(items.loss.shape)
    picks = foothold(items, lots.argmin(axis=1), value, deadline)
    bound = climb(items).bound
    return items.allocation(picks, "random", time.perf_counter() - start, bound)


ALLOCATORS.register("random")(randomized)  # a decorator would hide ``seed`` from the type
