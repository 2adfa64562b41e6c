"""What solvers give around the points of a sweep, for explorers to begin from."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .items import Items, Picks
from .moves import descend, fill
from .neighbours import picks_of
from .several import several
from .supported import supported
from .sweep import Sweep

LEAST_APART = 2  # groups in which the best few of a point differ
SECONDS = 5.0  # for each of them


def near_front(sweep: Sweep, count: int) -> list[Picks]:
    """About ``count`` picks: each point's best few, and supported ones between the points.

    The best of each point first, then in turn one between the points and one more of each point.
    With limits on several resources, those between are the best for limits between.
    """
    points = sweep.points
    each = -(-count // (2 * len(points)))
    best = [_best_few(items, 1 + each) for items in points]
    between = list(_between(sweep, count - count // 2)) if len(points) > 1 else []
    turns = [
        [picks for picks in turn if picks is not None]
        for turn in itertools.zip_longest(*(few[1:] for few in best))
    ]
    found = [few[0] for few in best]
    for one, others in itertools.zip_longest(between, turns):
        found += [] if one is None else [one]
        found += others or []
    return found[:count]


def _best_few(items: Items, count: int) -> list[Picks]:
    found = several(items.problem, count, LEAST_APART, time_limit=SECONDS)
    return [picks_of(items, allocation.choice) for allocation in found]


def _between(sweep: Sweep, count: int) -> Iterator[Picks]:
    """Evenly between the least and the greatest room of each resource."""
    rooms = np.array([items.room for items in sweep.points])
    for share in np.arange(1, count + 1) / (count + 1):
        room = rooms.min(axis=0) * (1 - share) + rooms.max(axis=0) * share
        inside = [i for i, items in enumerate(sweep.points) if (room <= items.room).all()]
        if not inside:
            continue
        items = replace(sweep.points[inside[0]], room=room)
        if len(items.resources) == 1:
            yield fill(items, supported(items))
        else:
            picks = descend(items, items.best(), sweep.values[inside[0]])
            if picks is not None:
                yield fill(items, picks)
