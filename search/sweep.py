"""The points of a sweep as explorers see them: one table of items, several sets of limits.

G items, C schemes, R limited resources     picks (G,) one scheme index per item
order    (G, C)  the schemes of each item from the least cost to the greatest, barred ones last
rank     (G, C)  the place of each scheme in ``order``
value    (G, C)  of a point: what a choice is above its item's best at that point's prices
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from bitfront.errors import InvalidInput, ProblemError
from bitfront.types import Allocation, Problem

from .dual import climb, excess
from .exact import foothold
from .items import Float, Items, Picks, merge, picks_of
from .limits import require
from .moves import descend, fill

HEAD = 4.0  # of the order of moves by predicted rise: a move's weight is 1 / (HEAD + its place)
VISITS = 200_000  # partial allocations that are looked at for one that is new


class Sweep:
    """Points of equal tables, and everything that was asked for or told.

    What is proposed may exceed a limit by its conversions, and is then told to be within none.
    """

    def __init__(self, problems: Sequence[Problem], solver: str, seed: int) -> None:
        if seed < 0:
            raise InvalidInput(f"seed {seed}", "give 0 or more")
        _alike(problems)
        self.points = tuple(merge(replace(problem, conversions={})) for problem in problems)
        self._whole = tuple(merge(problem) for problem in problems)  # with conversions
        for items in self.points:
            require(items)
            foothold(items, items.best(), items.loss)
        self.solver = solver
        self.values = tuple(excess(items, climb(items).prices) for items in self.points)
        self.order, self.rank = _ordered(self.points[0])
        self.loss: dict[tuple[int, ...], float] = {}  # picks -> told
        self.pending: set[tuple[int, ...]] = set()

    @property
    def size(self) -> int:
        """G."""
        return len(self.points[0].loss)

    def differing(self) -> list[int]:
        """Of each resource with different limits its row, or else with different floors."""
        rooms = np.array([items.room for items in self.points])
        rows: dict[str, int] = {}
        for r in np.flatnonzero((rooms != rooms[0]).any(axis=0)).tolist():  # limits come first
            rows.setdefault(self.points[0].resources[r], r)
        return list(rows.values())

    def known(self, picks: Picks) -> bool:
        """Whether ``picks`` were told or are pending."""
        key = tuple(picks.tolist())
        return key in self.loss or key in self.pending

    def ask(self, picks: Picks) -> Allocation:
        """``picks`` as an allocation, pending from now on."""
        self.pending.add(tuple(picks.tolist()))
        began = time.perf_counter()
        of = self.fitting(picks)
        items = self._whole[of[0] if of else 0]
        return items.allocation(picks, self.solver, time.perf_counter() - began)

    def tell(self, allocation: Allocation, loss: float) -> tuple[Picks, float] | None:
        """The picks and their loss, finite; None for those that were told before."""
        problem = self.points[0].problem
        if allocation.layers != problem.layers:
            raise ProblemError("an allocation of other layers", "tell those of this problem")
        picks = picks_of(self.points[0], allocation.choice)
        key = tuple(picks.tolist())
        if key in self.loss:
            return None
        self.pending.discard(key)
        self.loss[key] = loss if math.isfinite(loss) else GREATEST
        return picks, self.loss[key]

    def fitting(self, picks: Picks) -> list[int]:
        """The points whose limits hold, the one with the least room left first."""
        left = {}
        for i, items in enumerate(self._whole):
            if items.fits(picks):
                left[i] = float((items.room - items.usage(picks)) @ items.per_span())
        return sorted(left, key=lambda i: left[i])

    def excess(self, picks: Picks) -> float:
        """By how much of its span the limits of the nearest point are exceeded; 0 within one."""
        if self.fitting(picks):
            return 0.0
        over = (
            np.maximum(items.usage(picks) - items.room, 0.0) @ items.per_span()
            for items in self._whole
        )
        return max(min(map(float, over)), np.finfo(float).tiny)

    def best(self, point: int) -> tuple[Picks, float] | None:
        """The least told loss within the limits of ``point``."""
        items = self._whole[point]
        inside = {k: v for k, v in self.loss.items() if items.fits(np.array(k, dtype=np.intp))}
        if not inside:
            return None
        key = min(inside, key=lambda k: inside[k])
        return np.array(key, dtype=np.intp), inside[key]

    def enumerated(self) -> Picks | None:
        """The first picks within some point's limits that are not known, in order of cost."""
        for items in self.points:
            for picks in _enumerate(items, self.order):
                if not self.known(picks):
                    return picks
        return None


GREATEST = 1e300  # what a loss that is not finite counts as
FINE = 1e-6  # losses far above it are compared by their ratio, those far below by difference


