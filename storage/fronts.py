"""The non-dominated points of a set, and their knee: the one place where fronts are computed.

n points, m objectives      a dominates b: a is nowhere worse than b, and somewhere better
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bitfront.errors import InvalidInput

SENSES = {"min": 1.0, "max": -1.0}
SAMPLE = 1024  # rows whose front is looked at first, where there are many times as many


def front(points: ArrayLike, senses: Sequence[str] | None = None) -> NDArray[np.int64]:
    """Indices, ascending, of the ``points`` (n, m) that no other point dominates.

    senses: ``"min"`` or ``"max"`` per objective; all ``"min"`` when None. Equal points do not
    dominate each other, so every copy of a non-dominated point is returned. A point with a nan is
    never on the front and dominates nothing; infinities compare as usual. O(n log n) for one or
    two objectives, O(n (log n + m f)) for more, f being the size of the front.
    Raises ``InvalidInput`` for another shape or sense.
    """
    P = minimized(np.asarray(points, dtype=np.float64), senses)
    kept = np.flatnonzero(~np.logical_or.reduce([np.isnan(column) for column in P.T]))
    if not len(kept):
        return kept
    P = P[kept]
    while len(P) > 4 * SAMPLE:
        left = _sieved(P)
        few = 2 * len(left) < len(P)
        kept, P = kept[left], P[left]
        if not few:
            break
    order = np.lexsort(P.T[::-1])  # by the first objective, ties by the second, ...
    P = P[order]
    fresh = np.ones(len(P), dtype=np.bool_)  # a row is fresh if it differs from the one before
    fresh[1:] = (P[1:] != P[:-1]).any(axis=1)
    unique = P[fresh]
    best = _sweep_two(unique) if P.shape[1] <= 2 else _sweep(unique)
    on_front = best[np.cumsum(fresh) - 1]
    return np.sort(kept[order[on_front]])


def knee(points: ArrayLike, senses: Sequence[str] | None = None) -> int | None:
    """Index of the knee of the front of ``points`` (n, 2): where going on starts to pay less.

    Both objectives are scaled so that the front runs from 0 to 1 in each; the knee is the point
    farthest from the chord between the two ends, on the better side of it (Das, "On characterizing
    the 'knee' of the Pareto curve", Structural Optimization 18, 1999). Of equally far ones the
    better in the first objective, of equal points the first. ``None`` where no point is beyond the
    chord by more than rounding: fewer than three distinct points, a straight line, a front that
    bulges the other way. Points with an infinity are left aside. For a logarithmic scale give
    logarithms. Raises ``InvalidInput`` for another shape or sense.
    """
    P = minimized(np.asarray(points, dtype=np.float64), senses)
    if P.shape[1] != 2:
        raise InvalidInput(f"a knee among {P.shape[1]} objectives", "give points of two")
    finite = np.flatnonzero(np.isfinite(P).all(axis=1))
    kept = finite[front(P[finite])]
    P = P[kept]
    if not len(P):
        return None
    low, high = P.min(axis=0), P.max(axis=0)
    if (low == high).any():
        return None
    size = np.maximum(np.abs(low), np.abs(high))
    P, low, high = P / size, low / size, high / size  # so that no difference overflows
    beyond = 1.0 - ((P - low) / (high - low)).sum(axis=1)  # √2 times the distance
    rounding = 8 * np.finfo(np.float64).eps * float((1.0 / (high - low)).sum())
    best = np.lexsort((kept, P[:, 0], -beyond))[0]
    return int(kept[best]) if beyond[best] > rounding else None


def minimized(P: NDArray[np.float64], senses: Sequence[str] | None) -> NDArray[np.float64]:
    """``P`` (n, m) with the signs of objectives turned so that less is better in all.

    Raises ``InvalidInput`` for another shape or sense.
    """
    if P.ndim != 2 or not P.shape[1]:
        raise InvalidInput(f"points of shape {P.shape}", "give an array (points, objectives)")
    words = ["min"] * P.shape[1] if senses is None else list(senses)
    if len(words) != P.shape[1] or not set(words) <= SENSES.keys():
        raise InvalidInput(
            f"senses {words} for {P.shape[1]} objectives", "give 'min' or 'max' for each of them"
        )
    return P * np.array([SENSES[word] for word in words])


def _sieved(P: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of the rows that no row on the front of a sample dominates."""
    some = P[:: len(P) // SAMPLE]
    S = np.unique(some[front(some)], axis=0)  # in lexicographic order
    if P.shape[1] == 2:
        before = np.searchsorted(S[:, 0], P[:, 0]) - 1  # the last one with less of the first
        return np.flatnonzero((before < 0) | (P[:, 1] < S[before, 1]))
    left = np.arange(len(P))
    for row in S:
        rows = P[left]
        left = left[~((rows >= row).all(axis=1) & (rows > row).any(axis=1))]
    return left


# Rows are distinct and in lexicographic order below, so only an earlier row can dominate a later.


def _sweep_two(P: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows are best, for one or two objectives: those whose last beats all before."""
    if P.shape[1] == 1:
        return np.arange(len(P)) == 0
    best = np.ones(len(P), dtype=np.bool_)
    best[1:] = P[1:, 1] < np.minimum.accumulate(P[:, 1])[:-1]
    return best


def _sweep(P: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows are best, for any number of objectives."""
    best = np.zeros(len(P), dtype=np.bool_)
    found: NDArray[Any] = np.empty_like(P)  # the front so far, in its first rows
    size = 0
    for i, row in enumerate(P):
        if not (found[:size] <= row).all(axis=1).any():
            best[i] = True
            found[size] = row
            size += 1
    return best
