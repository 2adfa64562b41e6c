"""What measured allocations say of the loss of any other: a Gaussian process over predictions.

    L, C       layers, schemes
    s          (L, C) predicted losses of layers alone
    x_k        measured allocations, K of them; p_k, v_k their predicted totals and measured losses
    t(x)       log p(x) less the mean of all log p_k
    q_l(x)     layer l's share of what is predicted of x: |s[l, x_l]| / Σ_m |s[m, x_m]|
    d(x, x')   how differently two predictions are made up: ‖√q(x) - √q(x')‖, 0 to √2

    log v(x) = log p(x) + c + b t(x) + Σ_l q_l(x) w[l, x_l] + g(x) + ε

    c ~ flat, b ~ N(0, SLOPE σ²), w[l, j] ~ N(0, σ²), ε ~ N(0, NOISE σ²)
    g ~ GP(0, ρ σ² exp(-d / REACH))

c and b say how far layers together do more or less than each alone, and how that changes with the
loss. An entry of s that is off by a factor e^w shifts the logarithm of a total by about its share
times w. g is the rest: what is made up alike is off alike. The posterior mean (Rasmussen and
Williams 2006, eq. 2.41 and 2.42) does not depend on σ². ρ is that of ``RHOS`` under which what was
measured is most likely, c and σ² integrated out, 1/σ² ~ Gamma(SHAPE, RATE). O(K³ + K² L C), and
O(K L) for each allocation that is asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .items import Float, Picks

SLOPE, REACH, NOISE = 0.5, 0.5, 0.001
RHOS = (0.01, 0.1, 1.0)
SHAPE, RATE = 1.0, 0.05  # σ of about a quarter, loosely


@dataclass(frozen=True, eq=False)
class Correction:
    """The posterior. factor: e^c. rho: as chosen."""

    factor: float
    rho: float
    _loss: Float
    _picks: Picks  # (K, L)
    _roots: Float  # (K, L) square roots of shares
    _t: Float
    _middle: float  # mean log p
    _weights: Float  # (K,) of what was measured

    def expected(self, picks: Picks, predicted: float) -> float:
        """The loss that is expected to be measured, e to the posterior mean of its logarithm.

        picks: (L,) scheme indices. predicted: their total; if not positive, it stays as it is.
        """
        if not predicted > 0:
            return predicted
        roots = _roots(self._loss, picks[None])
        t = np.log(predicted) - self._middle
        shared = np.where(self._picks == picks, (self._roots * roots) ** 2, 0.0).sum(axis=1)
        alike = np.exp(-_apart(self._roots, roots)[:, 0] / REACH)
        gain = (SLOPE * t * self._t + shared + self.rho * alike) @ self._weights
        return float(predicted * self.factor * np.exp(gain))


def corrected(
    loss: Float, picks: Sequence[Picks], predicted: Sequence[float], measured: Sequence[float]
) -> Correction:
    """The posterior given K allocations.

    loss: (L, C), entries that no allocation may take are not looked at. picks: (L,) scheme indices
    each. Allocations whose losses are not both positive and finite are left out; without any,
    what is predicted is expected, with one it is multiplied by a factor.
    """
    p, v = (np.asarray(a, dtype=np.float64) for a in (predicted, measured))
    known = np.isfinite(p) & np.isfinite(v) & (p > 0) & (v > 0)
    x = np.array(picks, dtype=np.intp).reshape(-1, len(loss))[known]
    roots = _roots(loss, x)
    if not known.any():
        return Correction(1.0, RHOS[0], loss, x, roots, np.zeros(0), 0.0, np.zeros(0))
    log_p = np.log(p[known])
    middle = float(log_p.mean())
    t, y = log_p - middle, np.log(v[known]) - log_p
    K = len(y)
    entries = np.zeros((K, *loss.shape))
    entries[np.arange(K)[:, None], np.arange(len(loss)), x] = roots**2
    flat = entries.reshape(K, -1)
    base = SLOPE * np.outer(t, t) + flat @ flat.T + NOISE * np.eye(K)
    alike = np.exp(-_apart(roots, roots) / REACH)

    def posterior(rho: float) -> tuple[float, float, Float]:
        covariance = base + rho * alike
        of_y, of_one = np.linalg.solve(covariance, np.stack([y, np.ones(K)], axis=1)).T
        c = of_y.sum() / of_one.sum()
        weights = of_y - c * of_one
        determinants = np.linalg.slogdet(covariance)[1] + np.log(of_one.sum())
        spread = RATE + 0.5 * (y - c) @ weights
        likely = -0.5 * determinants - (SHAPE + 0.5 * (K - 1)) * np.log(spread)
        return float(likely), float(c), weights

    rho = max(RHOS, key=lambda value: posterior(value)[0])
    _, c, weights = posterior(rho)
    return Correction(float(np.exp(c)), rho, loss, x, roots, t, middle, weights)


def _roots(loss: Float, picks: Picks) -> Float:
    """(K, L) square roots of the shares; 0 where nothing is predicted."""
    alone = np.abs(loss[np.arange(len(loss)), picks])
    total = alone.sum(axis=1, keepdims=True)
    return np.sqrt(np.divide(alone, total, out=np.zeros_like(alone), where=total > 0))


def _apart(some: Float, others: Float) -> Float:
    """(K, M) distances d. Not by the product of both: nearly equal ones would be all rounding."""
    squares = [((some - other) ** 2).sum(axis=1) for other in others]
    return np.sqrt(np.stack(squares, axis=1))
