"""Moving one item at a time: down until the limits hold, up while there is room.

value  (G, C)  what a choice costs the objective: the loss, or the excess over a relaxation
drop   (G, C)  how much less of the exceeded resources a choice takes than the present pick,
               each resource in units of its span (greatest minus least total)
"""

from __future__ import annotations

import heapq
import math
import time
from dataclasses import dataclass

import numpy as np

from .hull import hulls
from .items import Bool, Float, Items, Picks

FAR = 64  # steps down, about, from where on they are taken from hulls


def descend(items: Items, picks: Picks, value: Float) -> Picks | None:
    """Step down from ``picks``, each time where ``value`` rises least per drop, until all fits.

    A scheme once left is not taken again, so this ends; ``None`` when no step is left. With one
    limit and ``value = loss`` this is Greedy MP of MPTQ-ViT (Lee et al. 2024, algorithm 2), with
    steps to any lower scheme instead of the next one.
    """
    picks = picks.copy()
    limit = items.room + items.slack
    weight = items.per_span()
    open_ = items.allowed.copy()
    used = items.usage(picks)
    if ((used - limit) * weight * len(picks) > FAR).any():
        used = _slide(items, picks, value, open_, weight)
    exceeded = used > limit
    ways: dict[bytes, _Ways] = {}
    while exceeded.any():
        way = ways.get(exceeded.tobytes())
        if way is None:
            way = ways[exceeded.tobytes()] = _Ways(weight * exceeded, items, picks, value, open_)
        way.refresh(items, picks, value, open_)
        if way.best is None:
            return None
        g, to = way.best
        open_[g, picks[g]] = False
        used += items.cost[:, g, to] - items.cost[:, g, picks[g]]
        picks[g] = to
        for other in ways.values():
            other.moved.append(g)
        exceeded = used > limit
        if not exceeded.any():  # running sums drift; look again before believing them
            used = items.usage(picks)
            exceeded = used > limit
    return picks


class _Ways:
    """The best step down of each item while the same resources are exceeded, least ratio first."""

    def __init__(
        self, weight: Float, items: Items, picks: Picks, value: Float, open_: Bool
    ) -> None:
        self.weight = weight
        self.moved: list[int] = []
        self.ratio, self.to = _steps(items, picks, value, open_, weight, np.arange(len(picks)))
        self.heap = [*zip(self.ratio.tolist(), range(len(picks)), strict=True)]
        heapq.heapify(self.heap)
        self.best: tuple[int, int] | None = None

    def refresh(self, items: Items, picks: Picks, value: Float, open_: Bool) -> None:
        """Look again at the items that moved; then ``best`` is (item, scheme), or None."""
        rows = np.unique(np.array(self.moved, dtype=np.intp))
        self.moved.clear()
        if len(rows):
            self.ratio[rows], self.to[rows] = _steps(items, picks, value, open_, self.weight, rows)
            for g in rows.tolist():
                heapq.heappush(self.heap, (float(self.ratio[g]), g))
        while self.heap[0][0] != self.ratio[self.heap[0][1]]:  # an entry of before its item moved
            heapq.heappop(self.heap)
        ratio, g = self.heap[0]
        self.best = (g, int(self.to[g])) if math.isfinite(ratio) else None


def _steps(
    items: Items, picks: Picks, value: Float, open_: Bool, weight: Float, rows: Picks
) -> tuple[Float, Picks]:
    """For each of ``rows`` the least rise per drop of any step, inf if none drops, and its end."""
    here = picks[rows]
    cost = _weighted(items, weight, rows)
    drop = cost[np.arange(len(rows)), here][:, None] - cost
    rise = value[rows] - value[rows, here][:, None]
    good = open_[rows] & (drop > 0)
    ratio = np.full(drop.shape, np.inf)
    np.divide(rise, drop, out=ratio, where=good)
    to = ratio.argmin(axis=1)
    return ratio[np.arange(len(rows)), to], to


def _weighted(items: Items, weight: Float, rows: Picks) -> Float:
    """(n, C) the weighted sum of the costs of ``rows``, which are in order."""
    total = np.zeros((len(rows), items.loss.shape[1]))
    for w, table in zip(weight, items.cost, strict=True):
        if w:
            total += w * (table if len(rows) == len(table) else table[rows])
    return total


