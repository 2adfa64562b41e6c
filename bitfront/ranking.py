"""Which places of a ranking are luck.

    v  (n,) values that are ranked, as estimated     s  (n,) their standard errors
    levels                                           the distinct values among them, ascending

Two values on the same level or on levels next to each other are neighbours. With independent errors
their difference has the standard error √(s_a² + s_b²). A value that differs from a neighbour's by
less is inside the noise: other samples might well rank the two the other way round.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def inside_noise(values: ArrayLike, stderr: ArrayLike) -> NDArray[np.bool_]:
    """For each of ``values`` (n,) with standard errors ``stderr`` (n,): is its rank in doubt?

    Values that are not finite are not ranked. An error that is nan is unknown: nothing is said of
    a difference that rests on it. One sort, so O(n log n).
    """
    v, s = np.asarray(values, dtype=np.float64), np.asarray(stderr, dtype=np.float64)
    doubtful = np.zeros(v.shape, dtype=np.bool_)
    ranked = np.isfinite(v) & ~np.isnan(s)
    levels, level = np.unique(v[np.isfinite(v)], return_inverse=True)
    level = level[~np.isnan(s[np.isfinite(v)])]  # of each ranked value
    v, s = v[ranked], s[ranked]
    widest = np.full(len(levels) + 2, np.nan)  # greatest known error on each level, padded
    np.fmax.at(widest, level + 1, s)
    found = np.zeros(v.shape, dtype=np.bool_)
    for side in (-1, 1):
        other = level + side
        there = np.flatnonzero(~np.isnan(widest[other + 1]))
        gap = np.abs(v[there] - levels[other[there]])
        found[there] |= gap < np.hypot(s[there], widest[other[there] + 1])
    # equal values: in doubt as soon as one of the two has an error
    known = np.bincount(level, minlength=len(levels))
    uncertain = np.bincount(level[s > 0], minlength=len(levels))
    found |= np.where(s > 0, known[level] > 1, uncertain[level] > 0)
    doubtful[ranked] = found
    return doubtful
