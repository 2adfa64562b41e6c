"""The duality gap closed from above and below by the bounded search (``inside``).

The cheapest choices come first, since any better allocation leaves fewer to look at.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from .core import Row, open_items
from .dual import Dual, excess
from .inside import decide_inside
from .items import Bool, Float, Items, Picks

FIRST_SIZE = 128  # choices at first, beyond one an item; four times as many at each turn
FIRST_WIDTH = 256  # states of a first search


@dataclass(frozen=True, eq=False)
class Solution:
    """picks (G,) within all limits; no allocation within them has a loss below ``bound``.

    kept: (G, C) the choices that a better one may have; None where that was not looked at.
    """

    picks: Picks
    bound: float
    kept: Bool | None = None

    @property
    def contested(self) -> int:
        """How many items have a choice left."""
        return 0 if self.kept is None else len(open_items(self.kept))


def enough(items: Items, picks: Picks, gap: float) -> float:
    """The bound at which ``picks`` are within a relative ``gap`` of the least loss, or proven."""
    loss = items.losses(picks)
    return loss - max(items.rounding(picks), gap * abs(loss))


def close(
    items: Items,
    dual: Dual,
    found: Solution,
    width: int = FIRST_WIDTH,
    deadline: float = math.inf,
    gap: float = 0.0,
) -> Solution:
    """Less loss than ``found``'s, and a better bound, by searches of ``width`` states.

    Stops once all choices that are left were searched, at a relative ``gap``, and at ``deadline``.
    """
    best, bound = found.picks, found.bound
    if bound >= enough(items, best, gap) or time.perf_counter() > deadline:
        return found
    value = excess(items, dual.prices)
    size, kept = FIRST_SIZE, found.kept
    while bound < enough(items, best, gap) and time.perf_counter() < deadline:
        kept = dual.keep(items, items.losses(best), kept)
        kept[np.arange(len(best)), best] = True
        whole = np.count_nonzero(kept) <= len(best) + 2 * size or width > FIRST_WIDTH
        core = kept if whole else cheapest_choices(kept, value, best, size)
        objective = Row(items.loss, items.rounding(best) / 2)
        answer = decide_inside(
            core, objective, limit_rows(items), best, dual.prices, width, deadline
        )
        if answer.picks is not None and items.fits(answer.picks):
            best = min(best, answer.picks, key=items.rank)
        if whole:
            # what was fixed is no better than best, what was decided no better than the answer
            bound = max(bound, min(answer.bound, items.losses(best)))
            break
        size *= 4
    return Solution(best, bound, kept)


def cheapest_choices(kept: Bool, value: Float, best: Picks, size: int) -> Bool:
    """(G, C) the ``size`` kept choices of least ``value`` beyond each item's, and ``best``."""
    rows = np.arange(len(best))
    core = np.zeros_like(kept)
    g, c = np.nonzero(kept)
    worth = value[g, c]
    worth[c == best[g]] = -np.inf
    least = np.argsort(worth, kind="stable")[: len(best) + size]
    core[g[least], c[least]] = True
    core[rows, best] = True
    return core


def limit_rows(items: Items, grain: float = 0.0, prices: Float | None = None) -> list[Row]:
    """The limits, read so finely that at ``prices`` no more than ``grain`` of loss is blurred."""
    # half of the slack covers what costs lose in integers, so that a fine answer fits
    half = items.slack / 2
    precision = half.copy()
    if prices is not None:
        np.divide(grain, prices, out=precision, where=prices > 0)
    return [
        Row(table, max(h, p), room)
        for table, h, p, room in zip(items.cost, half, precision, items.room + half, strict=True)
    ]
