"""What data costs where it goes between layers that keep it in different layouts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import ProblemError

from .arrays import Bool, Float, frozen


@dataclass(frozen=True, eq=False)
class Conversions:
    """Σ_e costs_e |k_a - k_b| over pairs e = (a, b) of layers, k_l = other[l, scheme of l].

    ends: (E, 2) indices of two layers each. costs: (E,) of what goes between them, 0 or more, in
    the resource's unit. other: (L, C), True where a layer under a scheme has not the plain layout.
    """

    ends: NDArray[np.intp]
    costs: Float
    other: Bool

    def __post_init__(self) -> None:
        ends = frozen(np.reshape(self.ends, (-1, 2)), np.intp)
        costs, other = frozen(self.costs), frozen(self.other, np.bool_)
        if costs.shape != (len(ends),) or not (np.isfinite(costs) & (costs >= 0)).all():
            raise ProblemError(
                f"costs {costs.tolist()} of {len(ends)} conversions",
                "give a finite number for each, 0 or more",
            )
        if len(ends) and not 0 <= ends.min() <= ends.max() < len(other):
            raise ProblemError(
                f"conversions between layers {ends.min()} to {ends.max()}",
                f"there are layers 0 to {len(other) - 1}",
            )
        for name, value in (("ends", ends), ("costs", costs), ("other", other)):
            object.__setattr__(self, name, value)

    def total(self, choice: Sequence[int] | NDArray[np.intp]) -> float:
        """Of scheme indices ``choice`` (length L)."""
        a, b = self._layouts(choice).T
        return math.fsum(self.costs[a != b].tolist())

    def above(self, choice: Sequence[int] | NDArray[np.intp]) -> tuple[float, Float]:
        """A number and (L, C), of which any allocation's sum is at least ``total``; equal at
        ``choice``.

        |k_a - k_b| is at most k_a + k_b, at most 2 - k_a - k_b, and at most 1: what is least at
        ``choice`` (a modular upper bound of a cut: Iyer, Jegelka and Bilmes 2013).
        """
        a, b = self._layouts(choice).T
        slope = self.costs * np.where(a == b, np.where(a, -1.0, 1.0), 0.0)
        constant = self.costs * np.where(a == b, np.where(a, 2.0, 0.0), 1.0)
        weight = np.zeros(len(self.other))
        np.add.at(weight, self.ends, slope[:, None])
        return math.fsum(constant.tolist()), np.where(self.other, weight[:, None], 0.0)

    def _layouts(self, choice: Sequence[int] | NDArray[np.intp]) -> Bool:
        """(E, 2) k of the two layers of each pair."""
        k: Bool = self.other[np.arange(len(self.other)), np.asarray(choice)][self.ends]
        return k
