"""What to measure next around an incumbent: the best by what is known, and draws of what may be.

Under the posterior of ``surrogate``: the best allocations within some distances of the incumbent
and the best moves of one and two groups, by its mean; and, for what is not known yet, the best
under draws of it (Thompson sampling). Each is the answer of an exact program, so all are within the
limits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bitfront.types import Allocation, Problem

from .items import Float, Items, merge, picks_of
from .neighbours import near, within
from .surrogate import Surrogate, fitted

SHARES = (8, 4, 2)  # of the items, that the best within a distance may change: one of so many
LEAST = (2, 4, 8)
MOVES = 2  # of one and two groups, a round
DRAWN = 0.6, 1.2  # of a draw's way from the mean
TRIES = 3  # draws for each that is wanted; several may have the same best


def proposals(
    local: Problem,
    at: Sequence[str],
    seen: Mapping[tuple[str, ...], float],
    count: int,
    generator: np.random.Generator,
) -> list[Allocation]:
    """At most ``count`` new allocations that are worth measuring, by rising uncertainty.

    local: its loss is the expected change by each move, over the incumbent's loss. at: the
    incumbent. seen: allocation -> its measured loss over the incumbent's, a positive number each;
    those of other limits count too. None of ``seen`` is proposed.
    """
    items = merge(local)
    here = picks_of(items, at)
    known = {choice: y for choice, y in seen.items() if choice != tuple(at)}
    picks = [picks_of(items, choice) for choice in known]
    model = fitted(here, items.loss, picks, np.log(list(known.values())).tolist())
    found: dict[tuple[str, ...], Allocation] = {}
    for allocation in _candidates(local, items, at, model, seen, count, generator):
        if allocation.choice not in seen:
            found.setdefault(allocation.choice, allocation)
        if len(found) == count:
            break
    return list(found.values())


def _candidates(
    local: Problem,
    items: Items,
    at: Sequence[str],
    model: Surrogate,
    seen: Collection[tuple[str, ...]],
    count: int,
    generator: np.random.Generator,
) -> Iterator[Allocation]:
    G = len(items.members)
    radii = [max(least, G // share) for least, share in zip(LEAST, SHARES, strict=True)]
    best = of_items(local, items, model.mean)
    moves = [move for move in near(best, at, MOVES + len(seen)) if move.choice not in seen]
    yield from (within(best, at, radius) for radius in radii)
    yield from moves[:MOVES]
    # of many moves some are always drawn far too good: first near the mean, then farther
    for share in np.linspace(*DRAWN, TRIES * count):
        drawn = of_items(local, items, model.draw(generator, share))
        yield within(drawn, at, int(generator.choice(radii)))


def of_items(problem: Problem, items: Items, values: Float) -> Problem:
    """``problem`` with the losses (G, C) of its items, told at the first layer of each."""
    loss = np.zeros(problem.loss.shape)
    loss[[members[0] for members in items.members]] = np.where(items.allowed, values, 0.0)
    return replace(problem, loss=loss)
