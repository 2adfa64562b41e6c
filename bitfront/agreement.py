"""How far tables rank the same (layer, scheme) pairs alike.

ρ[a, b]  Spearman's rank correlation of tables a and b over the pairs that both have
n[a, b]  the number of these pairs
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from bitfront.types import Sensitivities


def agreement(
    tables: Sequence[Sensitivities],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """``ρ`` and ``n``, (T, T) each. Ties share their mean rank.

    ρ is nan where fewer than three pairs are common, and where a table has one value for all of
    them: neither says anything.
    """
    values = [_pairs(table) for table in tables]
    rho = np.full((len(tables), len(tables)), np.nan)
    count = np.zeros(rho.shape, dtype=np.int64)
    for a, of_a in enumerate(values):
        for b, of_b in enumerate(values[: a + 1]):
            common = [pair for pair in of_a if pair in of_b]
            x, y = (np.array([of[pair] for pair in common]) for of in (of_a, of_b))
            count[a, b] = count[b, a] = len(common)
            if len(common) > 2 and np.ptp(x) and np.ptp(y):
                rho[a, b] = rho[b, a] = spearmanr(x, y).statistic
    return rho, count


def _pairs(table: Sensitivities) -> dict[tuple[str, str], float]:
    """(layer, scheme) -> value, where there is one."""
    return {
        (table.layers[i], table.schemes[j]): float(table.values[i, j])
        for i, j in np.argwhere(np.isfinite(table.values))
    }
