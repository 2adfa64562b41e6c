"""The figures of a study's trials as arrays: of trials that are at hand, or of a database's.

n trials       a column is (n,) float64, nan where the figure is not known of a trial
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import UnknownName
from bitfront.scheme import KEEP
from bitfront.storage import AllocationRow, Store, StudyRecord
from bitfront.storage.allocations import allocations
from bitfront.storage.columns import Figure
from bitfront.storage.pages import Order, Place
from bitfront.types import Float, Trial


class TrialColumns(Protocol):
    """Of the trials of a study. ids (n,): their numbers. costs, metrics: names that some have."""

    record: StudyRecord
    ids: NDArray[np.int64]

    @property
    def costs(self) -> Sequence[str]: ...

    @property
    def metrics(self) -> Sequence[str]: ...

    def cost(self, name: str) -> Float: ...

    def metric(self, name: str) -> Float: ...

    def figures(self, costs: Sequence[str], metrics: Sequence[str]) -> list[Float]:
        """The columns of several at once."""

    def weights(self) -> Float:
        """The number of weights that averages are taken over."""

    def whole(self, resource: str) -> float:
        """The cost of the last trial that keeps every layer; nan where there is none."""

    def allocations(self) -> Iterator[AllocationRow]:
        """What each trial's layers became, in any order."""


class OfTrials:
    """Columns of trials that are at hand."""

    def __init__(self, record: StudyRecord, trials: Sequence[Trial]) -> None:
        self.record, self.trials = record, trials
        self.ids = np.array([trial.id for trial in trials], np.int64)
        self.costs = sorted({name for trial in trials for name in trial.costs})
        self.metrics = sorted({name for trial in trials for name in trial.metrics})

    def cost(self, name: str) -> Float:
        return np.array([trial.costs.get(name, math.nan) for trial in self.trials])

    def metric(self, name: str) -> Float:
        return np.array(
            [t.metrics[name].value if name in t.metrics else math.nan for t in self.trials]
        )

    def figures(self, costs: Sequence[str], metrics: Sequence[str]) -> list[Float]:
        return [*map(self.cost, costs), *map(self.metric, metrics)]

    def weights(self) -> Float:
        return np.array([t.settings.get("weights", math.nan) for t in self.trials], np.float64)

    def whole(self, resource: str) -> float:
        kept = (t for t in reversed(self.trials) if set(t.schemes.values()) == {KEEP})
        return next((t.costs.get(resource, math.nan) for t in kept), math.nan)

    def allocations(self) -> Iterator[AllocationRow]:
        for t in self.trials:
            layers, schemes = tuple(t.schemes), tuple(t.schemes.values())
            yield AllocationRow(t.id, t.settings.get("container"), layers, schemes)


class OfStudy:
    """Columns of all trials that a database has of a study, by rising id."""

    def __init__(self, store: Store, record: StudyRecord) -> None:
        self.store, self.record = store, record
        self.ids, self.costs, self.metrics = store.known(record)

    def cost(self, name: str) -> Float:
        return self.figures([name], [])[0]

    def metric(self, name: str) -> Float:
        return self.figures([], [name])[0]

    def figures(self, costs: Sequence[str], metrics: Sequence[str]) -> list[Float]:
        of_metrics = [Figure("metric", name) for name in metrics]
        return self._columns([*(Figure("cost", name) for name in costs), *of_metrics])

    def weights(self) -> Float:
        return self._column(Figure("setting", "weights"))

    def whole(self, resource: str) -> float:
        kept = np.flatnonzero(self._column(Figure("quantized", "0")) == 1)
        return float(self.cost(resource)[kept[-1]]) if len(kept) else math.nan

    def allocations(self) -> Iterator[AllocationRow]:
        return allocations(self.store, self.record)

    def ordering(self, name: str) -> Float:
        """The column that trials are ordered by. Raises ``UnknownName`` where none has it."""
        if name in self.costs:
            return self.cost(name)
        if name in self.metrics:
            return self.metric(name)
        known = ", ".join(sorted({*self.costs, *self.metrics})) or "none"
        raise UnknownName(f"nothing here has the figure {name!r}", f"there are {known}")

    def solved_by(self, solver: str) -> NDArray[np.bool_]:
        return self._column(Figure("solver", solver)) == 1

    def _column(self, figure: Figure) -> Float:
        return self._columns([figure])[0]

    def _columns(self, figures: Sequence[Figure]) -> list[Float]:
        """As of when this was made: other trials may have been added since."""
        ids, found = self.store.columns(self.record, figures)
        if len(ids) == len(self.ids):
            return found
        own = np.searchsorted(ids, self.ids)
        return [values[own] for values in found]


def placed_among(
    columns: OfStudy,
    left: NDArray[np.bool_],
    order: Order,
    after: Place | None,
    limit: int,
) -> list[Place]:
    """``storage.pages.trial_places`` of the trials that are ``left``."""
    ids, sign = columns.ids[left], -1.0 if order.descending else 1.0
    values = np.full(len(ids), math.nan)
    by = np.asarray(sign * ids, np.float64)
    if order.by is not None:
        values = columns.ordering(order.by)[left]
        by = np.asarray(sign * values, np.float64)
    rank = np.lexsort((ids, by))  # nan comes last
    if after is not None:
        last = sign * (after.id if order.by is None else after.value)
        beyond = np.isnan(by[rank]) if math.isnan(last) else ~(by[rank] <= last)
        tied = (by[rank] == last) | (np.isnan(by[rank]) & math.isnan(last))
        rank = rank[(beyond & ~tied) | (tied & (ids[rank] > after.id))]
    return [Place(float(values[i]), int(ids[i])) for i in rank[:limit]]
