"""Pages of a study's trials and measurements, in the order of a figure: for those who cannot hold
all of them.

A page is found by where the last one ended, never by counting: rows that were added since neither
repeat nor hide others. Where a figure is not known the row comes last, whichever way the order is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, or_, select

from bitfront.errors import UnknownName
from bitfront.types import Measurement, Trial

from .engine import Database
from .measurements import load_values
from .models import MeasurementRow, TrialRow
from .named import COST, METRIC, VALUE, Kind, names
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
    only = [] if solver is None else [TrialRow.solver == solver]
    return _places(database, study, TrialRow, only, (COST, METRIC), order, after, limit)


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
    R = MeasurementRow
    wanted = ((R.profiler, profiler), (R.layer, layer), (R.scheme, scheme))
    only = [column == one for column, one in wanted if one is not None]
    return _places(database, study, R, only, (VALUE,), order, after, limit)


def batches(ids: Collection[int]) -> Iterator[list[int]]:
    """The ids, ascending, in parts of which each fits into a query."""
    wanted = sorted(ids)
    for i in range(0, len(wanted), BATCH):
        yield wanted[i : i + BATCH]


def some_trials(database: Database, ids: Collection[int], layers: bool = True) -> list[Trial]:
    """The trials with these ids, in their order. layers: with their schemes."""
    by_id: dict[int, Trial] = {}
    with database.reading() as connection:
        for wanted in batches(ids):
            some = select(TrialRow).where(TrialRow.id.in_(wanted))
            by_id |= {trial.id: trial for trial in load_trials(connection, some, layers)}
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
    study: StudyRecord,
    rows: Any,
    only: Sequence[ColumnElement[bool]],
    kinds: Sequence[Kind],
    order: Order,
    after: Place | None,
    limit: int | None,
) -> list[Place]:
    """Places of the study's ``rows`` of which ``only`` is true."""
    query = select(rows.id).where(rows.study_id == study.id, *only)
    with database.reading() as connection:
        if order.by is None:
            if after is not None:
                query = query.where(_beyond(rows.id, after.id, order.descending))
            query = query.order_by(rows.id.desc() if order.descending else rows.id).limit(limit)
            return [Place(math.nan, id) for id in connection.scalars(query)]
        kind = _having(connection, study, kinds, order.by)
        found: list[Place] = []
        if after is None or not math.isnan(after.value):
            page = _known(study, kind, order, after).limit(limit)
            if only:
                page = page.join(rows, rows.id == kind[2]).where(*only)
            found = [Place(value, id) for id, value in connection.execute(page)]
            after = None
        if limit is None or len(found) < limit:
            left = None if limit is None else limit - len(found)
            page = _unknown(query, kind, rows.id, order, after).limit(left)
            found += [Place(math.nan, id) for id in connection.scalars(page)]
        return found


def _having(connection: Connection, study: StudyRecord, kinds: Sequence[Kind], by: str) -> Kind:
    """The first of ``kinds`` that has figures of this name. Raises ``UnknownName``."""
    for kind in kinds:
        table, name, owner = kind
        one = select(owner).where(table.study_id == study.id, name == by).limit(1)
        if connection.execute(one).first() is not None:
            return kind
    there = sorted({name for kind in kinds for name in names(connection, study.id, kind)})
    known = f"there are {', '.join(there)}" if there else "there are none yet"
    raise UnknownName(f"nothing here has the figure {by!r}", known)


def _known(study: StudyRecord, kind: Kind, order: Order, after: Place | None) -> Select[Any]:
    """Rows with the figure, and it, in order: as its index has them."""
    table, name, owner = kind
    value = table.value
    page = select(owner, value).where(table.study_id == study.id, name == order.by)
    page = page.where(value.is_not(None))
    if after is not None:
        not_before = value <= after.value if order.descending else value >= after.value
        beyond = or_(_beyond(value, after.value, order.descending), owner > after.id)
        page = page.where(not_before, beyond)
    return page.order_by(value.desc() if order.descending else value, owner)


def _unknown(
    query: Select[Any],
    kind: Kind,
    id: ColumnElement[int],
    order: Order,
    after: Place | None,
) -> Select[Any]:
    """Rows without the figure, by id."""
    table, name, owner = kind
    page = query.outerjoin(table, and_(owner == id, name == order.by)).where(table.value.is_(None))
    return (page if after is None else page.where(id > after.id)).order_by(id)


def _beyond(column: Any, value: float, descending: bool) -> ColumnElement[bool]:
    found: ColumnElement[bool] = column < value if descending else column > value
    return found
