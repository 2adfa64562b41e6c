"""The contract of profilers: a subject and (layer, scheme) pairs in, measurements out.

A profiler says its settings (whatever changes its numbers), measures pairs, and turns recorded
measurements into tables. It stores nothing itself: it yields measurements as they become known,
and hands the partial sums of long passes to ``Checkpoints``, so that whoever drives it commits
them. It leaves the model bit-identical, also after an exception.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from bitfront.quant.build import Builder
from bitfront.registry import Registry
from bitfront.scratch import Scratch
from bitfront.tasks.base import Batch, Task
from bitfront.tasks.evaluation import Evaluator
from bitfront.types import Interactions, Layer, Measurement, Scheme, Sensitivities, content_key

from .prefix import Prefix

PROFILERS: Registry[type[Profiler]] = Registry("profiler")

_DIGITS = 6  # of a key of settings, in a name

Pair = tuple[Layer, Scheme]
Arrays = dict[str, NDArray[Any]]
Float = NDArray[np.float64]


@dataclass(eq=False)
class Subject:
    """What is profiled: a task's calibration data, and its layers quantized on demand.

    used: which of the calibration batches; None for all. How layers are quantized does not depend
    on it.
    """

    task: Task
    builder: Builder
    scratch: Scratch
    used: range | None = None

    def part(self, used: range) -> Subject:
        """The same on some of the batches."""
        return replace(self, used=used)

    @property
    def batches(self) -> Sequence[Batch]:
        """The calibration batches that are used."""
        every = self.task.calibration
        return every if self.used is None else _Part(every, self.used)

    @cached_property
    def evaluator(self) -> Evaluator:
        """The real metrics on the batches (runs the full model once)."""
        return Evaluator(self.task, self.batches, self.scratch)

    @cached_property
    def prefix(self) -> Prefix:
        """Partial forward passes over the batches."""
        return Prefix(self.task, self.batches, self.scratch)


class _Part(Sequence[Batch]):
    """Some of a task's batches, each made when it is asked for, as the task does."""

    def __init__(self, batches: Sequence[Batch], used: range) -> None:
        self._batches, self._used = batches, used

    def __len__(self) -> int:
        return len(self._used)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Part(self._batches, self._used[index])
        return self._batches[self._used[index]]


