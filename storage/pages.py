"""Pages of a study's trials and measurements, in the order of a figure: for those who cannot hold
all of them.

A page is found by where the last one ended, never by counting: rows that were added since neither
repeat nor hide others. Where a figure is not known the row comes last, whichever way the order is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, or_, select

from bitfront.errors import UnknownName
from bitfront.types import Measurement, Trial

from .engine import Database
from .measurements import load_values
from .models import (
    MeasurementRow,
    MeasurementValueRow,
    TrialCostRow,
    TrialMetricRow,
    TrialRow,
)
from .records import StudyRecord
from .trials import load_trials

BATCH = 1000  # ids in one query; databases limit how many values one may have


@dataclass(frozen=True)
class Place:
    """Where a row stands in an order: its figure, nan where that is not known, and its id."""

    value: float
    id: int


@dataclass(frozen=True)
class Order:
    """By which figure; by id without one."""

    by: str | None = None
    descending: bool = False


def trial_places(
    database: Database,
    study: StudyRecord,
    order: Order,
    *,
    solver: str | None = None,
    after: Place | None = None,
    limit: int | None = None,
) -> list[Place]:
    """Where the study's trials stand, in order: at most ``limit``, those after ``after``.

    Raises ``UnknownName`` for a figure that no trial has, neither as a cost nor as a metric.
    """
    query = select(TrialRow.id).where(TrialRow.study_id == study.id)
    if solver is not None:
        query = query.where(TrialRow.solver == solver)
    C, M = TrialCostRow, TrialMetricRow
    tables: tuple[tuple[Any, Any, Any], ...] = (
        (C, C.resource, C.trial_id),
        (M, M.metric, M.trial_id),
    )
    return _places(database, query, TrialRow, tables, order, after, limit)


def measurement_places(
    database: Database,
    study: StudyRecord,
    order: Order,
    *,
    profiler: str | None = None,
    layer: str | None = None,
    scheme: str | None = None,
    after: Place | None = None,
    limit: int | None = None,
) -> list[Place]:
    """The same of measurements, by one of their metrics."""
    R, V = MeasurementRow, MeasurementValueRow
    query = select(R.id).where(R.study_id == study.id)
    for column, wanted in ((R.profiler, profiler), (R.layer, layer), (R.scheme, scheme)):
        if wanted is not None:
            query = query.where(column == wanted)
    return _places(database, query, R, ((V, V.metric, V.measurement_id),), order, after, limit)


def some_trials(database: Database, ids: Collection[int]) -> list[Trial]:
    """The trials with these ids, in their order."""
    wanted = sorted(ids)
    by_id: dict[int, Trial] = {}
    with database.reading() as connection:
        for i in range(0, len(wanted), BATCH):
            some = select(TrialRow).where(TrialRow.id.in_(wanted[i : i + BATCH]))
            by_id |= {trial.id: trial for trial in load_trials(connection, some)}
    return [by_id[id] for id in ids]


def some_measurements(database: Database, ids: Collection[int]) -> list[tuple[int, Measurement]]:
    """The measurements with these ids, in their order, without their vectors."""
    R = MeasurementRow
    chosen = select(R.id).where(R.id.in_(sorted(ids)))
    columns = (R.id, R.profiler, R.settings, R.layer, R.scheme, R.seconds)
    with database.reading() as connection:
        rows = {row.id: row for row in connection.execute(chosen.with_only_columns(*columns))}
        values = load_values(connection, chosen)
    return [
        (id, Measurement(*rows[id][1:5], values=values.get(id, {}), seconds=rows[id].seconds))
        for id in ids
    ]


def _places(
    database: Database,
    query: Select[Any],
    rows: Any,
    tables: Sequence[tuple[Any, Any, Any]],
    order: Order,
    after: Place | None,
    limit: int | None,
) -> list[Place]:
    with database.reading() as connection:
        if order.by is None:
            if after is not None:
                query = query.where(_beyond(rows.id, after.id, order.descending))
            query = query.order_by(rows.id.desc() if order.descending else rows.id).limit(limit)
            return [Place(math.nan, id) for id in connection.scalars(query)]
        there: set[str] = set()
        for table, name, owner in tables:
            named = and_(owner == rows.id, name == order.by)
            if connection.execute(query.join(table, named).limit(1)).first() is not None:
                query = query.add_columns(table.value).outerjoin(table, named)
                page = _ordered(query, table.value, rows.id, order, after, limit)
                return [Place(value, id) for id, value in connection.execute(page)]
            names = query.with_only_columns(name).select_from(rows).join(table, owner == rows.id)
            there.update(connection.scalars(names.distinct()))
    known = f"there are {', '.join(sorted(there))}" if there else "there are none yet"
    raise UnknownName(f"nothing here has the figure {order.by!r}", known)


def _ordered(
    query: Select[Any],
    value: ColumnElement[float],
    id: ColumnElement[int],
    order: Order,
    after: Place | None,
    limit: int | None,
) -> Select[Any]:
    unknown = case((value.is_(None), 1), else_=0)
    if after is not None and math.isnan(after.value):
        query = query.where(value.is_(None), id > after.id)
    elif after is not None:
        beyond = _beyond(value, after.value, order.descending)
        same = and_(value == after.value, id > after.id)
        query = query.where(or_(beyond, same, value.is_(None)))
    by = value.desc() if order.descending else value
    return query.order_by(unknown, by, id).limit(limit)


def _beyond(column: Any, value: float, descending: bool) -> ColumnElement[bool]:
    found: ColumnElement[bool] = column < value if descending else column > value
    return found
