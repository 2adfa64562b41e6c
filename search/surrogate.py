"""What measured allocations say of moves around one of them: a Bayesian model, linear in moves.

    G, C      items (groups, and layers in no group), schemes
    x0        (G,)     the incumbent: picks that were measured
    y_k                log(loss of x_k / loss of x0), measured; K of them
    w         (G, C)   what y gains when an item leaves x0 for a scheme; 0 at x0
    m, s      (G, C)   mean and standard deviation of w beforehand: s = a + b·|m|
    d_k                in how many items x_k differs from x0
    τ                  what two moves do to each other, as noise:
                       y_k = Σ w[g, x_k[g]] + N(0, τ² d_k (d_k - 1))

The logarithm makes effects of moves far from full precision nearly additive: a loss that is large
already is multiplied, not added to. a, b and τ are those of a grid under which what was measured is
most likely (times a broad prior, so that two or three measurements do not decide alone); they say
how far the prior means are to be believed. Linear in w, so that the best of all allocations under a
mean or a draw of w is an allocation problem like any other. K is at most ``NEAREST``: everything is
O(K² G C).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from .items import Float, Picks

NEAREST = 96  # measured allocations that are looked at, those that differ least
FLOOR = 0.2  # of exp(m): an expansion that promises more is not believed
A = (0.003, 0.01, 0.03, 0.1)
B = (0.1, 0.3, 0.6)
TAU = (0.003, 0.01, 0.03, 0.1)
MIDDLE, WIDTH = math.log(0.02), 1.5  # of the prior on log a and log τ
JITTER = 1e-6  # variance of y: measured losses are float32 sums


@dataclass(frozen=True, eq=False)
class Surrogate:
    """The posterior of w. mean: (G, C). believed: a, b, τ."""

    mean: Float
    believed: tuple[float, float, float]
    _prior: Float
    _spread: Float  # s
    _moves: Float  # (K, G·C) which moves each measured allocation is made of
    _noise: Float  # (K,) standard deviations
    _solved: Float  # (K, K) inverse of the covariance of y
    _y: Float

    def draw(self, generator: np.random.Generator, share: float = 1.0) -> Float:
        """(G, C) a draw of w, or a ``share`` of its way from the mean.

        By Matheron's rule (Wilson et al. 2020, eq. 9), so that there is no (GC)² matrix.
        """
        w = self._prior + self._spread * generator.standard_normal(self._prior.shape)
        error = self._noise * generator.standard_normal(len(self._noise))
        drawn = self._corrected(w, self._y - self._moves @ w.ravel() - error)
        return self.mean + share * (drawn - self.mean)

    def _corrected(self, w: Float, residual: Float) -> Float:
        step = self._moves.T @ (self._solved @ residual)
        return w + self._spread**2 * step.reshape(w.shape)


def fitted(at: Picks, relative: Float, seen: Sequence[Picks], values: Sequence[float]) -> Surrogate:
    """The model around ``at``.

    relative: (G, C) the expected change of the loss by each move, over the incumbent's loss; inf
    where barred. seen, values: picks that were measured, and their y.
    """
    change = np.where(np.isfinite(relative), relative, 0.0)
    prior = np.log(np.maximum(1.0 + change, FLOOR))
    stays = np.arange(prior.shape[1]) == at[:, None]
    prior[stays] = 0.0
    picks = np.array(seen, dtype=np.intp).reshape(-1, len(at))
    changed = picks != at
    near = np.argsort(changed.sum(axis=1), kind="stable")[:NEAREST]
    picks, changed = picks[near], changed[near]
    y = np.asarray(values, dtype=np.float64)[near]
    moves = np.zeros((len(near), *prior.shape))
    k, g = np.nonzero(changed)
    moves[k, g, picks[k, g]] = 1.0
    flat = moves.reshape(len(near), prior.size)
    differs = changed.sum(axis=1).astype(np.float64)

    def model(a: float, b: float, tau: float) -> tuple[float, Float, Float, Float]:
        spread = np.where(stays, 0.0, a + b * np.abs(prior))
        noise = np.sqrt(tau**2 * differs * (differs - 1) + JITTER)
        scaled = flat * spread.ravel()
        covariance = scaled @ scaled.T + np.diag(noise**2)
        inverse = np.linalg.inv(covariance)
        residual = y - flat @ prior.ravel()
        broad = sum((math.log(v) - MIDDLE) ** 2 for v in (a, tau)) / (2 * WIDTH**2)
        likely = -0.5 * (residual @ inverse @ residual + np.linalg.slogdet(covariance)[1]) - broad
        return float(likely), spread, noise, inverse

    believed = max(product(A, B, TAU), key=lambda values: model(*values)[0])
    _, spread, noise, inverse = model(*believed)
    posterior = Surrogate(prior, believed, prior, spread, flat, noise, inverse, y)
    mean = posterior._corrected(prior, y - flat @ prior.ravel())
    return replace(posterior, mean=mean)
