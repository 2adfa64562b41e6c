"""The least loss within all limits, proven: bound, fix, decide the rest.

1. The Lagrangian dual gives a lower bound and, per choice, what taking it adds (``dual``).
2. Local moves from the relaxed answers give an allocation, so an upper bound (``moves``).
3. A choice that lifts the lower above the upper bound is out. What is left is the core; it is
   decided exactly (``core``), the cheapest part first, since any better allocation shrinks it.
4. Among equal losses the least first cost is found the same way, over what is left then.

Steps 1 and 3 follow the core concept for multiple-choice knapsacks (Pisinger, "A minimal algorithm
for the multiple-choice knapsack problem", 1995), with several resources and CP-SAT in place of
dynamic programming. All fixing allows for rounding, so the proof holds for the doubles as given.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass

import numpy as np

from bitfront.errors import Infeasible

from .core import Answer, Row, decide
from .dual import Dual, climb, excess
from .items import EPS, Bool, Float, Items, Picks
from .limits import exactly, total
from .moves import descend, fill

FIRST_CORE = 128  # choices decided at first, beyond one an item; four times as many at each turn
STARTS = 8  # relaxed answers that are repaired
COARSE = 4096.0  # parts of the gap that a first decision tells apart
TIE_WORK = 4.0  # CP-SAT's units, about a second each, spent on equal losses at most
EXPLAIN_SECONDS = 10.0  # for each figure in the message on limits that clash


@dataclass(frozen=True, eq=False)
class Solution:
    """picks (G,) within all limits; no allocation within them has a loss below ``bound``."""

    picks: Picks
    bound: float


def solve(items: Items, deadline: float = math.inf, explain: bool = True) -> Solution:
    """The least loss, then the least first cost, within all limits, at best by ``deadline``.

    ``deadline`` is in ``time.perf_counter``'s seconds. Every single limit must be reachable
    (``limits.require``). Raises ``Infeasible`` when they are not so together; without ``explain``
    it does not look for what would do.
    """
    best = items.best()
    if items.fits(best):
        return Solution(best, items.losses(best))
    dual = climb(items)
    best = _start(items, dual, deadline, explain)
    prices, size, bound, fine = dual.prices, FIRST_CORE, dual.bound, False
    while bound < items.losses(best) - items.rounding(best) and time.perf_counter() < deadline:
        kept = dual.keep(items, items.losses(best))
        kept[np.arange(len(best)), best] = True
        core = _cheapest(kept, excess(items, prices), best, size)
        answer = _decide(items, core, best, prices, bound, fine, deadline)
        found = answer.picks
        if found is not None and items.fits(found) and items.rank(found) < items.rank(best):
            best = found
        if (core == kept).all():
            # what was fixed is no better than best, what was decided no better than the answer
            bound = max(bound, min(answer.bound, items.losses(best)))
            if fine or not answer.proven:
                break
            fine = True
        size *= 4
    if bound >= items.losses(best) - items.rounding(best):
        best = _thrifty(items, dual, best, deadline)
    return Solution(best, bound)


def foothold(
    items: Items, start: Picks, value: Float, deadline: float = math.inf, explain: bool = True
) -> Picks:
    """Some picks within all limits: ``start``, stepped down (``moves.descend``) until all fits.

    Where stepping down gets stuck between several limits, one resource is minimized within the
    others, which is a problem with one limit less. Raises ``Infeasible`` when there are none.
    """
    picks = descend(items, start, value)
    if picks is not None:
        return picks
    last = len(items.resources) - 1
    found = solve(_minimizing(items, last), deadline, explain)
    if items.fits(found.picks):
        return found.picks
    if found.bound > items.room[last] + items.slack[last]:
        raise _clash(items, deadline, explain)
    raise Infeasible(
        f"no allocation within {_limits(items)} was found in the time given",
        "allow more time, or raise a limit",
    )


def _start(items: Items, dual: Dual, deadline: float, explain: bool) -> Picks:
    """The best allocation that is found by repairing relaxed answers."""
    value = excess(items, dual.prices)
    repaired = (descend(items, t.picks, value) for t in dual.tangents[:STARTS])
    found = [fill(items, picks) for picks in repaired if picks is not None]
    if not found:
        return fill(items, foothold(items, items.best(), items.loss, deadline, explain))
    return min(found, key=items.rank)


def _cheapest(kept: Bool, value: Float, best: Picks, size: int) -> Bool:
    """(G, C) the ``size`` kept choices of least ``value`` beyond each item's, and ``best``."""
    rows = np.arange(len(best))
    choices = np.where(kept, value, np.inf)
    choices[rows, best] = -np.inf
    flat = np.sort(choices[np.isfinite(choices)])
    whole = len(flat) <= 2 * size  # not worth two turns
    core = kept & (whole or value <= flat[size - 1])
    core[rows, best] = True
    return core


