"""The figures of a study's trials as arrays, and trials that are often asked for: held as long as a
database is open, and brought up to date, whenever they are asked for, by what changed since
(``tallies``).

n trials of the study       ids (n,) int64, ascending; a column (n,) float64, nan where not known
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import URL, Connection, Double, Engine, Select, literal, select, type_coerce

from bitfront.types import Trial

from .engine import Database
from .folder import Folder
from .models import TrialCostRow, TrialMetricRow, TrialRow, TrialTallyRow
from .named import COST, METRIC, names
from .records import StudyRecord
from .trials import load_trials

STUDIES = 8  # that are held at once, those asked for last
COLUMNS = 32  # of a study
TRIALS = 1000  # of a study
FEW = 500  # changed trials, up to which they are read one by one; databases limit values of a query

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Figure:
    """What a column is of: a cost or metric by its name, a number in the trials' settings, or
    (``solver``, ``quantized``) 1 where a trial is of this solver, or has so many quantized
    layers."""

    kind: Literal["cost", "metric", "setting", "solver", "quantized"]
    name: str


@dataclass
class Held:
    """What is known of a study as of a revision; -1 before anything is. found: by a name, other
    answers about its trials."""

    revision: int = -1
    ids: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    columns: OrderedDict[Figure, Floats] = field(default_factory=OrderedDict)
    trials: OrderedDict[int, Trial] = field(default_factory=OrderedDict)
    found: dict[str, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def once(self, name: str, find: Callable[[], Found]) -> Found:
        """What ``find`` gives; it is asked once for each revision."""
        if name not in self.found:
            self.found[name] = find()
        found: Found = self.found[name]
        return found


class Columns(Database):
    """Reading figures of all trials of a study."""

    def __init__(self, url: URL, engine: Engine, folder: Folder | None = None) -> None:
        super().__init__(url, engine, folder)
        self._held: OrderedDict[int, Held] = OrderedDict()
        self._holding = threading.Lock()

    def known(self, study: StudyRecord) -> tuple[Ints, list[str], list[str]]:
        """Ids of all trials, and the costs, and the metrics, that some of them have."""
        with self._up_to_date(study) as (connection, held):
            costs = held.once("costs", lambda: names(connection, study.id, COST))
            metrics = held.once("metrics", lambda: names(connection, study.id, METRIC))
            return held.ids, costs, metrics

    def found(self, study: StudyRecord, name: str, read: Callable[[Connection], Found]) -> Found:
        """What ``read`` finds out about the study's trials; it is asked again when they change."""
        with self._up_to_date(study) as (connection, held):
            return held.once(name, lambda: read(connection))

    def columns(self, study: StudyRecord, figures: Sequence[Figure]) -> tuple[Ints, list[Floats]]:
        """Ids of all trials, and a column for each of ``figures``: read-only, of one moment."""
        with self._up_to_date(study) as (connection, held):
            for figure in figures:
                if figure not in held.columns:
                    held.columns[figure] = _aligned(held.ids, *_read(connection, study, figure))
                held.columns.move_to_end(figure)
            found = [held.columns[figure] for figure in figures]
            while len(held.columns) > max(COLUMNS, len(figures)):
                held.columns.popitem(last=False)
            return held.ids, found

    def held_trials(self, study: StudyRecord, ids: Sequence[int]) -> list[Trial]:
        """Trials of the study by their ids, with their layers, in this order: of a front, which is
        asked for again when it has changed a little.
        """
        with self._up_to_date(study) as (connection, held):
            new = [id for id in ids if id not in held.trials]
            for begin in range(0, len(new), FEW):
                some = select(TrialRow).where(TrialRow.id.in_(new[begin : begin + FEW]))
                held.trials |= {trial.id: trial for trial in load_trials(connection, some)}
            for id in ids:
                held.trials.move_to_end(id)
            found = [held.trials[id] for id in ids]
            while len(held.trials) > TRIALS:
                held.trials.popitem(last=False)
            return found

    @contextmanager
    def _up_to_date(self, study: StudyRecord) -> Iterator[tuple[Connection, Held]]:
        """What is held of a study, as of the transaction's moment, for this thread alone."""
        with self._holding:
            held = self._held.setdefault(study.id, Held())
            self._held.move_to_end(study.id)
            if len(self._held) > STUDIES:
                self._held.popitem(last=False)
        with held.lock, self.reading() as connection:
            _update(connection, study, held)
            yield connection, held


def _update(connection: Connection, study: StudyRecord, held: Held) -> None:
    T = TrialTallyRow
    revision = connection.scalar(select(T.revision).where(T.study_id == study.id))
    if revision is None or revision == held.revision:
        return
    held.found.clear()
    own = select(TrialRow.id).where(TrialRow.study_id == study.id)
    new = own.where(TrialRow.revision > held.revision)
    changed = np.array(connection.scalars(new.limit(FEW + 1)).all(), np.int64)
    if held.revision < 0 or len(changed) > FEW:
        ids = np.array(connection.scalars(own.order_by(TrialRow.id)).all(), np.int64)
        columns = OrderedDict[Figure, Floats]()
        held.trials.clear()
    else:
        ids, columns = np.union1d(held.ids, changed), OrderedDict[Figure, Floats]()
        for figure, before in held.columns.items():
            values = np.array(_aligned(ids, held.ids, before))
            values[np.searchsorted(ids, changed)] = np.nan
            some, figures = _read(connection, study, figure, changed.tolist())
            values[np.searchsorted(ids, some)] = figures
            values.setflags(write=False)
            columns[figure] = values
        for id in changed.tolist():
            held.trials.pop(id, None)
    ids.setflags(write=False)
    held.revision, held.ids, held.columns = revision, ids, columns


def _aligned(ids: Ints, some: Ints, values: Floats) -> Floats:
    """``values`` of the trials ``some``, of which all are among ``ids``."""
    column = np.full(len(ids), np.nan)
    column[np.searchsorted(ids, some)] = values
    column.setflags(write=False)
    return column


def _read(
    connection: Connection, study: StudyRecord, figure: Figure, ids: Sequence[int] | None = None
) -> tuple[Ints, Floats]:
    """Which trials have a figure, and what it is; of ``ids`` only, if given."""
    query, id = _query(figure, study)
    if ids is not None:
        query = query.where(id.in_(ids))
    rows = connection.execute(query).all()
    found, values = zip(*rows, strict=True) if rows else ((), ())
    return np.array(found, np.int64), np.array(values, np.float64)


def _query(figure: Figure, study: StudyRecord) -> tuple[Select[Any], Any]:
    """The query of a figure, and its column of ids."""
    R, C, M = TrialRow, TrialCostRow, TrialMetricRow
    query: Any
    if figure.kind == "cost" or figure.kind == "metric":
        table: Any = C if figure.kind == "cost" else M
        name = C.resource if figure.kind == "cost" else M.metric
        value = type_coerce(table.value, Double)
        query = select(table.trial_id, value).where(name == figure.name)
        return query.where(table.study_id == study.id, value.is_not(None)), table.trial_id
    if figure.kind == "setting":
        number = R.settings[figure.name].as_float()
        return select(R.id, number).where(R.study_id == study.id, number.is_not(None)), R.id
    there = R.solver == figure.name if figure.kind == "solver" else R.quantized == int(figure.name)
    query = select(R.id, literal(1.0))
    return query.where(R.study_id == study.id, there), R.id
