"""Moving one item at a time: down until the limits hold, up while there is room.

value  (G, C)  what a choice costs the objective: the loss, or the excess over a relaxation
drop   (G, C)  how much less of the exceeded resources a choice takes than the present pick,
               each resource in units of its span (greatest minus least total)
"""

from __future__ import annotations

import numpy as np

from .items import Bool, Float, Items, Picks


def descend(items: Items, picks: Picks, value: Float) -> Picks | None:
    """Step down from ``picks``, each time where ``value`` rises least per drop, until all fits.

    A scheme once left is not taken again, so this ends; ``None`` when no step is left. With one
    limit and ``value = loss`` this is Greedy MP of MPTQ-ViT (Lee et al. 2024, algorithm 2), with
    steps to any lower scheme instead of the next one.
    """
    picks = picks.copy()
    rows = np.arange(len(picks))
    limit = items.room + items.slack
    used = items.cost[:, rows, picks].sum(axis=1)
    weight = items.per_span()
    open_ = items.allowed.copy()
    exceeded = used > limit
    ratio, to = _steps(items, picks, value, open_, weight * exceeded, rows)
    while exceeded.any():
        g = int(ratio.argmin())
        if not np.isfinite(ratio[g]):
            return None
        open_[g, picks[g]] = False
        used += items.cost[:, g, to[g]] - items.cost[:, g, picks[g]]
        picks[g] = to[g]
        now = used > limit
        if not now.any():  # running sums drift; look again before believing them
            used = items.usage(picks)
            now = used > limit
        again = rows if (now != exceeded).any() else rows[g : g + 1]
        exceeded = now
        ratio[again], to[again] = _steps(items, picks, value, open_, weight * exceeded, again)
    return picks


def _steps(
    items: Items, picks: Picks, value: Float, open_: Bool, weight: Float, rows: Picks
) -> tuple[Float, Picks]:
    """For each of ``rows`` the least rise per drop of any step, inf if none drops, and its end."""
    here = picks[rows]
    cost = np.tensordot(weight, items.cost[:, rows], axes=1)
    drop = cost[np.arange(len(rows)), here][:, None] - cost
    rise = value[rows] - value[rows, here][:, None]
    good = open_[rows] & (drop > 0)
    ratio = np.full(drop.shape, np.inf)
    np.divide(rise, drop, out=ratio, where=good)
    to = ratio.argmin(axis=1)
    return ratio[np.arange(len(rows)), to], to


def rise(items: Items, picks: Picks) -> Picks:
    """Step up from ``picks``, each time where the loss drops most per cost added, while any fits.

    Cost is summed over all resources with a limit, each in units of its span. Steps that add none
    come first. ``picks`` must fit; the end has no single step that lowers the loss and fits.
    """
    picks = picks.copy()
    rows = np.arange(len(picks))
    limit = items.room + items.slack
    drift = 1e-9 * np.abs(items.cost).max(axis=2).sum(axis=1)  # more than running sums ever have
    weight = items.per_span() * (items.sign > 0)
    used = items.usage(picks)
    open_ = items.allowed.copy()
    ratio, to = _gains(items, picks, open_, weight, limit - used + drift, rows)
    while True:
        g = int(ratio.argmax())
        if ratio[g] <= 0:
            return picks
        step = items.cost[:, g, to[g]] - items.cost[:, g, picks[g]]
        trial = picks.copy()
        trial[g] = to[g]
        after = used + step
        if (np.abs(after - limit) <= drift).any():
            after = items.usage(trial)
        again = rows[g : g + 1]
        if (after > limit).any():
            open_[g, to[g]] = False
        else:
            picks, used = trial, after
            if (step < 0).any():  # there is room again for steps that did not fit
                open_ = items.allowed.copy()
                again = rows
        room = limit - used + drift
        ratio[again], to[again] = _gains(items, picks, open_, weight, room, again)


def _gains(
    items: Items, picks: Picks, open_: Bool, weight: Float, room: Float, rows: Picks
) -> tuple[Float, Picks]:
    """For each of ``rows`` the most loss saved per cost of any step within ``room``, and its end.

    inf where a step costs nothing, 0 where none saves.
    """
    here = picks[rows]
    at = np.arange(len(rows))
    more = items.cost[:, rows] - items.cost[:, rows, here][:, :, None]
    cost = np.tensordot(weight, more, axes=1)
    gain = items.loss[rows, here][:, None] - items.loss[rows]
    good = open_[rows] & (gain > 0) & (more <= room[:, None, None]).all(axis=0)
    ratio = np.where(good, np.inf, 0.0)
    np.divide(gain, cost, out=ratio, where=good & (cost > 0))
    to = ratio.argmax(axis=1)
    return ratio[at, to], to


def fill(items: Items, picks: Picks) -> Picks:
    """Take the step that lowers the loss most and still fits, until there is none.

    Of equal losses the lower first cost wins. ``picks`` must fit.
    """
    picks = picks.copy()
    rows = np.arange(len(picks))
    while True:
        left = items.room + items.slack - items.usage(picks)
        here = items.cost[:, rows, picks]
        more = items.cost - here[:, :, None]
        fits = items.allowed & (more <= left[:, None, None]).all(axis=0)
        gain = items.loss[rows, picks][:, None] - items.loss
        thrift = items.first[rows, picks][:, None] - items.first
        better = fits & ((gain > 0) | ((gain == 0) & (thrift > 0)))
        if not better.any():
            return picks
        steps = np.argwhere(better)
        g, c = steps[np.lexsort((-thrift[better], -gain[better]))[0]]
        trial = picks.copy()
        trial[g] = c
        if not items.fits(trial):  # by a rounding: ``more`` is a difference
            return picks
        picks = trial
