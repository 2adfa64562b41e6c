"""The duality gap closed by a bounded search over what is left in it.

    K       items that still have a choice
    state   choices of the first k of them: (loss, usage) in whole units (``core.scaled``)
    cut     prices, with what the items after the k-th add at least: Σ min (loss + price·cost)
    bound   of a state: its own loss and the best cut of the rest, less the room that prices pay for

Items are gone through in order, those first whose choices weigh most in price, so that what is
left to the cuts is dust, for which they are nearly exact. A state is dropped whose bound is no
better than the best known loss, or, with one resource, that another equals or betters in loss and
usage. Of more than ``width`` states those of least bound stay; the least bound that was dropped so
still bounds every allocation. Where none was, the answer is proven.

For one resource this is the dynamic programming by balancing of Pisinger 1995 ("A minimal algorithm
for the multiple-choice knapsack problem") with the linear bound at several prices; for several, the
same with the Lagrangian bound in place of the linear one. Whole units make all sums exact.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .core import Answer, Row, Scaled, open_items, scaled
from .items import EPS, Bool, Float, Picks

# cuts multiply each price by 1 + scale, by its inverse or by 1, in all combinations at each scale
SCALES = (0.001, 0.005, 0.02, 0.07, 0.25, 1.0, 4.0)
SAMPLE = 256  # states that tell which cuts are of use
BLOCK = 4096  # states whose cuts are looked at together, so that they stay in the cache
MEMORY = 20_000_000  # states kept in all, of six bytes each

Whole = NDArray[np.int64]


def decide_inside(
    kept: Bool,
    objective: Row,
    rows: Sequence[Row],
    hint: Picks,
    prices: Float,
    width: int,
    deadline: float = math.inf,
) -> Answer:
    """Minimize the total of ``objective`` over ``kept`` choices (G, C) within all ``rows``.

    ``hint`` are picks within them, ``prices`` (R,) are near the best multipliers of ``rows``.
    Deterministic unless ``deadline`` (``time.perf_counter``'s seconds) passes.
    """
    loss = scaled(objective.table, kept, objective.precision)
    costs = [scaled(row.table, kept, row.precision) for row in rows]
    room = np.array([c.most(r.room) for c, r in zip(costs, rows, strict=True)], dtype=np.int64)
    free = open_items(kept)
    known = int(loss.table[np.arange(len(free)), hint[free]].sum())
    units = np.array([c.unit for c in costs]) / loss.unit
    search = _Search.of(kept, loss, costs, room, prices * units, known)
    picks, total, least = search.run(width, deadline)
    if least is None:  # out of time
        return Answer(hint, -math.inf, False)
    return Answer(hint if picks is None else picks, loss.total(min(total, least)), least >= total)


@dataclass(frozen=True, eq=False)
class _Search:
    """See the module's notation. Losses are whole and at least 0, so are usages.

    base (G,): the only kept choices; items (K,) in order, choices of each: schemes (n,), loss (n,),
    cost (n, R). prices (T, R), the best first. rest (K + 1, T): what items from the k-th on add at
    least. least (K + 1, R): usage of the items from the k-th on at least. known: a total to beat.
    margin: more than the rounding of any bound.
    """

    base: Picks
    items: Picks
    choices: list[tuple[Picks, Whole, Whole]]
    prices: Float
    rest: Float
    least: Whole
    room: Whole
    known: int
    margin: float

    @classmethod
    def of(
        cls,
        kept: Bool,
        loss: Scaled,
        costs: Sequence[Scaled],
        room: Whole,
        prices: Float,
        known: int,
    ) -> _Search:
        free = open_items(kept)
        found = []
        for i, row in enumerate(kept[free]):
            c = np.flatnonzero(row)
            cost = np.array([table.table[i, c] for table in costs], dtype=np.int64)
            found.append((c, loss.table[i, c], cost.reshape(len(costs), len(c)).T))
        weight = [float(np.ptp(cost @ prices)) for _, _, cost in found]
        order = np.argsort(-np.array(weight), kind="stable")
        choices = [found[i] for i in order.tolist()]
        grid = _grid(prices)
        rest = np.zeros((len(choices) + 1, len(grid)))
        least = np.zeros((len(choices) + 1, len(room)), dtype=np.int64)
        size = np.abs(grid @ room)
        for k in range(len(choices) - 1, -1, -1):
            _, own, cost = choices[k]
            value = own[:, None] + cost @ grid.T
            rest[k] = rest[k + 1] + value.min(axis=0)
            least[k] = least[k + 1] + cost.min(axis=0)
            size = size + value.max(axis=0)
        margin = 4 * EPS * (len(choices) + len(room) + 4) * float(size.max())
        base = kept.argmax(axis=1)
        return cls(base, free[order], choices, grid, rest, least, room, known, margin)

    def run(self, width: int, deadline: float) -> tuple[Picks | None, int, int | None]:
        """(picks below ``known`` if any, the least total found, a bound on all that was dropped).

        The bound is None when time ran out.
        """
        width = max(1, min(width, MEMORY // max(1, len(self.choices))))
        losses = np.zeros(1, dtype=np.int64)
        usage = -self.room[None, :]  # (N, R), at most 0 in the end
        trail = []
        dropped = math.inf
        for k, (schemes, loss, cost) in enumerate(self.choices):
            if time.perf_counter() > deadline:
                return None, self.known, None
            parents, picked = self._worthwhile(losses, usage, k)
            losses, usage = losses[parents] + loss[picked], usage[parents] + cost[picked]
            bounds = self._bounds(losses, usage, k + 1)
            stay = (bounds < self._goal()) & (usage + self.least[k + 1] <= 0).all(axis=1)
            if len(self.room) == 1:
                stay = _undominated(losses, usage[:, 0], stay)
            index = np.flatnonzero(stay)
            if len(index) > width:
                order = np.argpartition(bounds[index], width)
                dropped = min(dropped, float(bounds[index[order[width:]]].min()))
                index = np.sort(index[order[:width]])
            losses, usage = losses[index], usage[index]
            trail.append((parents[index].astype(np.int32), schemes[picked[index]].astype(np.int16)))
        least = self.known if math.isinf(dropped) else math.floor(dropped - self.margin) + 1
        if losses.min(initial=self.known) >= self.known:  # a bound may be below the loss itself
            return None, self.known, min(least, self.known)
        at = int(losses.argmin())
        total = int(losses[at])
        picks = self.base.copy()
        for item, (before, taken) in zip(self.items[::-1], trail[::-1], strict=True):
            picks[item] = taken[at]
            at = int(before[at])
        return picks, total, total if math.isinf(dropped) else least

    def _goal(self) -> float:
        """Bounds from here on are of no use: a total below ``known`` is at most ``known - 1``."""
        return self.known - 1 + self.margin + 2 * EPS * self.known + 0.5

    def _worthwhile(self, losses: Whole, usage: Whole, k: int) -> tuple[Picks, Picks]:
        """Which states go on with which choices of the k-th item, by the best prices alone."""
        _, loss, cost = self.choices[k]
        best = self.prices[0]
        value = losses + usage @ best + self.rest[k + 1, 0]
        picked, parents = np.nonzero(value < (self._goal() - (loss + cost @ best))[:, None])
        return parents, picked

    def _bounds(self, losses: Whole, usage: Whole, k: int) -> Float:
        """(N,) the best cut of each state, of those that are best for some of a sample."""
        sample = usage[:: max(1, len(usage) // SAMPLE)]
        best = np.unique((sample @ self.prices.T + self.rest[k]).argmax(axis=1))
        prices, rest = self.prices[best].T, self.rest[k, best]
        bounds = np.empty(len(losses))
        for start in range(0, len(losses), BLOCK):
            part = slice(start, start + BLOCK)
            cuts = usage[part].astype(np.float64) @ prices + rest
            bounds[part] = losses[part] + cuts.max(axis=1)
        return bounds


def _grid(prices: Float) -> Float:
    """(T, R) the prices, then others around them."""
    binding = np.flatnonzero(prices > 0)
    powers = [*itertools.product((0.0, -1.0, 1.0), repeat=len(binding))]
    around = [(1 + scale) ** np.array(powers[1:]) for scale in SCALES if len(binding)]
    factors = np.concatenate([np.ones((1, len(binding))), *around])
    grid = np.tile(prices, (len(factors), 1))
    grid[:, binding] *= factors
    return grid


def _undominated(losses: Whole, usage: Whole, among: Bool) -> Bool:
    """Of the states ``among`` those that none betters in loss at no more usage."""
    index = np.flatnonzero(among)
    order = index[np.lexsort((losses[index], usage[index]))]
    lowest = np.minimum.accumulate(losses[order])
    stay = np.zeros(len(losses), dtype=bool)
    stay[order[:1]] = True
    stay[order[1:][lowest[1:] < lowest[:-1]]] = True
    return stay
