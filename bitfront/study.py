"""A study: one task under one name in a database, and everything computed for it on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from bitfront.quant.build import Builder
from bitfront.scratch import Scratch
from bitfront.sensitivity import Subject
from bitfront.storage import Store
from bitfront.tasks.evaluation import Evaluator
from bitfront.types import Measurement, Scheme, Trial

if TYPE_CHECKING:
    from bitfront.tasks.base import Task

Progress = Callable[[str, int, int], None]
"""Called as (what, done, total) while something long runs."""


def silent(what: str, done: int, total: int) -> None:
    """Shows no progress."""
    del what, done, total


class Study:
    """An open study. Use it as a context manager, or ``close`` it.

    Raises ``StudyMismatch`` when the name is taken by a study of other weights, data or settings,
    and ``StorageError`` when the database cannot be used.
    """

    def __init__(self, name: str, task: Task, db: str | Path | None = None) -> None:
        self.name = name
        self.task = task
        self.store = Store.open(db)
        try:
            self.record = self.store.open_study(name, task.fingerprint(), _settings(task))
        except BaseException:
            self.store.close()
            raise
        self.scratch = Scratch()

    @cached_property
    def builder(self) -> Builder:
        """Quantizes layers on demand; statistics come from the calibration data."""

        def run() -> None:
            import torch

            with torch.no_grad():
                for batch in self.task.calibration:
                    self.task.outputs(batch)

        return Builder(self.task.model, self.task.layers, run, self.scratch)

    @cached_property
    def subject(self) -> Subject:
        """What profilers are given."""
        return Subject(self.task, self.builder, self.scratch)

    @cached_property
    def judge(self) -> Evaluator:
        """The real metrics on the evaluation data."""
        return Evaluator(self.task, self.task.evaluation, self.scratch)

    @property
    def container(self) -> str:
        """The exporter that fits the task, unless another is asked for."""
        return "compressed-tensors" if self.task.kind == "language" else "safetensors"

    def measurements(
        self, profiler: str, settings: str, vectors: bool = False
    ) -> dict[tuple[str, str], Measurement]:
        """(layer, scheme) -> what is recorded of a profiler with these settings."""
        found = self.store.measurements(self.record, profiler, settings, vectors=vectors)
        return {(m.layer, m.scheme): m for m in found}

    def trials(self) -> list[Trial]:
        """All measured allocations, oldest first."""
        return self.store.trials(self.record)

    def trial(self, id: int) -> Trial:
        """One trial. Raises ``UnknownName``."""
        return self.store.trial(self.record, id)

    def unsuitable(self, schemes: Iterable[Scheme]) -> dict[tuple[str, str], str]:
        """(layer, scheme) -> reason, for every pair that cannot be."""
        from bitfront.quant.suitability import takes

        pairs = [(layer, scheme) for layer in self.task.layers for scheme in schemes]
        reasons = {(layer.name, str(scheme)): takes(layer, scheme) for layer, scheme in pairs}
        return {pair: reason for pair, reason in reasons.items() if reason is not None}

    def close(self) -> None:
        """Close the database and remove temporary files."""
        self.scratch.close()
        self.store.close()

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_study(name: str, task: Task, db: str | Path | None = None) -> Study:
    """Begin the study ``name`` of ``task``, or go on with it.

    db: a SQLite file or a database URL; default ``BITFRONT_DB``, else a file in the user's data
    folder. Raises as ``Study``.
    """
    return Study(name, task, db)


def _settings(task: Task) -> dict[str, Any]:
    from bitfront.errors import ModelError

    try:
        return {"kind": task.kind, "recipe": task.recipe()}
    except ModelError:  # made from a live object: nothing to make it anew from
        return {"kind": task.kind}
