"""Workers: a row of each while it lives, and what it does.

A worker says that it is there several times within its lease, and takes its row away when it ends.
The row of one that died stays for a while, as lost.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, func, or_, select

from .engine import Database, clock
from .models import JobRow, WorkerRow
from .records import WorkerRecord

IDLE, BUSY, LOST = "idle", "busy", "lost"
KEPT = 86400.0  # seconds that a worker which was lost is still listed


class Workers(Database):
    """Who takes the jobs of a database."""

    def worker_seen(self, name: str, host: str, version: str, started: str, lease: float) -> None:
        """Note that a worker lives; it is to say so again within ``lease`` seconds.

        started: when it began, ISO 8601, UTC. Workers that were lost long ago are forgotten.
        """
        W = WorkerRow
        with self.writing() as connection:
            moment = clock(connection)
            row = {
                "name": name, "host": host, "version": version, "started": started,
                "seen": moment, "lease": lease,
            }  # fmt: skip
            old = W.seen + W.lease < moment - KEPT
            connection.execute(delete(W).where(or_(old, W.name == name)))
            connection.execute(self.insert(W), row)

    def worker_ended(self, name: str) -> None:
        """Forget a worker, which takes no more jobs."""
        with self.writing() as connection:
            connection.execute(delete(WorkerRow).where(WorkerRow.name == name))

    def workers(self) -> list[WorkerRecord]:
        """The workers that live or were lost lately, by name."""
        with self.reading() as connection:
            moment = clock(connection)
            return [_record(row, moment) for row in connection.execute(_HELD)]


_HELD = (
    select(WorkerRow.__table__, func.min(JobRow.id).label("job"))
    .outerjoin(JobRow, JobRow.worker == WorkerRow.name)
    .group_by(WorkerRow.name)
    .order_by(WorkerRow.name)
)


def _record(row: Any, moment: float) -> WorkerRecord:
    state = IDLE if row.job is None else BUSY
    return WorkerRecord(
        name=row.name, host=row.host, version=row.version, started=row.started,
        seen=datetime.fromtimestamp(row.seen, UTC).isoformat(timespec="seconds"),
        job=row.job, state=LOST if row.seen + row.lease < moment else state,
    )  # fmt: skip
