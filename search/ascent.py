"""Up from picks that fit: each time the step that saves most loss per cost added, while any fits.

step   of one item to any scheme of less loss
more   (R, S)  what each step adds to each row
ratio  (S,)    loss saved per cost added, which is summed over all resources with a limit, each in
               units of its span (greatest minus least total); inf where none is added

A step that does not fit now may fit later, as others may make room, so none can be put away. They
stand by falling ratio in queues, and blocks of them are passed over by their least ``more``. When
an item moves, its steps so far are dead, and its next ones are a queue of their own; short queues
are merged, so that there are few (the logarithmic method: Bentley and Saxe 1980).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .hull import walk
from .items import EPS, Float, Items, Picks

BLOCK = 256  # steps that are passed over, or looked at, at once

Step = tuple[float, int, int]  # -ratio, item, scheme: the least is taken first
NONE: Step = (math.inf, 0, 0)


def rise(items: Items, picks: Picks) -> Picks:
    """Step up from ``picks``, each time where the loss drops most per cost added, while any fits.

    Of equal ratios the first item's step to its first scheme is taken. ``picks`` must fit; the end
    has no single step that lowers the loss and fits.
    """
    if not items.resources:
        return items.best()
    picks = picks.copy()
    weight = items.per_span() * (items.sign > 0)
    _hasten(items, picks, weight)
    totals = _Totals(items, picks)
    moved = np.zeros(len(picks), dtype=np.intp)  # the number of steps taken when each item moved
    queues = [_Queue(items, picks, weight, np.arange(len(picks)), moved, 0)]
    taken = 0
    while True:
        best, room = NONE, totals.room()
        for queue in queues:
            best = queue.first(room, totals.fits, best)
        if best == NONE:
            return picks
        _, g, c = best
        totals.take(g, c)
        taken += 1
        moved[g] = taken
        rows = np.array([g])
        while queues and len(queues[-1].rows) < 2 * len(rows):
            rows = np.union1d(rows, queues.pop().rows)
        queues.append(_Queue(items, picks, weight, rows, moved, taken))


class _Queue:
    """The steps of the items ``rows`` from their present picks, by falling ratio.

    Those of an item that has moved since, by ``moved``, are dead.
    """

    def __init__(
        self, items: Items, picks: Picks, weight: Float, rows: Picks, moved: Picks, now: int
    ) -> None:
        self.rows, self.moved, self.made = rows, moved, now
        gain = items.loss[rows, picks[rows]][:, None] - items.loss[rows]
        at, to = np.nonzero(gain > 0)
        group = rows[at]
        more = items.cost[:, group, to] - items.cost[:, group, picks[group]]
        cost = np.zeros(len(group))
        for w, row in zip(weight, more, strict=True):
            cost += w * row
        ratio = np.full(len(group), np.inf)
        np.divide(gain[at, to], cost, out=ratio, where=cost > 0)
        order = np.argsort(-ratio, kind="stable")
        self.group, self.to, self.ratio = group[order], to[order], ratio[order]
        self.more = more[:, order]
        starts = np.arange(0, len(group), BLOCK)
        self.least = np.minimum.reduceat(self.more, starts, axis=1)  # (R, blocks)

    def first(self, room: Float, fits: Callable[[int, int], bool], best: Step) -> Step:
        """The first step that fits, if it comes before ``best``, else that.

        room: (R,) what is left of each row, at least. fits: whether a step does, precisely.
        """
        for b in np.flatnonzero((self.least <= room[:, None]).all(axis=0)).tolist():
            start = b * BLOCK
            if -self.ratio[start] > best[0]:
                break
            part = slice(start, start + BLOCK)
            dead = self.moved[self.group[part]] > self.made
            within = ~dead & (self.more[:, part] <= room[:, None]).all(axis=0)
            for s in (np.flatnonzero(within) + start).tolist():
                step = (-float(self.ratio[s]), int(self.group[s]), int(self.to[s]))
                if step > best:
                    break
                if fits(step[1], step[2]):
                    return step
            self.more[:, part][:, dead] = np.inf
            self.least[:, b] = self.more[:, part].min(axis=1)
        return best


class _Totals:
    """What ``picks`` use of each row, as the sums of two doubles: exact, as costs go."""

    def __init__(self, items: Items, picks: Picks) -> None:
        self.cost, self.picks = items.cost, picks
        self.limit = items.room + items.slack
        terms = [table[np.arange(len(picks)), picks].tolist() for table in items.cost]
        self.high = items.usage(picks)
        self.low = [math.fsum([*row, -high]) for row, high in zip(terms, self.high, strict=True)]

    def room(self) -> Float:
        """(R,) what is left of each row, or a few roundings more."""
        return self.limit - self.high + 8 * EPS * (np.abs(self.limit) + np.abs(self.high))

    def fits(self, g: int, c: int) -> bool:
        """Whether all totals, correctly rounded, are within their limits once item g takes c."""
        terms = self._terms(g, c)
        return all(math.fsum(t) <= limit for t, limit in zip(terms, self.limit, strict=True))

    def take(self, g: int, c: int) -> None:
        """Item g takes c, in ``picks`` too."""
        for r, terms in enumerate(self._terms(g, c)):
            high = math.fsum(terms)
            self.high[r], self.low[r] = high, math.fsum([*terms, -high])
        self.picks[g] = c

    def _terms(self, g: int, c: int) -> list[list[float]]:
        """Of each row the terms of its total once item g takes c."""
        before, after = self.cost[:, g, self.picks[g]], self.cost[:, g, c]
        rows = zip(self.high, self.low, -before, after, strict=True)
        return [list(map(float, row)) for row in rows]


def _hasten(items: Items, picks: Picks, weight: Float) -> None:
    """Take, in ``picks``, the first steps of ``rise`` at once, if it starts with none of no cost.

    The step of most loss saved per cost leads along the item's lower hull, so all are known up to
    the first that does not fit. Steps of no cost leave the hull, and may come to fit at any time.
    """
    rows = np.arange(len(picks))
    cost = sum(w * table for w, table in zip(weight, items.cost, strict=True))
    dearer = cost > cost[rows, picks][:, None]
    if (items.loss < items.loss[rows, picks][:, None])[~dearer].any():
        return
    above = items.allowed & dearer
    above[rows, picks] = True
    steps = walk(np.where(above, items.loss, np.inf), cost)
    group, at, to = steps.group, steps.at, steps.to
    # (S, R), whose running sums are off by far less than the margin below
    after = (
        items.usage(picks)
        + np.cumsum(items.cost[:, group, to] - items.cost[:, group, at], axis=1).T
    )
    drift = 1e-9 * items.sizes[1:].sum(axis=1)
    beyond = np.flatnonzero((after > items.room + items.slack - drift).any(axis=1))
    taken = int(beyond[0]) if len(beyond) else len(group)
    picks[group[:taken]] = to[:taken]  # of equal groups the last one stays
