"""Ratios of sums over samples, with their standard errors, and what metrics make of them.

    N  samples      s_i  sum of a metric over scored positions of sample i      c_i  their number

r = Σ s_i / Σ c_i; its standard error is that of a ratio estimator,
sqrt(N/(N−1) Σ (s_i − r c_i)²) / Σ c_i (Cochran, Sampling Techniques, 3rd ed., eq. 6.9).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bitfront.types import Estimate

Float = NDArray[np.float64]


def ratio(sums: Float, counts: Float) -> Estimate:
    """Σ sums / Σ counts with its standard error: nan for one sample, everything nan for none.

    Samples that count for nothing are none.
    """
    n, total = int(np.count_nonzero(counts)), float(counts.sum())
    if total == 0:
        return Estimate(math.nan, math.nan, n)
    mean = float(sums.sum()) / total
    if n < 2:
        return Estimate(mean, math.nan, n)
    spread = float(np.square(sums - mean * counts).sum())
    return Estimate(mean, math.sqrt(spread * n / (n - 1)) / total, n)


def finished(mean: Estimate, finish: str) -> Estimate:
    """``Metric.finish`` of a mean; its standard error by the delta method. No noise is inf dB."""
    if finish == "exp":
        value = _exp(mean.value)
        return Estimate(value, value * mean.stderr, mean.samples)
    if finish == "db":
        if mean.value == 0:
            return Estimate(math.inf, mean.stderr, mean.samples)
        slope = 10 / math.log(10) / mean.value
        return Estimate(-10 * math.log10(mean.value), slope * mean.stderr, mean.samples)
    return mean


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf
