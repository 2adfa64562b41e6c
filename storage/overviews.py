"""A study at a glance: counts, and the trials at the ends of each figure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select

from .engine import Database
from .models import MeasurementRow, StudyRow, TrialCostRow, TrialMetricRow, TrialRow
from .records import StudyRecord


@dataclass(frozen=True)
class Span:
    """A figure's extent: how many trials have it, and its least and greatest values, each with
    the first trial that has it."""

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


def overview(database: Database, study: StudyRecord) -> Overview:
    """What there is of a study."""
    R, M, C = MeasurementRow, TrialMetricRow, TrialCostRow
    with database.reading() as connection:
        count = select(func.count()).select_from(TrialRow).where(TrialRow.study_id == study.id)
        measured = select(R.profiler, func.count()).where(R.study_id == study.id)
        rows = connection.execute(measured.group_by(R.profiler).order_by(R.profiler))
        return Overview(
            trials=connection.scalar(count) or 0,
            profilers={row[0]: row[1] for row in rows},
            metrics=_spans(connection, study, M, M.metric),
            costs=_spans(connection, study, C, C.resource),
        )


def metrics_of(database: Database, names: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """What the settings of each of the studies ``names`` say of its metrics."""
    query = select(StudyRow.name, StudyRow.settings["metrics"])
    with database.reading() as connection:
        rows = connection.execute(query.where(StudyRow.name.in_(sorted(names))))
        return {name: metrics or {} for name, metrics in rows}


def _spans(connection: Connection, study: StudyRecord, table: Any, name: Any) -> dict[str, Span]:
    own = and_(TrialRow.id == table.trial_id, TrialRow.study_id == study.id)
    value = table.value
    ends = (
        select(
            name.label("name"), func.count(value).label("trials"), func.min(value).label("least"),
            func.max(value).label("greatest"),
        )
        .join(TrialRow, own).where(value.is_not(None)).group_by(name).subquery()
    )  # fmt: skip
    at_ends = or_(value == ends.c.least, value == ends.c.greatest)
    first = select(name, value, func.min(table.trial_id)).join(TrialRow, own)
    first = first.join(ends, and_(ends.c.name == name, at_ends)).group_by(name, value)
    trial = {(named, figure): id for named, figure, id in connection.execute(first)}
    return {
        row.name: Span(
            row.trials, row.least, trial[row.name, row.least],
            row.greatest, trial[row.name, row.greatest],
        )
        for row in connection.execute(select(ends).order_by(ends.c.name))
    }  # fmt: skip
