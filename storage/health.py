"""Whether a database can be worked with, and how much waits for workers."""

from __future__ import annotations

from dataclasses import dataclass

from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select

from .engine import Database
from .jobstates import QUEUED
from .migrate import configuration, version
from .models import JobRow

_head: str | None = None  # the newest revision, once it was looked up


@dataclass(frozen=True)
class Health:
    """schema, newest: revisions of the database's tables, and of what this Bitfront knows.
    queued: jobs that wait."""

    schema: str | None
    newest: str
    queued: int


def health(database: Database) -> Health:
    """As of now. Raises ``StorageError`` for a database out of reach."""
    waiting = select(func.count()).select_from(JobRow).where(JobRow.state == QUEUED)
    with database.reading() as connection:
        return Health(
            schema=version(connection),
            newest=_newest(connection),
            queued=connection.scalar(waiting) or 0,
        )


def _newest(connection: Connection) -> str:
    global _head
    if _head is None:
        _head = str(ScriptDirectory.from_config(configuration(connection)).get_current_head())
    return _head
