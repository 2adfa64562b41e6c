"""From kernels timed alone to whole models: what everything else takes, fitted to whole timings.

    t_lo   seconds of the calls of layer l, which operator o computes, timed alone; n_lo of calls
    m      elements that neighbours hand over between different layouts
    y      seconds of a whole model  ≈  r + Σ_l ((1 + a_o) t_lo + b_o n_lo) + c m

r is everything that is no layer. a_o and b_o are what a kernel takes more among others than alone:
caches that others emptied, layouts that are not changed back and forth. c, which is not below 0, is
what changing the layout of an element takes. a, b and c are held near 0 (ridge regression of
relative errors), as nearly as serves best to predict models left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RIDGES = tuple(10.0**p for p in np.arange(-1.5, 2.5, 0.5))


@dataclass(frozen=True, eq=False)
class Whole:
    """One whole model. seconds, calls: operator -> those of its layers, timed alone. moved: m."""

    seconds: Mapping[str, float]
    calls: Mapping[str, int]
    taken: float
    moved: float = 0.0


@dataclass(frozen=True, eq=False)
class Residual:
    """rest: r, seconds. more, each: operator -> a and b. element: c, seconds. errors: of each
    whole, relative, as it is predicted from the others."""

    rest: float
    more: Mapping[str, float]
    each: Mapping[str, float]
    errors: tuple[float, ...]
    ridge: float
    element: float = 0.0

    def layer(self, operator: str, seconds: float, calls: int) -> float:
        """Seconds of a layer in a whole model; not below 0."""
        factor = 1 + self.more.get(operator, 0.0)
        return max(factor * seconds + self.each.get(operator, 0.0) * calls, 0.0)


def fitted(wholes: Sequence[Whole]) -> Residual:
    """The fit to ``wholes``, of which the first is the full-precision model."""
    operators = sorted({name for whole in wholes for name in whole.seconds})
    y = np.array([whole.taken for whole in wholes])
    alone = np.array([sum(whole.seconds.values()) for whole in wholes])
    table, scales = _table(wholes, operators, y)
    aim = (y - alone) / y
    found = {ridge: _left_out(table, aim, ridge) for ridge in RIDGES}
    ridge = min(RIDGES, key=lambda r: float(np.mean(np.square(found[r]))))
    x = _solved(table, aim, ridge) / scales
    n = len(operators)
    return Residual(
        float(x[0]),
        dict(zip(operators, x[1 : 1 + n].tolist(), strict=True)),
        dict(zip(operators, x[1 + n : 1 + 2 * n].tolist(), strict=True)),
        tuple(found[ridge].tolist()),
        ridge,
        float(x[-1]),
    )


def _table(wholes: Sequence[Whole], operators: Sequence[str], y: Floats) -> tuple[Floats, Floats]:
    """Rows of wholes, each over its y; columns r, a, b, c. And what columns were multiplied by: b
    is counted in mean seconds of a call of its operator, c so that 1 is the mean y for the mean m:
    one ridge is right for all."""
    count = len(operators)
    table = np.zeros((len(wholes), 2 + 2 * count))
    table[:, 0] = 1.0
    table[:, -1] = [whole.moved for whole in wholes]
    for i, whole in enumerate(wholes):
        for j, name in enumerate(operators):
            table[i, 1 + j] = whole.seconds.get(name, 0.0)
            table[i, 1 + count + j] = whole.calls.get(name, 0)
    seconds, calls = table[:, 1 : 1 + count].sum(0), table[:, 1 + count : -1].sum(0)
    scales = np.ones(table.shape[1])
    scales[0] = 1 / y.mean()
    scales[1 + count : -1] = calls / np.maximum(seconds, 1e-12)
    scales[-1] = table[:, -1].mean() / y.mean() or 1.0
    return table / y[:, None] / scales, scales


def _solved(table: Floats, aim: Floats, ridge: float) -> Floats:
    """Least squares with a ridge on all but r; r and c not below 0."""
    from scipy.optimize import lsq_linear

    held = np.eye(table.shape[1])[1:] * np.sqrt(ridge * len(table) / 100)
    low = np.full(table.shape[1], -np.inf)
    low[[0, -1]] = 0.0
    found = lsq_linear(
        np.vstack([table, held]), np.concatenate([aim, np.zeros(len(held))]), (low, np.inf)
    )
    solved: Floats = found.x
    return solved


def _left_out(table: Floats, aim: Floats, ridge: float) -> Floats:
    """Of each whole, the relative error of what the fit to the others predicts."""
    errors = np.empty(len(table))
    for i in range(len(table)):
        rest = np.arange(len(table)) != i
        errors[i] = table[i] @ _solved(table[rest], aim[rest], ridge) - aim[i]
    return errors
