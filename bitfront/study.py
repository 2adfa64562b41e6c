"""A study: one task under one name in a database, and everything computed for it on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from bitfront.errors import ModelError
from bitfront.executors import Executor, Local
from bitfront.quant.exporters import EXPORTERS
from bitfront.storage import Store
from bitfront.tasks import from_recipe
from bitfront.tasks.roles import classes
from bitfront.types import Measurement, Scheme, Trial
from bitfront.workbench import Workbench

if TYPE_CHECKING:
    from bitfront.tasks.base import Task
    from bitfront.tasks.metrics import Metric

Progress = Callable[[str, int, int], None]
"""Called as (what, done, total) while something long runs."""


def silent(what: str, done: int, total: int) -> None:
    """Shows no progress."""
    del what, done, total


class Study(Workbench):
    """An open study. Use it as a context manager, or ``close`` it.

    executor: what does the units of its work (``executors``). Raises ``StudyMismatch`` when the
    name is taken by a study of other weights, data or settings, and ``StorageError`` when the
    database cannot be used.
    """

    def __init__(
        self,
        name: str,
        task: Task,
        db: str | Path | None = None,
        executor: Executor | None = None,
    ) -> None:
        super().__init__(task)
        self.name = name
        self.executor: Executor = Local() if executor is None else executor
        self.store = Store.open(db)
        try:
            self.record = self.store.open_study(name, task.fingerprint(), _settings(task))
        except BaseException:
            self.store.close()
            raise

    @cached_property
    def container(self) -> str:
        """The exporter that fits the task, unless another is asked for."""
        return _container(self.task)

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
        """(layer, scheme) -> reason, for every pair that cannot be.

        A layer that uses another one's weight takes only what that one takes.
        """
        from bitfront.quant.suitability import barred

        layers = {layer.name: layer for layer in self.task.layers}
        found = {}
        for layer, scheme in product(layers.values(), schemes):
            reason = barred(layer, scheme, layers)
            if reason is not None:
                found[layer.name, str(scheme)] = reason
        return found

    def close(self) -> None:
        """End the executor's processes, close the database and remove temporary files."""
        self.executor.close()
        super().close()
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


def open_study(
    name: str,
    task: Task | None = None,
    db: str | Path | None = None,
    executor: Executor | None = None,
) -> Study:
    """Begin the study ``name`` of ``task``, or go on with it.

    task: may be left out for a study that was begun before: it is then made anew from what is
    recorded. db: a SQLite file or a database URL; default ``BITFRONT_DB``, else a file in the
    user's data folder. executor: what does the units of its work; by default this process, one
    after another. Raises as ``Study``, and as ``recorded_task``.
    """
    return Study(name, recorded_task(name, db) if task is None else task, db, executor)


def recorded_task(name: str, db: str | Path | None = None, **changes: Any) -> Task:
    """The task that the study ``name`` was begun with; ``changes`` replace its arguments.

    Raises ``UnknownName`` when there is no such study, ``ModelError`` when its task was made from
    a live object, and what making a task raises.
    """
    with Store.open(db) as store:
        settings = store.study(name).settings
    if "recipe" not in settings:
        raise ModelError(
            f"study {name!r} was begun with a live model or data", "open it in Python with its task"
        )
    return from_recipe({**settings["recipe"], **changes})


def _settings(task: Task) -> dict[str, Any]:
    """What queries need to know without making the task, and how to make it."""
    metrics = {name: task.metric(name) for name in task.metrics}
    settings: dict[str, Any] = {
        "kind": task.kind,
        "container": _container(task),
        "layers": [asdict(layer) for layer in task.layers],
        "groups": [list(group) for group in task.groups],
        "classes": classes(task),
        "metrics": {name: _described(metric) for name, metric in metrics.items()},
    }
    with suppress(ModelError):  # made from a live object: nothing to make it anew from
        settings["recipe"] = task.recipe()
    return settings


def _described(metric: Metric) -> dict[str, Any]:
    """What queries and reports need to know of a metric; ``of`` is that of all parts together."""
    known = {
        "unit": metric.unit,
        "better": metric.better,
        "worsening_unit": metric.increase_unit,
    }
    if metric.part is None:
        return known
    return {**known, "of": metric.name.rpartition("_")[0], "part": metric.part}


def _container(task: Task) -> str:
    """compressed-tensors where transformers can load it and it holds quantized body layers."""
    compressed = EXPORTERS["compressed-tensors"]
    body = [layer for layer in task.layers if layer.role == "body"]
    if task.kind == "language" and compressed.reason_model(task.model) is None:
        scheme = Scheme.parse("w8")
        if all(compressed.reason(layer, scheme) is None for layer in body):
            return compressed.name
    return "safetensors"