def _decide(
    items: Items, core: Bool, best: Picks, prices: Float, bound: float, fine: bool, deadline: float
) -> Answer:
    """The least loss in ``core``: at first only as finely as the gap asks, which is faster."""
    loss = items.losses(best)
    grain = 0.0 if fine else (loss - bound) / COARSE
    objective = Row(items.loss, max(items.rounding(best) / 2, grain))
    seconds = deadline - time.perf_counter()
    return decide(core, objective, _rows(items, grain, prices), best, seconds)


def _rows(items: Items, grain: float = 0.0, prices: Float | None = None) -> list[Row]:
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


def _thrifty(items: Items, dual: Dual, best: Picks, deadline: float) -> Picks:
    """Of the allocations whose loss equals that of ``best``, one with the least first cost.

    Proves that none is cheaper, or gives up after a fixed amount of work.
    """
    seconds = deadline - time.perf_counter()
    if not items.problem.costs or seconds <= 0:
        return best
    loss = items.losses(best)
    half = items.rounding(best) / 2
    kept = dual.keep(items, loss + half)
    kept[np.arange(len(best)), best] = True
    rows = [*_rows(items), Row(items.loss, half, loss + half)]
    precision = EPS * math.fsum(np.abs(items.first[np.arange(len(best)), best]))
    answer = decide(kept, Row(items.first, precision), rows, best, seconds, TIE_WORK)
    if answer.picks is None or not items.fits(answer.picks):
        return best
    return min(best, answer.picks, key=lambda picks: items.rank(picks)[1])


def _minimizing(items: Items, r: int) -> Items:
    """The least of row ``r`` (of a floor, the most) within the others, as a problem of its own."""
    others = [i for i in range(len(items.resources)) if i != r]
    return dataclasses.replace(
        items,
        resources=tuple(items.resources[i] for i in others),
        sign=items.sign[others],
        loss=np.where(items.allowed, items.cost[r], np.inf),
        cost=items.cost[others],
        room=items.room[others],
        slack=items.slack[others],
    )


def _limits(items: Items) -> str:
    return " and ".join(
        f"{name} {'<=' if items.sign[r] > 0 else '>='} {exactly(items.bound(r))}"
        for r, name in enumerate(items.resources)
    )


def _clash(items: Items, deadline: float, explain: bool) -> Infeasible:
    """What to say of limits that can each be met, but not together."""
    clash = []
    for r, name in enumerate(items.resources if explain else ()):
        end = min(deadline, time.perf_counter() + EXPLAIN_SECONDS)
        try:
            found = solve(_minimizing(items, r), end, explain=False)
        except Infeasible:  # the others clash without this one
            continue
        used = math.fsum(items.cost[r, np.arange(len(found.picks)), found.picks])
        clash.append((name, int(items.sign[r]), total(items, r, used)))
    ways = [
        f"{verb} {' or '.join(f'{name} to {exactly(b)}' for name, s, b in clash if s == sign)}"
        for verb, sign in (("raise", 1), ("lower", -1))
        if any(s == sign for _, s, _ in clash)
    ]
    return Infeasible(
        f"no allocation is within {_limits(items)} together, though each can be met alone",
        f"keep the others and {', or '.join(ways)}" if ways else "loosen several",
        clash=clash,
    )
