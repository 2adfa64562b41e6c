"""Scores that another program measured, and ``bitfront import`` recorded: nothing is measured here.

    value name   METRIC@LABEL, so that imports of one metric are told apart

A label names one import of a study. Which labels there are is read back from what is recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from bitfront.errors import InvalidInput
from bitfront.types import Estimate, Measurement, Sensitivities

from .base import PROFILERS, Checkpoints, Pair, Profiler, Subject, assemble

BETWEEN = "@"
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


@PROFILERS.register("imported")
@dataclass(frozen=True)
class Imported(Profiler):
    """One import of a study; without a label its only one."""

    label: str = ""

    name: ClassVar[str] = "imported"
    one_pass: ClassVar[bool] = True  # its values are not those of one pair at a time
    measures: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.label:
            check_label(self.label)

    @classmethod
    def reader(cls, measurements: Iterable[Measurement]) -> Profiler:
        """With the label that the names of values have."""
        return cls(next(iter(labels(measurements)), ""))

    @classmethod
    def title(cls, settings: str, measurements: Iterable[Measurement]) -> str:
        """With its label."""
        return f"{cls.name} {next(iter(labels(measurements)), '')}"

    def recorded(
        self, metric: str, values: Mapping[tuple[str, str], Estimate]
    ) -> list[Measurement]:
        """What to record of (layer, scheme) -> value."""
        name = f"{metric}{BETWEEN}{self.label}"
        return [
            Measurement(self.name, self.settings_key, layer, scheme, {name: value})
            for (layer, scheme), value in values.items()
        ]

    def measure(
        self, subject: Subject, pairs: Sequence[Pair], checkpoints: Checkpoints
    ) -> Iterator[list[Measurement]]:
        """Raises ``InvalidInput``: what is not imported cannot be had."""
        del subject, checkpoints
        layer, scheme = pairs[0]
        raise InvalidInput(
            f"no import has a score of layer {layer.name!r} under {scheme}",
            "import one, or profile with another profiler",
        )

    def tables(
        self, measurements: Iterable[Measurement], layers: Sequence[str], schemes: Sequence[str]
    ) -> dict[str, Sensitivities]:
        """The one table of the import; its metric is the file's."""
        recorded = list(measurements)
        names = dict.fromkeys(name for m in recorded for name in m.values)
        return {
            name: assemble(
                recorded, layers, schemes, name, metric=name.partition(BETWEEN)[0],
                profiler=self.name,
            )
            for name in names
        }  # fmt: skip


def check_label(label: str) -> None:
    """Raises ``InvalidInput`` for what no import can be called."""
    if not _LABEL.fullmatch(label):
        raise InvalidInput(
            f"label {label!r} of an import",
            "begin it with a letter; letters, digits and . _ - may follow, up to 64 in all",
        )


def labels(measurements: Iterable[Measurement]) -> list[str]:
    """The labels of recorded imports, in the order of recording."""
    names = (name for m in measurements for name in m.values)
    return list(dict.fromkeys(name.partition(BETWEEN)[2] for name in names))
