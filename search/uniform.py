"""The baseline: one scheme for all layers."""

from __future__ import annotations

import time

import numpy as np

from bitfront.errors import Infeasible
from bitfront.types import Allocation, Problem

from .base import ALLOCATORS, CONVERTING
from .dual import climb
from .items import Items, Picks, merge
from .limits import exactly, require, total

CONVERTING.add("uniform")


@ALLOCATORS.register("uniform")
def uniform(problem: Problem, *, time_limit: float | None = None, gap: float = 0.0) -> Allocation:
    """The scheme that gives the least loss within all limits when every group takes it.

    A group that may not take it (pinned, or unable to) takes its least loss instead, as a model
    quantized in one scheme leaves such layers in full precision. Raises ``Infeasible`` when no
    scheme fits, though a mixture may; ``binding`` and ``short`` then hold the least, or the
    greatest, of the uniform totals.
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


def alike(problem: Problem) -> list[dict[str, str]]:
    """What ``uniform`` chooses from: an allocation for each scheme, within the limits or not."""
    items = merge(problem)
    found = []
    for scheme in range(len(problem.schemes)):
        picks = _everywhere(items, scheme)
        words = [problem.schemes[i] for i in picks[items.owner].tolist()]
        found.append(dict(zip(problem.layers, words, strict=True)))
    return found


def _everywhere(items: Items, scheme: int) -> Picks:
    return np.where(items.allowed[:, scheme], scheme, items.best())


def _misfit(items: Items, candidates: list[Picks]) -> Infeasible:
    totals = [items.usage(picks) for picks in candidates]
    binding, short, words = {}, {}, []
    for r, name in enumerate(items.resources):
        least = min(float(usage[r]) for usage in totals)
        if least > items.room[r] + items.slack[r]:
            a, b = items.bound(r), total(items, r, least)
            if items.sign[r] > 0:
                binding[name] = (a, b)
                words.append(f"the least {name} is {exactly(b)}, the limit {exactly(a)}")
            else:
                short[name] = (a, b)
                words.append(f"the greatest {name} is {exactly(b)}, the floor {exactly(a)}")
    return Infeasible(
        f"no single scheme fits all limits ({'; '.join(words) or 'each limit alone can be met'})",
        "loosen the limits, add schemes, or allocate with another solver, which may mix schemes",
        binding,
        short,
    )