def _slide(items: Items, picks: Picks, value: Float, open_: Bool, weight: Float) -> Float:
    """Take, in ``picks`` and ``open_``, all steps down until one more limit holds; the usage.

    The step of least rise per drop leads along the item's lower hull, so all steps are known.
    """
    rows = np.arange(len(picks))
    limit = items.room + items.slack
    used = items.usage(picks)
    exceeded = used > limit
    cost = _weighted(items, weight * exceeded, rows)
    here = cost[rows, picks]
    below = np.where(open_ & (cost < here[:, None]), value, np.inf)
    below[rows, picks] = value[rows, picks]
    corners, count = hulls(below, cost)
    edge = np.arange(corners.shape[1] - 1)[None, :] < (count - 1)[:, None]
    group, place = np.nonzero(edge)
    to, at = corners[:, :-1][edge], corners[:, 1:][edge]
    ratio = (value[group, to] - value[group, at]) / (cost[group, at] - cost[group, to])
    order = np.lexsort((-place, group, ratio))  # of one item from dear to cheap
    group, to, at = group[order], to[order], at[order]
    after = (
        used + np.cumsum(items.cost[:, group, to] - items.cost[:, group, at], axis=1).T
    )  # (S, R)
    changed = np.flatnonzero(((after > limit) != exceeded).any(axis=1))
    taken = int(changed[0]) + 1 if len(changed) else len(group)
    open_[group[:taken], at[:taken]] = False
    picks[group[:taken]] = to[:taken]  # of equal groups the last one stays
    return items.usage(picks)


@dataclass
class _Steps:
    """Single steps (S,): item, scheme, loss and first cost saved; more (R, S) of each resource."""

    group: Picks
    to: Picks
    gain: Float
    thrift: Float
    more: Float

    def only(self, which: Bool) -> _Steps:
        return _Steps(
            self.group[which], self.to[which], self.gain[which], self.thrift[which],
            self.more[:, which],
        )  # fmt: skip


def fill(items: Items, picks: Picks, deadline: float = math.inf) -> Picks:
    """Take the step that lowers the loss most and still fits, until there is none.

    Of equal losses the lower first cost wins. ``picks`` must fit. Stops at ``deadline``.
    """
    if time.perf_counter() > deadline:
        return picks
    picks = picks.copy()
    limit = items.room + items.slack
    left = limit - items.usage(picks)
    steps = _fitting(items, picks, left)
    while len(steps.group) and time.perf_counter() < deadline:
        s = np.lexsort((-steps.thrift, -steps.gain))[0]
        g, c, before = int(steps.group[s]), int(steps.to[s]), int(picks[steps.group[s]])
        picks[g] = c
        used = items.usage(picks)
        if (used > limit).any():  # by a rounding: ``more`` is a difference
            picks[g] = before
            return picks
        left = limit - used
        if (steps.more[:, s] < 0).any():  # there may be room for steps that did not fit
            steps = _fitting(items, picks, left)
            continue
        same = steps.group == g
        to = steps.to[same]
        steps.gain[same] = items.loss[g, c] - items.loss[g, to]
        steps.thrift[same] = items.first[g, c] - items.first[g, to]
        steps.more[:, same] = items.cost[:, g, to] - items.cost[:, g, c][:, None]
        better = (steps.gain > 0) | ((steps.gain == 0) & (steps.thrift > 0))
        steps = steps.only(better & (steps.more <= left[:, None]).all(axis=0))
    return picks


def _fitting(items: Items, picks: Picks, left: Float) -> _Steps:
    """All steps that lower the loss, or the first cost at the same loss, and fit into ``left``."""
    rows = np.arange(len(picks))
    here = items.loss[rows, picks][:, None]
    good = items.loss == here
    good &= items.first < items.first[rows, picks][:, None]
    good |= items.loss < here
    for table, room in zip(items.cost, left, strict=True):
        good &= table - table[rows, picks][:, None] <= room
    group, to = np.nonzero(good)
    at = picks[group]
    return _Steps(
        group,
        to,
        gain=items.loss[group, at] - items.loss[group, to],
        thrift=items.first[group, at] - items.first[group, to],
        more=items.cost[:, group, to] - items.cost[:, group, at],
    )
