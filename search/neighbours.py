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

from bitfront.types import Allocation, Problem

from .base import allocate
from .dual import climb, priced
from .items import Float, Items, Picks, merge, picks_of

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
    values = singles_and_pairs(g, value, cost, left)
    found: list[Allocation] = []
    for index in np.argsort(values, kind="stable").tolist():
        if len(found) == count or not values[index] < 0:
            break
        taken = parts(index, len(moves))
        picks = here.copy()
        picks[g[taken]] = c[taken]
        if items.fits(picks):  # by correctly rounded sums
            found.append(items.allocation(picks, "near", time.perf_counter() - start))
    return found


def singles_and_pairs(
    g: Picks, value: Float, cost: Float, left: Float, together: Float | float = 0.0
) -> Float:
    """(M + M²,) what each of M single moves adds, then each pair; inf where that does not fit.

    g, value: (M,) item of each move and what it adds. cost: (R, M) of each resource, of which
    ``left`` (R,) are left. together: (M, M) what two add beyond their sum. Each pair counts once.
    """
    both = value[:, None] + value + together
    fits = (cost[:, :, None] + cost[:, None, :] <= left[:, None, None]).all(axis=0)
    both[~fits | (g[:, None] >= g)] = np.inf
    alone = np.where((cost <= left[:, None]).all(axis=0), value, np.inf)
    return np.concatenate([alone, both.ravel()])


def parts(index: int, count: int) -> list[int]:
    """The moves that entry ``index`` of ``singles_and_pairs`` of ``count`` ones is made of."""
    return [index] if index < count else list(divmod(index - count, count))


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
