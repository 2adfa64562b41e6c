"""The baseline: one scheme for all layers."""

from __future__ import annotations

import time

import numpy as np

from bitfront.errors import Infeasible
from bitfront.types import Allocation, Problem

from .base import ALLOCATORS
from .dual import climb
from .items import Items, Picks, merge
from .limits import exactly, require


@ALLOCATORS.register("uniform")
def uniform(problem: Problem, *, time_limit: float | None = None, gap: float = 0.0) -> Allocation:
    """The scheme that gives the least loss within all limits when every group takes it.

    A group that may not take it (pinned, or unable to) takes its least loss instead, as a model
    quantized in one scheme leaves such layers in full precision. Raises ``Infeasible`` when no
    scheme fits, though a mixture may; ``binding`` then holds the least of the uniform totals.
    """
    start = time.perf_counter()
    items = merge(problem)
    require(items)
    candidates = [_everywhere(items, c) for c in range(len(problem.schemes))]
    fitting = [picks for picks in candidates if items.fits(picks)]
    if not fitting:
        raise _misfit(items, candidates)
    picks = min(fitting, key=items.rank)
    bound = climb(items).bound
    return items.allocation(picks, "uniform", time.perf_counter() - start, bound)


def _everywhere(items: Items, scheme: int) -> Picks:
    return np.where(items.allowed[:, scheme], scheme, items.best())


def _misfit(items: Items, candidates: list[Picks]) -> Infeasible:
    problem = items.problem
    totals = [items.usage(picks) for picks in candidates]
    binding = {}
    for r, name in enumerate(items.resources):
        least = min(float(usage[r]) for usage in totals)
        if least > items.room[r] + items.slack[r]:
            binding[name] = (problem.limits[name], least + problem.fixed.get(name, 0.0))
    words = [
        f"the least {name} is {exactly(b)}, the limit {exactly(a)}"
        for name, (a, b) in binding.items()
    ]
    return Infeasible(
        f"no single scheme fits all limits ({'; '.join(words) or 'each limit alone can be met'})",
        "raise the limits, add schemes, or allocate with another solver, which may mix schemes",
        binding,
    )
