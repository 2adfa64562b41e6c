"""Opening a database: where it is, how it is spoken to, and transactions for reading and writing.

SQLite is used with write-ahead logging, so that readers never wait; a writing transaction takes
the write lock at once (``BEGIN IMMEDIATE``), so that it never fails halfway for want of it; a
commit is on the disk when it returns (``synchronous=FULL``).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError

from bitfront.errors import StorageError, UnknownName

from .failures import failures, named
from .folder import Folder
from .models import StudyRow
from .records import StudyRecord

BUSY_TIMEOUT = 15.0  # seconds to wait for another writer
# connections are kept: threads of a server wait for one sooner than they open one
_POOL: dict[str, Any] = {"pool_size": 16, "max_overflow": 0}
_HELP = "give a path, or a URL like postgresql://user@host:5432/name"

Made = TypeVar("Made")


def locate(where: str | Path | None) -> URL:
    """The URL of the database ``where``: a path, a URL, or None for the user's own.

    None is ``BITFRONT_DB``, or ``bitfront.db`` in the user's data folder. Raises ``StorageError``
    for a URL that cannot be used.
    """
    if where is None:
        where = os.environ.get("BITFRONT_DB") or (
            platformdirs.user_data_path("bitfront") / "bitfront.db"
        )
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=_absolute(where))
    try:
        url = make_url(where)
    except (ArgumentError, ValueError) as error:
        raise StorageError("the database's URL cannot be read", _HELP) from error
    if url.drivername == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise StorageError(f"{where!r} would be lost at exit", "name a file")
        return url.set(database=_absolute(str(url.database)))
    if url.drivername in ("postgresql", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg")
    raise StorageError(f"a database of kind {url.drivername!r} is not supported", _HELP)


def _absolute(path: str | Path) -> str:
    return str(Path(os.path.expanduser(path)).absolute())  # pathlib's own may raise


def locate_folder(url: URL, where: str | Path | None) -> Folder | None:
    """The folder of artifacts that ``where`` names; None for none.

    By default that beside an SQLite file, wherever links to the file lead; for PostgreSQL that in
    ``BITFRONT_ARTIFACTS``, if it is set. But for the first, several databases may share it.
    """
    if where is None:
        if url.get_backend_name() == "sqlite":
            return beside(url)
        where = os.environ.get("BITFRONT_ARTIFACTS")
    return Folder(Path(_absolute(where))) if where else None


def beside(url: URL) -> Folder:
    """The artifact folder that belongs to an SQLite file."""
    return Folder(Path(f"{os.path.realpath(str(url.database))}.artifacts"))


def connect(url: URL, timeout: float) -> Engine:
    """An engine for ``url``; connects on first use. Creates the folder of a SQLite file."""
    if url.get_backend_name() == "sqlite":
        _make_folder(url)
        arguments = {"timeout": timeout, "isolation_level": None}
        engine = create_engine(url, connect_args=arguments, **_POOL)
        event.listen(engine, "connect", _configure_sqlite(timeout))
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        engine = create_engine(
            url, connect_args={"connect_timeout": 10}, pool_pre_ping=True, **_POOL
        )
    except ImportError as error:
        raise StorageError(
            f"{named(url)} needs the psycopg driver", "run pip install 'bitfront[postgres]'"
        ) from error
    event.listen(engine, "connect", _configure_postgres(timeout))
    return engine


def now() -> str:
    """This moment as ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def clock(connection: Connection) -> float:
    """Seconds since 1970, by the database's clock: that of this machine for a file."""
    if connection.dialect.name == "sqlite":
        return time.time()
    return float(connection.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0.0)


class Database:
    """Transactions on one database. Threads may share it; each process opens its own."""

    url: URL
    folder: Folder | None  # of the artifacts
    _readers: Engine
    _writers: Engine

    def __init__(self, url: URL, engine: Engine, folder: Folder | None = None) -> None:
        self.url = url
        self.folder = folder
        self._engine = engine
        self._writers = engine.execution_options(bitfront_writes=True)
        self._readers = engine
        if engine.dialect.name == "postgresql":  # SQLite's readers have a snapshot anyway
            self._readers = engine.execution_options(isolation_level="REPEATABLE READ")

    def reading(self) -> AbstractContextManager[Connection]:
        """A transaction that sees one state of the database. Raises ``StorageError``."""
        return self._transaction(self._readers)

    @contextmanager
    def writing(self, study: StudyRecord | None = None) -> Iterator[Connection]:
        """A transaction that is committed at the end, or undone by an exception.

        Raises ``StorageError``, and ``UnknownName`` unless ``study`` is one of this database;
        nothing of the transaction is then in the database.
        """
        with self._transaction(self._writers) as connection:
            if study is not None:
                same = (StudyRow.id == study.id, StudyRow.name == study.name)
                if connection.scalar(select(StudyRow.id).where(*same)) is None:
                    raise UnknownName(
                        f"no study {study.name!r} in {named(self.url)}", "open it there first"
                    )
            yield connection

    def insert(self, table: Any) -> Any:
        """An ``INSERT`` into ``table`` that leaves out rows which are there already."""
        dialect = sqlite if self._engine.dialect.name == "sqlite" else postgresql
        return dialect.insert(table).on_conflict_do_nothing()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        with failures(self.url), engine.begin() as connection:
            yield connection


def _make_folder(url: URL) -> None:
    path = Path(str(url.database))
    if "\0" in str(path):
        raise StorageError(f"{named(url)} is no path", "name another file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the folder of {named(url)} cannot be made ({error.strerror})",
            "name a database in another folder",
        ) from error
    try:
        if path.is_dir():
            raise StorageError(f"{named(url)} is a folder", "name a file in it")
    except OSError as error:
        raise StorageError(
            f"{named(url)} cannot be opened ({error.strerror})", "name another file"
        ) from error


def _configure_sqlite(timeout: float) -> Callable[[Any, Any], None]:
    def configure(connection: Any, record: Any) -> None:
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = FULL")
            # taking up write-ahead logging needs a lock that SQLite does not wait for
            _patiently(lambda: connection.execute("PRAGMA journal_mode = WAL"), timeout)
        except sqlite3.Error:
            connection.close()  # SQLAlchemy would leave it open
            raise

    return configure


def _configure_postgres(timeout: float) -> Callable[[Any, Any], None]:
    def configure(connection: Any, record: Any) -> None:
        connection.execute(f"SET lock_timeout = {round(timeout * 1000)}")
        connection.execute("SET jit = off")  # it takes longer than the queries
        connection.commit()

    return configure


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("bitfront_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _patiently(action: Callable[[], Made], timeout: float) -> Made:
    """What ``action`` gives, tried until another connection no longer locks the database."""
    end = time.monotonic() + timeout
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            locked = error.sqlite_errorname.startswith("SQLITE_BUSY")
            if not locked or time.monotonic() >= end:
                raise
        time.sleep(0.02)
