"""The store: one database, opened, migrated, and spoken to in Bitfront's nouns."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from .artifacts import Artifacts
from .columns import Columns
from .engine import BUSY_TIMEOUT, connect, locate, locate_folder
from .exports import Exports
from .jobs import Jobs
from .measurements import Measurements
from .migrate import migrate
from .studies import Studies
from .timings import Timings
from .trials import Trials
from .workers import Workers


class Store(Studies, Measurements, Trials, Exports, Jobs, Workers, Timings, Columns, Artifacts):
    """Studies, measurements, trials, exports, jobs, workers and artifacts in one database.

    Each call is one transaction, on the disk when it returns. Whatever is known by its content is
    recorded once: adding it again changes nothing, so work that ran twice does no harm. Threads
    may share a store; every process opens its own, and not before it forks. Every method raises
    ``StorageError`` when the database cannot be read or written; nothing of that call is then
    recorded. A nan is NULL in the database and nan again when read.
    """

    @classmethod
    def open(
        cls,
        where: str | Path | None = None,
        timeout: float = BUSY_TIMEOUT,
        artifacts: str | Path | None = None,
    ) -> Store:
        """Open, and if need be create, the database ``where``, with its tables up to date.

        where: a path, a URL ``sqlite:///...`` or ``postgresql://...``, or None for ``BITFRONT_DB``
        or else ``bitfront.db`` in the user's data folder. timeout: seconds to wait for another
        writer, here and in every later call. artifacts: a folder for large arrays, in which each
        database has one of its own; by default ``<file>.artifacts`` beside an SQLite file, and for
        PostgreSQL ``BITFRONT_ARTIFACTS``, or none: they are then in the database. Raises
        ``StorageError`` when it is of a newer Bitfront, locked, read-only, damaged, not a database,
        or cannot be reached.
        """
        url = locate(where)
        store = cls(url, connect(url, timeout), locate_folder(url, artifacts))
        try:
            migrate(store)
            store.take_folder()
        except BaseException:
            store.close()
            raise
        return store

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
