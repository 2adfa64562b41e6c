"""Tables as other draws of the same data would have made them: the bootstrap.

    W         (B, N)      how often each of B draws has each of the N samples; rows sum to N
    replicas  (B, L, C)   a table under each draw

A draw is one for all layers and schemes, so that what their errors have in common stays in common
(Efron and Tibshirani 1993, An Introduction to the Bootstrap, ch. 6). Where only standard errors
are known each entry gets a normal error of its own: what layers have in common is then lost, and
allocations look less certain than they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitfront.types import Measurement, Sensitivities

if TYPE_CHECKING:
    from .base import Profiler

Float = NDArray[np.float64]

FEW = 4  # samples, or batches, that can be drawn from with any sense


def drawn(B: int, N: int, rng: np.random.Generator) -> Float:
    """W."""
    return rng.multinomial(N, np.full(N, 1 / N), size=B).astype(np.float64)


def ratios(W: Float, scores: Float, weights: Float) -> Float:
    """Σ scores / Σ weights under each draw, (B,); of all samples for one that has no weight."""
    total = W @ weights
    empty = total == 0
    found: Float = (W @ scores) / np.where(empty, 1.0, total)
    return np.where(empty, scores.sum() / weights.sum(), found)


def replicas(
    profiler: Profiler,
    measurements: Iterable[Measurement],
    name: str,
    table: Sensitivities,
    count: int,
    rng: np.random.Generator,
) -> tuple[Float | None, str]:
    """``count`` replicas of ``table``, the one called ``name``, and what they rest on.

    That is ``samples``; ``errors`` where vectors are missing, or fewer than ``FEW``; or
    ``unknown``, without replicas, where standard errors are missing too.
    """
    of_pair = {(m.layer, m.scheme): m for m in measurements}
    known = {
        (i, j): of_pair[table.layers[i], table.schemes[j]]
        for i, j in np.argwhere(np.isfinite(table.values)).tolist()
    }
    lengths = {v.shape[-1] for m in known.values() for v in m.vectors.values()}
    if len(lengths) == 1 and min(lengths) >= FEW and all(m.vectors for m in known.values()):
        W = drawn(count, lengths.pop(), rng)
        found = {at: profiler.resampled(m, name, W) for at, m in known.items()}
        values = np.full((count, *table.values.shape), np.nan)
        for (i, j), column in found.items():
            if column is not None:
                values[:, i, j] = column
        if all(column is not None for column in found.values()):
            return values, "samples"
    if any(np.isnan(table.stderr[at]) for at in known):
        return None, "unknown"
    return table.values + table.stderr * rng.standard_normal((count, *table.values.shape)), "errors"
