"""Which figures the trials of studies have, and from where to where.

Found by the indices, one name after the other: there are few names, and many trials.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import CTE, Connection, Select, func, select

from .models import MeasurementValueRow, StudyRow, TrialCostRow, TrialMetricRow, TrialRow

Kind = tuple[Any, Any, Any]  # a table of figures: itself, its column of names, of what it is of
COST: Kind = (TrialCostRow, TrialCostRow.resource, TrialCostRow.trial_id)
METRIC: Kind = (TrialMetricRow, TrialMetricRow.metric, TrialMetricRow.trial_id)
VALUE: Kind = (
    MeasurementValueRow,
    MeasurementValueRow.metric,
    MeasurementValueRow.measurement_id,
)


def names(connection: Connection, study: int, kind: Kind) -> list[str]:
    """The names of a study's figures of a kind, in order."""
    walk = _walk([study], kind)
    return list(connection.scalars(select(walk.c.name).where(walk.c.name.is_not(None))))


def ranges(studies: Any, kind: Kind) -> Select[Any]:
    """Rows of study, name, least and greatest value; both nan where no value is known. Of metrics
    the values of trials that quantize something, where there are any: of the full model the
    loss is nothing.

    studies: ids, or a query of them.
    """
    table, name, _ = kind
    walk = _walk(studies, kind)
    own = (table.study_id == walk.c.study_id, name == walk.c.name, table.value.is_not(None))

    def end(order: Any) -> Any:
        return preferred(select(table.value).where(*own).order_by(order).limit(1), kind)

    query = select(
        walk.c.study_id, walk.c.name,
        end(table.value).label("least"), end(table.value.desc()).label("greatest"),
    )  # fmt: skip
    return query.where(walk.c.name.is_not(None))


def preferred(query: Select[Any], kind: Kind) -> Any:
    """What a query of one value says of trials that quantize something, or if it says nothing, of
    all: for metrics. For other kinds: of all."""
    table, _, owner = kind
    if table is not TrialMetricRow:
        return query.scalar_subquery()
    # not by a join, which would read all trials before it gives the first
    quantized = select(TrialRow.quantized).where(TrialRow.id == owner).scalar_subquery()
    return func.coalesce(query.where(quantized > 0).scalar_subquery(), query.scalar_subquery())


def _walk(studies: Any, kind: Kind) -> CTE:
    """(study, name) for each name there is, and (study, NULL) at the end of each study's."""
    table, name, _ = kind

    def least(*conditions: Any) -> Any:
        return select(func.min(name)).where(*conditions).scalar_subquery()

    begin = select(
        StudyRow.id.label("study_id"), least(table.study_id == StudyRow.id).label("name")
    )
    walk = begin.where(StudyRow.id.in_(studies)).cte(recursive=True)
    after = least(table.study_id == walk.c.study_id, name > walk.c.name)
    return walk.union_all(select(walk.c.study_id, after).where(walk.c.name.is_not(None)))
