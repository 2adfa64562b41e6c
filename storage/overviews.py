"""A study at a glance: counts, and the trials at the ends of each figure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from .columns import Columns
from .engine import Database
from .models import MeasurementTallyRow, StudyRow, TrialTallyRow
from .named import COST, METRIC, Kind, preferred, ranges
from .records import StudyRecord


@dataclass(frozen=True)
class Span:
    """A figure's extent: how many trials have it, and its least and greatest values, each with
    the first trial that has it; of metrics the ends of trials that quantize something, if any."""

    trials: int
    least: float
    least_trial: int
    greatest: float
    greatest_trial: int


@dataclass(frozen=True)
class Overview:
    """profilers: name -> number of measurements. metrics, costs: name -> span; nan left out."""

    trials: int
    profilers: Mapping[str, int]
    metrics: Mapping[str, Span]
    costs: Mapping[str, Span]


def overview(database: Columns, study: StudyRecord) -> Overview:
    """What there is of a study."""

    def read(connection: Connection) -> tuple[dict[str, Span], dict[str, Span]]:
        return _spans(connection, study, METRIC), _spans(connection, study, COST)

    metrics, costs = database.found(study, "spans", read)  # counting many trials takes long
    T, M = TrialTallyRow, MeasurementTallyRow
    counted = select(M.profiler, M.measurements).where(M.study_id == study.id)
    with database.reading() as connection:
        rows = connection.execute(counted.order_by(M.profiler))
        return Overview(
            trials=connection.scalar(select(T.trials).where(T.study_id == study.id)) or 0,
            profilers={row[0]: row[1] for row in rows},
            metrics=metrics,
            costs=costs,
        )


def metrics_of(database: Database, names: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """What the settings of each of the studies ``names`` say of its metrics."""
    query = select(StudyRow.name, StudyRow.settings["metrics"])
    with database.reading() as connection:
        rows = connection.execute(query.where(StudyRow.name.in_(sorted(names))))
        return {name: metrics or {} for name, metrics in rows}


def _spans(connection: Connection, study: StudyRecord, kind: Kind) -> dict[str, Span]:
    table, name, owner = kind
    ends = ranges([study.id], kind).cte()
    own = (table.study_id == study.id, name == ends.c.name)

    def first(value: Any) -> Any:
        having = select(owner).where(*own, table.value == value).order_by(owner).limit(1)
        return preferred(having, kind)

    query = select(
        ends.c.name, select(func.count(table.value)).where(*own).scalar_subquery(),
        ends.c.least, first(ends.c.least), ends.c.greatest, first(ends.c.greatest),
    )  # fmt: skip
    known = query.where(ends.c.least.is_not(None)).order_by(ends.c.name)
    return {row[0]: Span(*row[1:]) for row in connection.execute(known)}
