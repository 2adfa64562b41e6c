"""How many trials and measurements a study has, counted as they are recorded: a list of studies
must not count a million rows. And which trials changed since when, for who holds what it read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, update

from .engine import Database
from .models import MeasurementTallyRow, TrialTallyRow
from .records import StudyRecord


class Tallies(Database):
    """Counting, within the transactions that record."""

    def _revised(self, connection: Connection, study: StudyRecord) -> int:
        """A new revision of the study's trials, for those that the transaction changes.

        Others who change trials of the study wait from here on: whoever sees a revision sees all
        that is of a lower one.
        """
        T = TrialTallyRow
        first = {"study_id": study.id, "trials": 0, "revision": 0}
        connection.execute(self.insert(T), first)
        changed = update(T).where(T.study_id == study.id).values(revision=T.revision + 1)
        return int(connection.execute(changed.returning(T.revision)).scalar_one())

    def _count_trial(self, connection: Connection, study: StudyRecord) -> None:
        T = TrialTallyRow
        connection.execute(update(T).where(T.study_id == study.id).values(trials=T.trials + 1))

    def _count_measurements(
        self, connection: Connection, study: StudyRecord, added: Mapping[str, int]
    ) -> None:
        """added: profiler -> how many."""
        M = MeasurementTallyRow
        for profiler, count in sorted(added.items()):  # in one order, as everywhere
            key: dict[str, Any] = {"study_id": study.id, "profiler": profiler}
            connection.execute(self.insert(M), {**key, "measurements": 0})
            own = update(M).where(M.study_id == study.id, M.profiler == profiler)
            connection.execute(own.values(measurements=M.measurements + count))
