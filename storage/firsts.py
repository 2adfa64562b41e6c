"""What was measured of a pair of layer and scheme: where it was measured again, the first."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import func, select

from bitfront.types import Estimate

from .engine import Database
from .models import MeasurementRow, MeasurementValueRow
from .records import StudyRecord


def first_values(
    database: Database, study: StudyRecord, profiler: str, metric: str, schemes: Collection[str]
) -> dict[tuple[str, str], Estimate]:
    """(layer, scheme) -> ``metric`` by a profiler, of the pairs under ``schemes`` that have it.

    Of a pair that was measured under several settings of the profiler: that which was recorded
    first. In the order of recording.
    """
    R, V = MeasurementRow, MeasurementValueRow
    own = (R.study_id == study.id, R.profiler == profiler, R.scheme.in_(sorted(schemes)))
    first = select(func.min(R.id)).join(V, V.measurement_id == R.id)
    first = first.where(*own, V.metric == metric).group_by(R.layer, R.scheme)
    query = select(R.layer, R.scheme, V.value, V.stderr, V.samples)
    query = query.join(V, V.measurement_id == R.id)
    query = query.where(V.metric == metric, R.id.in_(first)).order_by(R.id)
    with database.reading() as connection:
        return {(row[0], row[1]): Estimate(*row[2:]) for row in connection.execute(query)}
