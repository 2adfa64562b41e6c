"""GPTQ as arXiv:2210.17323 states it, one weight after another, in float64.

Equations (2) and (3) of the paper: quantize one weight, spread its error over the remaining weights
of the row by the inverse Hessian of those that remain, then take the weight out of that inverse by
one step of Gaussian elimination. No Cholesky factor, no blocks, no batches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def gptq_row(
    w: Float, H: Float, scale: Float, zero: Float, limits: tuple[int, int], order: list[int]
) -> list[int]:
    """Codes of one row, its columns taken in ``order``.

    w, scale, zero: (cols,), the latter two of each column's group. H: (cols, cols), undamped.
    """
    cols = len(w)
    w, H = w.copy(), H.copy()
    mean = float(np.mean(np.diag(H)))
    for i in range(cols):
        if H[i, i] == 0:
            H[i, i] = mean if mean > 0 else 1.0
        else:
            H[i, i] += 0.01 * mean
    inverse = np.linalg.inv(H)
    codes = [0] * cols
    remaining = list(order)
    while remaining:
        i = remaining.pop(0)
        code = round(float(w[i] / scale[i])) + int(zero[i])
        codes[i] = min(max(code, limits[0]), limits[1])
        rounded = (codes[i] - zero[i]) * scale[i]
        error = (w[i] - rounded) / inverse[i, i]
        for j in remaining:
            w[j] -= error * inverse[j, i]  # eq. (2)
        column, pivot = inverse[:, i].copy(), inverse[i, i]
        for j in remaining:
            for k in remaining:
                inverse[j, k] -= column[j] * column[k] / pivot  # eq. (3)
    return codes