def squashed(loss: float) -> float:
    """A loss on a logarithmic scale that goes on through 0: asinh(loss / FINE)."""
    return math.asinh(max(min(loss, GREATEST), -GREATEST) / FINE)


def repaired(items: Items, picks: Picks, value: Float, moved: Sequence[int] = ()) -> Picks | None:
    """``picks`` brought within the limits, then filled up; what ``moved`` took stays if it can.

    value (G, C): what steps down are chosen by. None where stepping down gets stuck.
    """
    if moved:
        held = items.loss.copy()
        rows = list(moved)
        held[rows] = np.inf
        held[rows, picks[rows]] = items.loss[rows, picks[rows]]
        locked = replace(items, loss=held)
        found = descend(locked, picks, value)
        if found is not None:
            return fill(locked, found)
    found = descend(items, picks, value)
    return None if found is None else fill(items, found)


def stepped(
    sweep: Sweep, picks: Picks, value: Float | None, count: int, random: np.random.Generator
) -> list[int]:
    """Move ``count`` items of ``picks`` up or down by one rank, in place; which were moved.

    The less a move adds to ``value`` (G, C) the likelier it is; all alike without.
    """
    rows = np.arange(len(picks))
    places = sweep.rank[rows, picks]
    most = sweep.points[0].allowed.sum(axis=1) - 1
    steps = [(g, s) for g in rows for s in (-1, 1) if 0 <= places[g] + s <= most[g]]
    if not steps:
        return []
    at = np.array([g for g, _ in steps])
    to = np.array([sweep.order[g, places[g] + s] for g, s in steps])
    weight = np.ones(len(steps))
    if value is not None:
        by_rise = np.argsort(value[at, to] - value[at, picks[at]], kind="stable")
        weight[by_rise] = 1 / (HEAD + np.arange(len(steps)))
    count = min(count, len(steps))
    taken = random.choice(len(steps), count, replace=False, p=weight / weight.sum())
    picks[at[taken]] = to[taken]
    return sorted(set(at[taken].tolist()))


def _alike(problems: Sequence[Problem]) -> None:
    """Raises ``ProblemError`` unless the points differ in their limits and floors only."""
    if not problems:
        raise ProblemError("a sweep of no points", "give at least one problem")
    first = problems[0]
    for other in problems[1:]:
        same = (
            first.layers == other.layers
            and first.schemes == other.schemes
            and first.groups == other.groups
            and [*first.limits] == [*other.limits]
            and [*first.floors] == [*other.floors]
            and np.array_equal(first.allowed, other.allowed)
            and np.array_equal(first.loss[first.allowed], other.loss[first.allowed])
            and all(
                np.array_equal(table[first.allowed], other.costs[name][first.allowed])
                for name, table in first.costs.items()
                if name in first.limits or name in first.floors
            )
        )
        if not same:
            raise ProblemError(
                "the points of a sweep differ in more than their limits",
                "make them of one table, with limits and floors on the same resources in one order",
            )


def _ordered(items: Items) -> tuple[Picks, Picks]:
    """``order`` and ``rank``: by cost over all resources with a limit, in units of their spans.

    Where there is none by the first cost.
    """
    limited = items.sign > 0
    cost = np.tensordot(items.per_span() * limited, items.cost, axes=1)
    cost = np.where(items.allowed, cost if limited.any() else items.first, np.inf)
    order = np.lexsort((-items.loss, cost), axis=1)
    return order, order.argsort(axis=1)


def _enumerate(items: Items, order: Picks) -> Iterator[Picks]:
    """All picks within the limits, those of least cost first, item by item.

    Stops after ``VISITS`` partial allocations, so that limits that hide what is left between them
    do not hold it up for ever.
    """
    G, _ = order.shape
    lowest = np.where(items.allowed, items.cost, np.inf).min(axis=2)  # (R, G)
    after = np.cumsum(np.c_[lowest, np.zeros(len(lowest))][:, ::-1], axis=1)[:, ::-1]  # (R, G + 1)
    limit = items.room + items.slack
    drift = 1e-9 * np.abs(items.cost).max(axis=2).sum(axis=1)  # more than running sums ever have
    picks = np.zeros(G, dtype=np.intp)
    stack = [(0, 0, np.zeros(len(limit)))]  # item, the place in its order to try, used before it
    for _ in range(VISITS):
        if not stack:
            return
        g, place, used = stack.pop()
        if place >= order.shape[1] or not items.allowed[g, order[g, place]]:
            continue
        stack.append((g, place + 1, used))
        picks[g] = order[g, place]
        now = used + items.cost[:, g, picks[g]]
        if (now + after[:, g + 1] > limit + drift).any():
            continue
        if g + 1 < G:
            stack.append((g + 1, 0, now))
        elif items.fits(picks):
            yield picks.copy()