class Checkpoints(Protocol):
    """Where a pass over the calibration data keeps its finished batches."""

    def load(self) -> dict[int, dict[str, NDArray[Any]]]:
        """Batch index -> arrays of every finished batch."""

    def save(self, index: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep one finished batch."""


class NoCheckpoints:
    """Forgets: for passes that nobody will resume."""

    def load(self) -> dict[int, dict[str, NDArray[Any]]]:
        return {}

    def save(self, index: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        del index, arrays


class Profiler(ABC):
    """One way to estimate how much each metric worsens when one layer takes one scheme.

    Subclasses are frozen dataclasses whose fields are their settings.
    """

    name: ClassVar[str]
    one_pass: ClassVar[bool]  # whether all pairs come from one pass, checkpointed by batch
    by_class: ClassVar[bool] = False  # whether its best table has classes of layers
    interacts: ClassVar[bool] = False  # whether it knows what layers add to each other's loss
    measures: ClassVar[bool] = True  # False: it has what is recorded, and can add nothing to it

    def settings(self) -> dict[str, Any]:
        """Everything besides study, layer and scheme that the numbers depend on, JSON-like."""
        return asdict(self)  # type: ignore[call-overload]

    @property
    def settings_key(self) -> str:
        """Content key under which measurements of these settings are recorded."""
        return content_key({"profiler": self.name, **self.settings()})

    @classmethod
    def reader(cls, measurements: Iterable[Measurement]) -> Profiler:
        """One whose ``tables`` reads recorded ``measurements`` of settings that are not known.

        It has the defaults, and from what is recorded the settings that ``tables`` needs: a
        profiler whose names of values depend on its settings overrides this.
        """
        del measurements
        return cls()

    @classmethod
    def title(cls, settings: str, measurements: Iterable[Measurement]) -> str:
        """What ``measurements`` under the key ``settings`` are called: the profiler's name alone
        for its defaults."""
        del measurements
        return cls.name if cls().settings_key == settings else f"{cls.name} #{settings[:_DIGITS]}"

    @abstractmethod
    def measure(
        self, subject: Subject, pairs: Sequence[Pair], checkpoints: Checkpoints
    ) -> Iterator[list[Measurement]]:
        """Measurements of all ``pairs``, in batches, as they become known.

        With equal settings the numbers of a pair do not depend on which other pairs are asked.
        Raises ``ModelError`` (outputs not finite, a layer that the outputs do not depend on) and
        ``SchemeError``.
        """

    @abstractmethod
    def tables(
        self, measurements: Iterable[Measurement], layers: Sequence[str], schemes: Sequence[str]
    ) -> dict[str, Sensitivities]:
        """Name -> table, from recorded measurements. The first one is the profiler's best."""

    def interactions(
        self,
        measurements: Iterable[Measurement],
        layers: Sequence[str],
        schemes: Sequence[str],
        table: Sensitivities,
    ) -> Interactions | None:
        """What layers add to each other's loss, to go with one of its ``tables``; None if unknown.

        measurements: with their vectors. Asked of profilers that have ``interacts``.
        """
        del measurements, layers, schemes, table
        return None

    def resampled(self, measurement: Measurement, table: str, W: Float) -> Float | None:
        """What ``measurement`` says of a table, had other samples been drawn; None if unknown.

        table: a name that ``tables`` gives. W: (B, N), how often each of B draws has each of the N
        samples (or batches) that the last axis of the measurement's vectors stands for. Gives (B,).
        Without it, draws of a table rest on standard errors (``bootstrap``).
        """
        del measurement, table, W
        return None

    def joined(self, parts: Sequence[Measurement]) -> Measurement:
        """A pair's measurements on parts of the data, in order, as one on all of them.

        To the bit what measuring there would have given. Asked of profilers that are not
        ``one_pass``: a pass goes on by itself, after the batches in its checkpoints.
        """
        raise NotImplementedError(f"{self.name} joins no measurements")

    def finer(self) -> Profiler | None:
        """One with less noise of its own on the same data, at a higher price; None without such.

        Most profilers draw nothing: only more data makes them surer.
        """
        return None


def by_batch(
    subject: Subject, checkpoints: Checkpoints, measure: Callable[[int], Arrays]
) -> list[Arrays]:
    """``measure(index)`` of every batch of ``subject``, in order; finished ones are not repeated.

    A pass over a part of the data begins with the first batch, and one over more goes on from it.
    """
    finished = checkpoints.load()
    for index in range(len(subject.batches)):
        if index not in finished:
            finished[index] = measure(index)
            checkpoints.save(index, finished[index])
    return [finished[index] for index in range(len(subject.batches))]


def assemble(
    measurements: Iterable[Measurement],
    layers: Sequence[str],
    schemes: Sequence[str],
    value: str,
    *,
    metric: str,
    profiler: str,
    notes: Mapping[str, Any] | None = None,
) -> Sensitivities:
    """The table of one recorded ``value``; nan where nothing was measured."""
    rows = {name: i for i, name in enumerate(layers)}
    columns = {name: j for j, name in enumerate(schemes)}
    values = np.full((len(rows), len(columns)), np.nan)
    stderr = values.copy()
    samples = 0
    for m in measurements:
        if m.layer in rows and m.scheme in columns and value in m.values:
            estimate = m.values[value]
            at = rows[m.layer], columns[m.scheme]
            values[at], stderr[at] = estimate.value, estimate.stderr
            samples = max(samples, estimate.samples)
    return Sensitivities(
        metric, tuple(layers), tuple(schemes), values, stderr, samples, profiler, notes or {}
    )
