"""A study's trials without their layers: figures alone, of which there are far fewer rows."""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy import select

from bitfront.types import Estimate, Trial

from .engine import Database
from .models import TrialCostRow, TrialMetricRow, TrialRow
from .records import StudyRecord


def trial_lines(database: Database, study: StudyRecord) -> list[Trial]:
    """All trials of a study by ascending id, each with no schemes."""
    R, C, M = TrialRow, TrialCostRow, TrialMetricRow
    own = R.study_id == study.id
    costs: dict[int, dict[str, float]] = defaultdict(dict)
    metrics: dict[int, dict[str, Estimate]] = defaultdict(dict)
    columns = (R.id, R.created, R.solver, R.predicted, R.bound, R.seconds, R.settings)
    of_cost = select(C.trial_id, C.resource, C.value).join(R, R.id == C.trial_id)
    of_metric = select(M.trial_id, M.metric, M.value, M.stderr, M.samples)
    of_metric = of_metric.join(R, R.id == M.trial_id)
    with database.reading() as connection:
        rows = connection.execute(select(*columns).where(own).order_by(R.id)).all()
        found = connection.execute(of_cost.where(own).order_by(C.trial_id, C.resource))
        for id, resource, value in found:
            costs[id][resource] = value
        figures = connection.execute(of_metric.where(own).order_by(M.trial_id, M.metric))
        for id, metric, value, stderr, samples in figures:
            metrics[id][metric] = Estimate(value, stderr, samples)
    return [
        Trial(
            schemes={}, solver=row.solver, predicted=row.predicted, bound=row.bound,
            costs=costs[row.id], metrics=metrics[row.id], seconds=row.seconds,
            settings=row.settings, id=row.id, created=row.created,
        )
        for row in rows
    ]  # fmt: skip
