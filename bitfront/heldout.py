"""A trial's loss on its calibration data beside that on the evaluation data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bitfront.types import Estimate, Trial

CALIBRATION = "calibration/"
"""Before the name of a metric on calibration data."""

SURE = 2.0  # joint standard errors, from which a difference counts


@dataclass(frozen=True)
class Sides:
    """One metric of a trial on both kinds of data; None where it was not measured."""

    calibration: Estimate | None
    evaluation: Estimate | None
    better: str  # lower or higher

    @property
    def part(self) -> bool:
        """Whether evaluation is worse by more than ``SURE`` joint standard errors.

        False where one side or its error is not known.
        """
        if self.calibration is None or self.evaluation is None:
            return False
        worse = self.evaluation.value - self.calibration.value
        joint = math.hypot(self.evaluation.stderr, self.calibration.stderr)
        return (-worse if self.better == "higher" else worse) > SURE * joint


def sides(trial: Trial, metric: str, better: str = "lower") -> Sides:
    """``metric`` of ``trial`` on both kinds of data. better: which way the metric is."""
    return Sides(trial.metrics.get(CALIBRATION + metric), trial.metrics.get(metric), better)
