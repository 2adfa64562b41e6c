"""A trial's loss on the calibration data beside that on data that nothing was chosen by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitfront.types import Estimate, Trial

CALIBRATION = "calibration/"
"""Before the name of a metric on calibration data."""

HELD_BACK = "held-back/"
"""Before the name of a metric on calibration data that was held back."""

PARTIAL = "partial/"
"""Before the name of a metric on a part of the calibration data, after which it was given up."""

SURE = 2.0  # joint standard errors, from which a difference counts

_MEANING = {
    "held-back": "the allocation fits the data it was chosen by, and other data of the same kind "
    "less: calibrate on more samples",
    "evaluation": "the model is far surer of its calibration data than of other data: go by the "
    "evaluation, and calibrate on data that the model was not trained on",
}


@dataclass(frozen=True)
class Sides:
    """One metric of a trial on each kind of data; None where it was not measured."""

    calibration: Estimate | None
    held_back: Estimate | None
    evaluation: Estimate | None
    better: str  # lower or higher

    @property
    def part(self) -> tuple[str, ...]:
        """Which of ``held-back`` and ``evaluation`` are worse than calibration.

        By more than ``SURE`` joint standard errors; not where a side or its error is not known.
        """
        others = {"held-back": self.held_back, "evaluation": self.evaluation}
        return tuple(name for name, other in others.items() if self._worse(other))

    def _worse(self, other: Estimate | None) -> bool:
        if self.calibration is None or other is None:
            return False
        worse = other.value - self.calibration.value
        joint = math.hypot(other.stderr, self.calibration.stderr)
        return (-worse if self.better == "higher" else worse) > SURE * joint

    @property
    def mark(self) -> str:
        """``part`` in words, for a cell; empty where it is."""
        names = " and ".join(self.part)
        return names and f"{names} {'are' if len(self.part) > 1 else 'is'} worse"


def sides(trial: Trial, metric: str, better: str = "lower") -> Sides:
    """``metric`` of ``trial`` on each kind of data. better: which way the metric is."""
    calibration, held_back, evaluation = (
        trial.metrics.get(prefix + metric) for prefix in (CALIBRATION, HELD_BACK, "")
    )
    return Sides(calibration, held_back, evaluation, better)


def bare(name: str) -> str:
    """The name of a recorded metric without what says on which data it was measured."""
    return name.removeprefix(CALIBRATION).removeprefix(HELD_BACK).removeprefix(PARTIAL)


def evaluated(trial: Trial) -> bool:
    """Whether ``trial`` has a figure on the evaluation data."""
    return any(bare(name) == name for name in trial.metrics)


def parted(found: Mapping[int, Sides]) -> dict[str, list[int]]:
    """``held-back`` and ``evaluation`` -> numbers of the trials that are worse there."""
    return {
        name: [id for id, of_trial in found.items() if name in of_trial.part] for name in _MEANING
    }


def warnings(found: Mapping[int, Sides], metric: str) -> tuple[str, ...]:
    """What follows where the sides of trials part, in words: a line for each kind of data."""
    return tuple(_warnings(found, metric))


def _warnings(found: Mapping[int, Sides], metric: str) -> Iterator[str]:
    for name, ids in parted(found).items():
        if ids:
            worse = "below" if found[ids[0]].better == "higher" else "above"
            yield (
                f"{'trials' if len(ids) > 1 else 'trial'} {', '.join(map(str, ids))}: {name} "
                f"{metric} is {worse} calibration {metric} by more than twice their joint standard "
                f"error; {_MEANING[name]}"
            )
