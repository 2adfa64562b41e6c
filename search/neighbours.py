"""Allocations near a given one: the moves that a local model of the loss proposes.

A move gives one or two items (groups, and layers in no group) another scheme each. Of n items and
C schemes there are O(n²C²) moves of two; they are looked for among the ``MOVES`` single ones whose
rise, with their costs at the Lagrangian prices, is least.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bitfront.errors import ProblemError
from bitfront.types import Allocation, Problem

from .base import allocate
from .dual import climb, priced
from .items import Float, Items, Picks, merge

MOVES = 1000
CHANGES = "changed groups"


def near(problem: Problem, schemes: Sequence[str], count: int) -> list[Allocation]:
    """The ``count`` best within the limits that differ from ``schemes`` in one or two groups.

    schemes: of each layer, within the limits. Those of less loss than ``schemes`` only, the least
    first. Raises ``ProblemError`` for ``schemes`` that are barred or differ within a group.
    """
    start = time.perf_counter()
    items = merge(problem)
    here = picks_of(items, schemes)
    rows = np.arange(len(here))
    left = items.room + items.slack - items.usage(here)
    rise = items.loss - items.loss[rows, here][:, None]
    more = items.cost - items.cost[:, rows, here][:, :, None]
    moves = _singles(items, here)
    g, c = moves.T
    value, cost = rise[g, c], more[:, g, c]
    both = value[:, None] + value
    fits = (cost[:, :, None] + cost[:, None, :] <= left[:, None, None]).all(axis=0)
    both[~fits | (g[:, None] >= g)] = np.inf  # each pair once
    alone = np.where((cost <= left[:, None]).all(axis=0), value, np.inf)
    found: list[Allocation] = []
    values = np.concatenate([alone, both.ravel()])
    for index in np.argsort(values, kind="stable"):
        if len(found) == count or not values[index] < 0:
            break
        if index < len(moves):
            taken = [int(index)]
        else:
            taken = list(map(int, divmod(int(index) - len(moves), len(moves))))
        picks = here.copy()
        picks[g[taken]] = c[taken]
        if items.fits(picks):  # by correctly rounded sums
            found.append(items.allocation(picks, "near", time.perf_counter() - start))
    return found


def within(problem: Problem, schemes: Sequence[str], radius: int) -> Allocation:
    """The least loss within the limits when at most ``radius`` groups leave ``schemes``; exact."""
    return allocate(
        replace(
            problem,
            costs={**problem.costs, CHANGES: changes(merge(problem), schemes)},
            limits={**problem.limits, CHANGES: radius},
        )
    )


def changes(items: Items, schemes: Sequence[str]) -> Float:
    """(L, C) 1 where a group leaves ``schemes``, told at its first layer, so that groups add up."""
    changed = np.zeros(items.problem.loss.shape)
    for members, pick in zip(items.members, picks_of(items, schemes), strict=True):
        changed[members[0]] = 1.0
        changed[members[0], pick] = 0.0
    return changed


def combined(
    problem: Problem, schemes: Sequence[str], moves: Sequence[Allocation]
) -> Allocation | None:
    """``schemes`` with the changes of ``moves``, in order, as far as they fit together.

    A move joins as a whole, when it changes other groups than those before it and the total stays
    within the limits. None when fewer than two moves do.
    """
    start = time.perf_counter()
    items = merge(problem)
    here = picks_of(items, schemes)
    picks, joined = here.copy(), 0
    for move in moves:
        there = picks_of(items, move.choice)
        changed = there != here
        if (picks != here)[changed].any():
            continue
        next_ = np.where(changed, there, picks)
        if items.fits(next_):
            picks, joined = next_, joined + 1
    if joined < 2:
        return None
    return items.allocation(picks, "combined", time.perf_counter() - start)


def _singles(items: Items, here: Picks) -> np.ndarray:
    """(M, 2) items and schemes of single moves, in order, the most promising ones."""
    rows = np.arange(len(here))
    prices = climb(items).prices
    cost: Float = priced(items, prices)
    promise = cost - cost[rows, here][:, None]
    promise[rows, here] = np.inf
    chosen = np.argsort(promise, axis=None, kind="stable")[:MOVES]
    chosen = np.sort(chosen[np.isfinite(promise.ravel()[chosen])])
    return np.stack(np.unravel_index(chosen, promise.shape), axis=1)


def picks_of(items: Items, schemes: Sequence[str]) -> Picks:
    index = {scheme: i for i, scheme in enumerate(items.problem.schemes)}
    picks = []
    for item, members in enumerate(items.members):
        (scheme, *others) = {schemes[i] for i in members}
        if others or not items.allowed[item, index[scheme]]:
            layer = items.problem.layers[members[0]]
            raise ProblemError(
                f"layer {layer!r} starts at {scheme}, which it may not take",
                "start from an allocation of this problem",
            )
        picks.append(index[scheme])
    return np.array(picks, dtype=np.intp)
