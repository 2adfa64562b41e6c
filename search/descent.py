"""Lower and lower under the objective with interactions: larger steps, then moves of one and two.

    changes  (G, C)  what F changes by when one item moves, exact for one at a time (``coupled``)

A step minimizes the sum of ``changes`` while at most ``radius`` items move, which is an additive
problem with one more limit, and is taken if F falls; else the radius shrinks. Moves of two are
looked for among the most promising single ones: of n items and C schemes there are O(n²C²) in all.
What one move adds to another is an inner product of n numbers.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from .coupled import Coupled
from .dual import climb, excess
from .items import EPS, Bool, Float, Items, Picks
from .moves import descend, fill
from .neighbours import parts, singles_and_pairs

STARTS = 2  # relaxed answers of a step that are repaired
FEWEST = 3  # items of a step; fewer are moves
SHRINKING = 2  # of a radius
MOVES = 400  # single moves that are paired
FITTING = 100  # of these the best that fit by themselves, whatever their price
TRIED = 200  # pairs of a round that are looked at exactly


def improved(
    objective: Coupled, picks: Picks, prices: Float, deadline: float, enough: float = -np.inf
) -> Picks:
    """An allocation no worse than ``picks``, which is within the limits, under F.

    Unless F is ``enough`` or less, or the ``deadline`` (perf_counter) passes, no move of one item,
    or of two promising ones, lowers it further. prices: of the limits, to tell which moves are
    promising.
    """
    picks = _stepped(objective, picks, deadline, enough)
    while objective.value(picks) > enough and time.perf_counter() < deadline:
        moved = _moved(objective, picks, prices)
        if moved is None:
            break
        picks = moved
    return picks


def _stepped(objective: Coupled, picks: Picks, deadline: float, enough: float) -> Picks:
    """By steps that shrink from all items to a few."""
    value, radius = objective.value(picks), len(picks)
    while radius >= FEWEST and value > enough and time.perf_counter() < deadline:
        local = _around(objective, picks, radius)
        found = min(_lowered(local, STARTS), key=objective.value, default=picks)
        now = objective.value(found)
        if now < value - _grain(objective, picks):
            picks, value = found, now
        else:
            radius //= SHRINKING
    return picks


def _around(objective: Coupled, picks: Picks, radius: int) -> Items:
    """The additive problem of single changes, at most ``radius`` of them."""
    items = objective.items
    loss = objective.changes(picks)
    if radius >= len(picks):
        return dataclasses.replace(items, loss=loss)
    leaving = np.ones((1, *loss.shape))
    leaving[0, np.arange(len(picks)), picks] = 0.0
    leaving[0][~items.allowed] = 0.0
    return dataclasses.replace(
        items,
        loss=loss,
        resources=(*items.resources, "moved"),
        cost=np.concatenate([items.cost, leaving]),
        room=np.append(items.room, float(radius)),
        slack=np.append(items.slack, 0.0),
        sign=np.append(items.sign, 1.0),
    )


def _lowered(items: Items, count: int) -> list[Picks]:
    """Relaxed answers of ``items``, the best first, stepped down and filled until they fit."""
    dual = climb(items)
    value = excess(items, dual.prices)
    down = (descend(items, t.picks, value) for t in dual.tangents[:count])
    return [fill(items, p) for p in down if p is not None]


def _moved(objective: Coupled, picks: Picks, prices: Float) -> Picks | None:
    """``picks`` after the best moves of one and two items that fit together; None if none helps."""
    items, rows = objective.items, np.arange(len(picks))
    change = objective.changes(picks)
    more = items.cost - items.cost[:, rows, picks][:, :, None]
    left = items.room + items.slack - items.usage(picks)
    alone: Bool = np.logical_and.reduce(more <= left[:, None, None])
    g, c = _promising(change, more, alone, picks, prices)
    value, cost = change[g, c], more[:, g, c]
    steps = objective.vectors[g, c] - objective.vectors[g, picks[g]]
    values = singles_and_pairs(g, value, cost, left, objective.shrink * (steps @ steps.T))
    grain = _grain(objective, picks)
    candidates = np.flatnonzero(values < -grain)
    order = candidates[np.argsort(values[candidates], kind="stable")][:TRIED]
    best, total, touched = picks, objective.value(picks), np.zeros(len(picks), dtype=bool)
    for index in order.tolist():
        taken = parts(index, len(g))
        if touched[g[taken]].any():
            continue
        trial = best.copy()
        trial[g[taken]] = c[taken]
        now = objective.value(trial)
        if now < total - grain and items.fits(trial):
            best, total = trial, now
            touched[g[taken]] = True
    return best if touched.any() else None


def _promising(
    change: Float, more: Float, alone: Bool, picks: Picks, prices: Float
) -> tuple[Picks, Picks]:
    """Items and schemes of single moves: those of least change at ``prices``, and that fit."""
    priced = change + np.tensordot(prices, more, axes=1)
    fitting = np.where(alone, change, np.inf)
    chosen = np.zeros(change.shape, dtype=bool)
    for promise, count in ((priced, MOVES), (fitting, FITTING)):
        promise[np.arange(len(picks)), picks] = np.inf
        first = np.argsort(promise, axis=None, kind="stable")[:count]
        chosen.ravel()[first[np.isfinite(promise.ravel()[first])]] = True
    g, c = np.nonzero(chosen)
    return g, c


def _grain(objective: Coupled, picks: Picks) -> float:
    """By how much F must fall to have fallen: more than its terms' roundings, so that it ends."""
    terms = np.abs(objective.base[np.arange(len(picks)), picks]).sum()
    return 64 * EPS * (float(terms) + objective.half(objective.sum(picks)))
