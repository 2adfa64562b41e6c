"""How far a table of scores can be trusted: halves of the data against each other, and tails."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

Float = NDArray[np.float64]


def split_half(scores: Float, weights: Float, *, splits: int = 8, seed: int = 0) -> float:
    """Mean rank correlation of the tables that two random halves of the samples give.

    scores: (pairs, N) per-sample scores; weights: (N,) what each sample's positions count for. nan
    for fewer than two pairs or four samples that count, and where a half ranks nothing.
    """
    scores, weights = scores[:, weights > 0], weights[weights > 0]
    pairs, N = scores.shape
    if pairs < 2 or N < 4:
        return float("nan")
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        order = rng.permutation(N)
        halves = [scores[:, half].sum(1) / weights[half].sum() for half in np.array_split(order, 2)]
        if any(np.ptp(half) == 0 for half in halves):
            return float("nan")
        found.append(spearmanr(*halves).statistic)
    return float(np.mean(found))


def effective_samples(scores: Float) -> float:
    """(Σ v)² / Σ v² of the per-sample totals v of ``scores`` (pairs, N): N if all are equal."""
    v = scores.sum(0)
    return float(v.sum() ** 2 / (v**2).sum()) if v.any() else float(len(v))


def top_share(scores: Float, share: float = 0.01) -> float:
    """What part of the total score the heaviest ``share`` of the samples (at least one) hold."""
    v = np.sort(scores.sum(0))[::-1]
    return float(v[: max(1, round(share * len(v)))].sum() / v.sum()) if v.any() else 0.0


def ratio_estimate(scores: Float, weights: Float) -> tuple[float, float]:
    """Σ scores / Σ weights and its standard error over the N samples (nan for fewer than two)."""
    N, total = len(scores), weights.sum()
    value = scores.sum() / total
    if N < 2:
        return float(value), float("nan")
    residual = scores - value * weights
    return float(value), float(np.sqrt(N / (N - 1) * (residual**2).sum()) / total)


def scaled_ratio_estimate(
    shares: Float, scores: Float, weights: Float, counts: Float | None = None
) -> tuple[float, float]:
    """mean(shares) · Σ scores / Σ weights and its standard error (nan for fewer than two samples).

    All (N,). counts: what each sample's share counts for in the mean, None for 1. To first order
    both factors' deviations of one sample add up (delta method), so that their covariance is in.
    """
    counts = np.ones(len(shares)) if counts is None else counts
    N, share = len(scores), (counts * shares).sum() / counts.sum()
    ratio = scores.sum() / weights.sum()
    if N < 2:
        return float(share * ratio), float("nan")
    deviations = counts / counts.mean() * (shares - share) * ratio
    deviations += share * (scores - ratio * weights) / weights.mean()
    return float(share * ratio), float(np.sqrt((deviations**2).sum() / (N * (N - 1))))
