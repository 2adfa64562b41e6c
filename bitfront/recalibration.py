"""Predictions made true by what was measured.

``recalibration`` is a monotone map from predicted losses to measured ones:

    p_k, v_k   predicted total and measured loss of a measured allocation, both positive; K of them
    x_b, y_b   mean of log p and of log v in block b, both rising with b

Sums of what layers do alone are several times off, but nearly in the right order. So log v is
fitted by isotonic regression over log p (Barlow et al. 1972; pool adjacent violators): measurements
that contradict the order are pooled, and a pool counts at its mean. Between pools the map is linear
in the logarithms, beyond the first and the last one a factor. So it rises everywhere, and has an
inverse, for which predicted loss is expected to cost what.

``Predictor`` looks at which allocation is asked about too, and is closer (``search.correction``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.pool import Pool
from bitfront.search.correction import Correction, corrected
from bitfront.types import Float, Problem, Trial


@dataclass(frozen=True, eq=False)
class Recalibration:
    """The map. x, y: (B,) both strictly rising; with none of them the identity."""

    x: Float
    y: Float

    def measured(self, predicted: float) -> float:
        """What is expected to be measured; a loss that is not positive stays as it is."""
        return _through(self.x, self.y, predicted)

    def predicted(self, measured: float) -> float:
        """The inverse: the predicted loss of what is to measure so much."""
        return _through(self.y, self.x, measured)


def recalibration(predicted: Sequence[float], measured: Sequence[float]) -> Recalibration:
    """The map fitted to (K,) losses each; pairs that are not both positive and finite are left out.

    One pair gives a factor, none the identity.
    """
    p, v = (np.asarray(a, dtype=np.float64) for a in (predicted, measured))
    known = np.isfinite(p) & np.isfinite(v) & (p > 0) & (v > 0)
    if not known.any():
        return Recalibration(np.zeros(0), np.zeros(0))
    from scipy.optimize import isotonic_regression

    x, of, counts = np.unique(np.log(p[known]), return_inverse=True, return_counts=True)
    y = np.bincount(of, np.log(v[known])) / counts
    fit = isotonic_regression(y, weights=counts)
    starts = fit.blocks[:-1]
    weights = np.add.reduceat(counts, starts)
    centres = np.add.reduceat(counts * x, starts) / weights
    levels = np.add.reduceat(counts * y, starts) / weights
    rises = np.r_[True, (np.diff(centres) > 0) & (np.diff(levels) > 0)]  # but for rounding
    return Recalibration(centres[rises], levels[rises])


class Predictor:
    """Predicted totals of one problem, corrected by what was measured of its allocations.

        log v(x) = log p(x) + c + b (log p(x) - mean) + Σ_l q_l(x) w[l, x_l] + g(x)

    v, p: expected and predicted loss of an allocation x; the mean is that of log p over measured
    ones. q_l: layer l's share of p. w: how far each entry of the table is off. g: what is left, a
    Gaussian process, alike for allocations whose predicted losses are made up alike. All of them
    are posterior means given what was taken in (``search.correction`` has the priors).
    """

    def __init__(self, pool: Pool, problem: Problem) -> None:
        self._pool, self._problem = pool, problem
        self._index = {scheme: j for j, scheme in enumerate(problem.schemes)}
        self._fitted: tuple[int, Correction] | None = None

    def learn(self, trials: Iterable[Trial]) -> None:
        """Take in measured allocations; those that the problem does not allow do not count."""
        self._pool.add(trials)

    def expected(self, schemes: Mapping[str, str]) -> float:
        """The loss on the calibration data that is expected of ``schemes``, before it is measured.

        The prediction itself while nothing was measured, and where it is not positive.
        """
        return self._correction.expected(self._picks(schemes), self._problem.objective(schemes))

    @property
    def _correction(self) -> Correction:
        """Fitted on what was taken in so far, whichever limits it is within."""
        count = len(self._pool.ids())  # what a pool holds stays
        if self._fitted is None or self._fitted[0] != count:
            seen = self._pool.possible(self._problem)
            found = corrected(
                self._problem.loss,
                [self._picks(at.trial.schemes) for at in seen],
                [self._problem.objective(at.trial.schemes) for at in seen],
                [at.value(self._pool.metric) for at in seen],
            )
            self._fitted = count, found
        return self._fitted[1]

    def _picks(self, schemes: Mapping[str, str]) -> NDArray[np.intp]:
        return np.array([self._index[schemes[layer]] for layer in self._problem.layers])


def _through(x: Float, y: Float, at: float) -> float:
    if not len(x) or not at > 0:
        return at
    t = math.log(at)
    shift = y[0] - x[0] if t < x[0] else y[-1] - x[-1]
    inside = x[0] <= t <= x[-1]
    return math.exp(float(np.interp(t, x, y)) if inside else t + float(shift))
