"""The non-dominated points of a set: the one place where Bitfront computes a front.

n points, m objectives      a dominates b: a is nowhere worse than b, and somewhere better
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bitfront.errors import InvalidInput

SENSES = {"min": 1.0, "max": -1.0}


def front(points: ArrayLike, senses: Sequence[str] | None = None) -> NDArray[np.int64]:
    """Indices, ascending, of the ``points`` (n, m) that no other point dominates.

    senses: ``"min"`` or ``"max"`` per objective; all ``"min"`` when None. Equal points do not
    dominate each other, so every copy of a non-dominated point is returned. A point with a nan is
    never on the front and dominates nothing; infinities compare as usual. O(n log n) for one or
    two objectives, O(n (log n + m f)) for more, f being the size of the front.
    Raises ``InvalidInput`` for another shape or sense.
    """
    P = _minimized(np.asarray(points, dtype=np.float64), senses)
    kept = np.flatnonzero(~np.isnan(P).any(axis=1))
    P = P[kept]
    if not len(P):
        return kept
    order = np.lexsort(P.T[::-1])  # by the first objective, ties by the second, ...
    P = P[order]
    fresh = np.ones(len(P), dtype=np.bool_)  # a row is fresh if it differs from the one before
    fresh[1:] = (P[1:] != P[:-1]).any(axis=1)
    unique = P[fresh]
    best = _sweep_two(unique) if P.shape[1] <= 2 else _sweep(unique)
    on_front = best[np.cumsum(fresh) - 1]
    return np.sort(kept[order[on_front]])


def _minimized(P: NDArray[np.float64], senses: Sequence[str] | None) -> NDArray[np.float64]:
    if P.ndim != 2 or not P.shape[1]:
        raise InvalidInput(f"points of shape {P.shape}", "give an array (points, objectives)")
    words = ["min"] * P.shape[1] if senses is None else list(senses)
    if len(words) != P.shape[1] or not set(words) <= SENSES.keys():
        raise InvalidInput(
            f"senses {words} for {P.shape[1]} objectives", "give 'min' or 'max' for each of them"
        )
    return P * np.array([SENSES[word] for word in words])


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
