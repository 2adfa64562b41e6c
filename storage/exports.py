"""Exports: which trial was written where, and what its audit found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, select

from .arrays import plain
from .engine import Database, now
from .models import ExportRow
from .records import Export, StudyRecord
from .trials import require_trial


class Exports(Database):
    """The history of exports: each one is a row."""

    def add_export(
        self,
        study: StudyRecord,
        trial_id: int,
        format: str,
        folder: str,
        bytes: int,
        audit: Mapping[str, Any],
    ) -> Export:
        """Record an export. Raises ``UnknownName`` when the study has no such trial."""
        row: dict[str, Any] = {
            "trial_id": trial_id,
            "format": format,
            "folder": folder,
            "bytes": bytes,
            "audit": plain(audit, "an export's audit"),
            "created": now(),
        }
        with self.writing(study) as connection:
            require_trial(connection, study, trial_id)
            added = insert(ExportRow).returning(ExportRow.id)
            id = connection.execute(added, {"study_id": study.id, **row}).scalar_one()
        return Export(id=id, **row)

    def exports(self, study: StudyRecord) -> list[Export]:
        """The study's exports, oldest first."""
        query = (
            select(
                ExportRow.id,
                ExportRow.trial_id,
                ExportRow.format,
                ExportRow.folder,
                ExportRow.bytes,
                ExportRow.audit,
                ExportRow.created,
            )
            .where(ExportRow.study_id == study.id)
            .order_by(ExportRow.id)
        )
        with self.reading() as connection:
            return [Export(*row) for row in connection.execute(query)]
