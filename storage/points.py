"""A study's trials as points: two figures of each, for those who want to see all at a glance."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Double, and_, func, select, type_coerce
from sqlalchemy.orm import aliased

from bitfront.errors import UnknownName

from .engine import Database
from .models import TrialCostRow, TrialLayerRow, TrialMetricRow, TrialRow
from .pages import BATCH
from .records import StudyRecord


@dataclass(frozen=True, eq=False)
class Points:
    """n trials. ids (n,), ascending; values (n, 2), as recorded and finite. costs: whether each of
    the two figures is a cost."""

    ids: NDArray[np.int64]
    values: NDArray[np.float64]
    costs: tuple[bool, bool]


@dataclass(frozen=True)
class Remark:
    """What is known of a trial besides where it stands: as of ``Trial``."""

    solver: str
    predicted: float
    settings: Mapping[str, Any]


def points(database: Database, study: StudyRecord, x: str, y: str) -> Points:
    """Where the trials stand that have both figures. A name is a cost's if some trial has a cost
    of this name. Raises ``UnknownName`` for a figure that no trial has."""
    query = select(TrialRow.id).where(TrialRow.study_id == study.id).order_by(TrialRow.id)
    costs = []
    with database.reading() as connection:
        for name in (x, y):
            costs.append(_is_cost(connection, study, name))
            row: Any = aliased(TrialCostRow if costs[-1] else TrialMetricRow)
            named = (row.resource if costs[-1] else row.metric) == name
            query = query.join(row, and_(row.trial_id == TrialRow.id, named))
            query = query.add_columns(type_coerce(row.value, Double)).where(row.value.is_not(None))
        found = np.array(connection.execute(query).all(), dtype=np.float64).reshape(-1, 3)
    found = found[np.isfinite(found).all(axis=1)]
    return Points(found[:, 0].astype(np.int64), found[:, 1:], (costs[0], costs[1]))


def remarks(database: Database, ids: Collection[int]) -> dict[int, Remark]:
    """What is known of these trials, by id."""
    R = TrialRow
    wanted = sorted(ids)
    found: dict[int, Remark] = {}
    with database.reading() as connection:
        for i in range(0, len(wanted), BATCH):
            some = select(R.id, R.solver, R.predicted, R.settings)
            for id, *others in connection.execute(some.where(R.id.in_(wanted[i : i + BATCH]))):
                found[id] = Remark(*others)
    return found


def errors(database: Database, ids: Collection[int], metric: str) -> dict[int, float]:
    """The standard error of a metric of these trials, by id."""
    M = TrialMetricRow
    wanted = sorted(ids)
    found: dict[int, float] = {}
    with database.reading() as connection:
        for i in range(0, len(wanted), BATCH):
            some = select(M.trial_id, M.stderr).where(M.metric == metric)
            rows = connection.execute(some.where(M.trial_id.in_(wanted[i : i + BATCH])))
            found |= {row.trial_id: row.stderr for row in rows}
    return found


def scheme_counts(database: Database, study: StudyRecord, trial: int) -> dict[str, int]:
    """How many layers of a trial take each scheme, the most frequent first; empty for a trial that
    the study does not have."""
    L = TrialLayerRow
    query = select(L.scheme, func.count().label("layers")).join(TrialRow, TrialRow.id == L.trial_id)
    own = query.where(TrialRow.study_id == study.id, TrialRow.id == trial).group_by(L.scheme)
    with database.reading() as connection:
        rows = connection.execute(own.order_by(func.count().desc(), L.scheme))
        return {row.scheme: row.layers for row in rows}


def _is_cost(connection: Connection, study: StudyRecord, name: str) -> bool:
    tables: tuple[tuple[Any, Any], ...] = (
        (TrialCostRow, TrialCostRow.resource), (TrialMetricRow, TrialMetricRow.metric),
    )  # fmt: skip
    own = TrialRow.study_id == study.id
    there: set[str] = set()
    for table, column in tables:
        query = select(column).join(TrialRow, TrialRow.id == table.trial_id).where(own)
        if connection.execute(query.where(column == name).limit(1)).first() is not None:
            return table is TrialCostRow
    for table, column in tables:
        query = select(column).join(TrialRow, TrialRow.id == table.trial_id).where(own)
        there.update(connection.scalars(query.distinct()))
    known = ", ".join(sorted(there)) or "none"
    raise UnknownName(f"no trial has the cost or metric {name!r}", f"there are {known}")
