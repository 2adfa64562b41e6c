"""What is told of trials that are shown as points: not their layers, of which there are many."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from .engine import Database
from .models import TrialLayerRow, TrialMetricRow, TrialRow
from .pages import batches
from .records import StudyRecord


@dataclass(frozen=True)
class Remark:
    """What is known of a trial besides where it stands: as of ``Trial``."""

    solver: str
    predicted: float
    settings: Mapping[str, Any]


def remarks(database: Database, ids: Collection[int]) -> dict[int, Remark]:
    """What is known of these trials, by id."""
    R = TrialRow
    found: dict[int, Remark] = {}
    some = select(R.id, R.solver, R.predicted, R.settings)
    with database.reading() as connection:
        for wanted in batches(ids):
            for id, *others in connection.execute(some.where(R.id.in_(wanted))):
                found[id] = Remark(*others)
    return found


def errors(database: Database, ids: Collection[int], metric: str) -> dict[int, float]:
    """The standard error of a metric of these trials, by id."""
    M = TrialMetricRow
    found: dict[int, float] = {}
    some = select(M.trial_id, M.stderr).where(M.metric == metric)
    with database.reading() as connection:
        for wanted in batches(ids):
            rows = connection.execute(some.where(M.trial_id.in_(wanted)))
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
