"""The least loss within all limits, proven: bound, fix, decide the rest.

1. The Lagrangian dual gives a lower bound and, per choice, what taking it adds (``dual``).
2. Local moves from the relaxed answers give an allocation, so an upper bound (``moves``).
3. A choice that lifts the lower above the upper bound is out. What is left is searched inside the
   gap, the cheapest part first, since any better allocation shrinks it (``closing``, ``inside``).
4. What that leaves open is decided by CP-SAT (``core``).
5. Among equal losses the least first cost is found the same way, over what is left then.

Steps 1 and 3 follow the core concept for multiple-choice knapsacks (Pisinger, "A minimal algorithm
for the multiple-choice knapsack problem", 1995), with several resources. All fixing allows for
rounding, so the proof holds for the doubles as given.
"""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np

from bitfront.errors import Infeasible

from .closing import Solution, cheapest_choices, close, enough, limit_rows
from .core import Answer, Row, decide
from .dual import Dual, climb, excess
from .inside import decide_inside
from .items import EPS, Bool, Float, Items, Picks
from .limits import clashing, stated, total
from .moves import descend, fill

FIRST_CORE = 2048  # choices decided at first, beyond one an item; four times as many at each turn
STARTS = 2  # relaxed answers that are repaired
FINER = 8.0  # than the gap asked for is the bound's own precision
COARSE = 4096.0  # parts of the gap that a first decision tells apart
# states of the bounded search; CP-SAT comes between where few items have a choice left, else at
# last: it is better at those and worse at others (figures in docs/allocators.md)
NARROW, WIDE = (256, 2048), (16_384, 131_072)
FEW = 128
WORK = 8.0  # of CP-SAT's units, about a second each
TIE_WORK = 4.0  # CP-SAT's units, about a second each, spent on equal losses at most
EXPLAIN_SECONDS = 10.0  # for each figure in the message on limits that clash


def solve(
    items: Items, deadline: float = math.inf, explain: bool = True, gap: float = 0.0
) -> Solution:
    """The least loss, then the least first cost, within all limits, at best by ``deadline``.

    ``deadline`` is in ``time.perf_counter``'s seconds; at a relative ``gap`` it is good enough.
    Every single limit must be reachable (``limits.require``). Raises ``Infeasible`` when they are
    not so together; without ``explain`` it does not look for what would do.
    """
    best = items.best()
    if items.fits(best):
        return Solution(best, items.losses(best))
    dual = climb(items, deadline, gap / FINER)
    found = Solution(incumbent(items, dual, deadline, explain), dual.bound)
    for width in NARROW:
        found = close(items, dual, found, width, deadline, gap)
    few = found.contested <= FEW
    if few:
        found = _decided(items, dual, found, WORK, deadline, gap)
    for width in WIDE:
        found = close(items, dual, found, width, deadline, gap)
    found = _decided(items, dual, found, math.inf, deadline, gap)
    if found.bound >= enough(items, found.picks, 0.0):
        best = _thrifty(items, dual, found, few, deadline)
        found = dataclasses.replace(found, picks=best)
    return found


def _decided(
    items: Items, dual: Dual, found: Solution, work: float, deadline: float, gap: float
) -> Solution:
    """What ``close`` left open, by CP-SAT within ``work`` of its units."""
    best, bound, size, fine = found.picks, found.bound, FIRST_CORE, False
    if bound >= enough(items, best, gap) or time.perf_counter() > deadline:
        return found
    value, kept = excess(items, dual.prices), found.kept
    while bound < enough(items, best, gap) and time.perf_counter() < deadline:
        kept = dual.keep(items, items.losses(best), kept)
        kept[np.arange(len(best)), best] = True
        core = cheapest_choices(kept, value, best, size)
        answer = _decide(items, core, best, dual.prices, bound, fine, work, deadline)
        if answer.picks is not None and items.fits(answer.picks):
            best = min(best, answer.picks, key=items.rank)
        if (core == kept).all():
            # what was fixed is no better than best, what was decided no better than the answer
            bound = max(bound, min(answer.bound, items.losses(best)))
            if fine:
                break
            fine = True
        if not answer.proven:
            break
        size *= 4
    return Solution(best, bound, kept)


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
        f"no allocation within {stated(items)} was found in the time given",
        "allow more time, or raise a limit",
    )


def incumbent(items: Items, dual: Dual, deadline: float, explain: bool = True) -> Picks:
    """A first allocation within the limits, by repairing relaxed answers."""
    limit = items.room + items.slack
    fitting = [t.picks for t in dual.tangents if (t.usage <= limit).all()]
    found = [picks for picks in fitting if items.fits(picks)]  # running sums drift
    value = excess(items, dual.prices)
    for tangent in dual.tangents[:STARTS]:
        if found and time.perf_counter() > deadline:
            break
        lowered = descend(items, tangent.picks, value)
        found += [] if lowered is None else [lowered]
    if not found:
        found = [foothold(items, items.best(), items.loss, deadline, explain)]
    return fill(items, min(found, key=items.rank), deadline)


def _decide(
    items: Items,
    core: Bool,
    best: Picks,
    prices: Float,
    bound: float,
    fine: bool,
    work: float,
    deadline: float,
) -> Answer:
    """The least loss in ``core``: at first only as finely as the gap asks, which is faster."""
    loss = items.losses(best)
    grain = 0.0 if fine else (loss - bound) / COARSE
    objective = Row(items.loss, max(items.rounding(best) / 2, grain))
    seconds = deadline - time.perf_counter()
    return decide(core, objective, limit_rows(items, grain, prices), best, seconds, work)


def _thrifty(items: Items, dual: Dual, found: Solution, few: bool, deadline: float) -> Picks:
    """Of the allocations whose loss equals that of ``found``, one with the least first cost.

    Proves that none is cheaper, or gives up after a fixed amount of work.
    """
    best, seconds = found.picks, deadline - time.perf_counter()
    if not items.problem.costs or seconds <= 0:
        return best
    loss = items.losses(best)
    half = items.rounding(best) / 2
    kept = dual.keep(items, loss + half)
    kept[np.arange(len(best)), best] = True
    rows = [*limit_rows(items), Row(items.loss, half, loss + half)]
    precision = EPS * math.fsum(np.abs(items.first[np.arange(len(best)), best]).tolist())
    objective = Row(items.first, precision)
    width = NARROW[-1] if few else WIDE[-1]
    prices = _first_prices(items, dual, best)
    answer = decide_inside(kept, objective, rows, best, prices, width, deadline)
    if not answer.proven:
        answer = decide(kept, objective, rows, best, seconds, TIE_WORK)
    if answer.picks is None or not items.fits(answer.picks):
        return best
    return min(best, answer.picks, key=lambda picks: items.rank(picks)[1])


def _first_prices(items: Items, dual: Dual, best: Picks) -> Float:
    """(R + 1,) multipliers of the limits and of the loss that go with ``dual.prices``.

    Where the first cost has a price p, loss + p·first + … is as good as first + loss/p + …
    """
    name = next(iter(items.problem.costs))
    prices = dual.prices
    here = items.resources.index(name) if name in items.resources else None
    if here is not None and prices[here] > 0:
        loss = 1.0 / float(prices[here])
        return np.array([*np.where(np.arange(len(prices)) == here, 0.0, prices * loss), loss])
    span = float(np.ptp(items.first, axis=1).sum())  # so dear that little loss outweighs all of it
    doubt = max(items.losses(best) - dual.bound, items.rounding(best))
    loss = span / (doubt / COARSE) if span > 0 and doubt > 0 else 0.0
    return np.array([*(prices * loss), loss])


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
    return clashing(items, clash)
