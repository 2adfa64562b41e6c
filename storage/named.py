"""Which figures the trials of studies have, and from where to where.

Found by the indices, one name after the other: there are few names, and many trials.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import CTE, Connection, Select, func, select

from .models import MeasurementValueRow, StudyRow, TrialCostRow, TrialMetricRow

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
    """Rows of study, name, least and greatest value; both nan where no value is known.

    studies: ids, or a query of them.
    """
    table, name, _ = kind
    walk = _walk(studies, kind)

    def end(of: Any) -> Any:
        own = (table.study_id == walk.c.study_id, name == walk.c.name)
        return select(of(table.value)).where(*own, table.value.is_not(None)).scalar_subquery()

    query = select(
        walk.c.study_id, walk.c.name, end(func.min).label("least"), end(func.max).label("greatest")
    )
    return query.where(walk.c.name.is_not(None))


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
