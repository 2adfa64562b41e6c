"""What a database driver's error means, as one clear ``StorageError``."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from bitfront.errors import StorageError

_DAMAGED = ("is damaged", "restore it from a copy, or name another file")
# prefix of SQLite's error name -> (what is wrong, what to do)
_SQLITE = {
    "SQLITE_BUSY": ("is locked", "another program is writing to it: end that, or wait"),
    "SQLITE_LOCKED": ("is locked", "another program is writing to it: end that, or wait"),
    "SQLITE_FULL": ("cannot grow", "the disk or its quota is full: make room and run again"),
    "SQLITE_READONLY": ("is read-only", "change its permissions or its folder's, or name another"),
    "SQLITE_PERM": ("is read-only", "change its permissions or its folder's, or name another"),
    "SQLITE_NOTADB": ("is not a database", "name another file"),
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_CANTOPEN": ("cannot be opened", "check that its folder exists and can be written to"),
    "SQLITE_IOERR": ("cannot be read or written", "check the disk it is on"),
}
# prefix of PostgreSQL's SQLSTATE -> (what is wrong, what to do)
_POSTGRES = {
    "28": ("refuses this user", "check the user and password in its URL"),
    "3D": ("does not exist", "create it with createdb, or name another"),
    "3F": ("has no schema to write to", "create the schema that search_path names"),
    "42501": ("lets this user not write", "grant it the right to create and write tables"),
    "25006": ("is read-only", "name a server that takes writes"),
    "53100": ("cannot grow", "the server's disk is full: make room and run again"),
    "53": ("is short of resources", "see the server's log"),
    "55P03": ("is locked", "another program is writing to it: end that, or wait"),
    "57": ("was shut down by its server", "run again when the server is up"),
    "08": ("lost its connection", "check that the server is up and run again"),
    "XX": ("is damaged", "see the server's log"),
}
# of either: what another program, or a server that starts again, brings about and ends
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "53", "55P03", "57", "08")
_SMALL = 256 << 10  # bytes free, below which a disk counts as full


@contextmanager
def failures(url: URL) -> Iterator[None]:
    """Turns a driver's errors on the database at ``url`` into ``StorageError``."""
    try:
        yield
    except PoolTimeout as error:
        raise StorageError(f"{named(url)} is in use by too many threads", str(error)) from error
    except DBAPIError as error:
        raise translated(url, error) from error
    except json.JSONDecodeError as error:  # in a column of JSON
        raise StorageError(f"{named(url)} {_DAMAGED[0]}", _DAMAGED[1]) from error


def named(url: URL) -> str:
    """The database at ``url``, in words, without its password."""
    if url.get_backend_name() == "sqlite":
        return f"database {url.database!r}"
    return f"database {url.set(drivername='postgresql').render_as_string(hide_password=True)!r}"


def translated(url: URL, error: DBAPIError) -> StorageError:
    """The ``StorageError`` that says what ``error`` means."""
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorname", "") or ""
        if code.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")):
            code = _closer(url, code)
        table = _SQLITE
    else:
        code = getattr(cause, "sqlstate", None) or ""
        table = _POSTGRES
        if not code and isinstance(error, OperationalError):
            return _passing(
                StorageError(
                    f"{named(url)} cannot be reached ({_first_line(cause)})",
                    "check its URL, and that its server is running",
                )
            )
    known = [words for prefix, words in table.items() if code.startswith(prefix)]
    if known:
        what, remedy = known[0]
        told = StorageError(f"{named(url)} {what}", remedy)
        return _passing(told) if code.startswith(_PASSING) else told
    words = f"{_first_line(cause)}, code {code}" if code else _first_line(cause)
    return StorageError(f"{named(url)} failed ({words})", "check that it is Bitfront's, and whole")


def _passing(error: StorageError) -> StorageError:
    error.passing = True
    return error


def _first_line(cause: BaseException | None) -> str:
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__


def _closer(url: URL, code: str) -> str:
    """What SQLite's ``code`` comes from, where the file system tells more than SQLite does."""
    path = Path(url.database or "")
    if path.parent.is_dir():
        disk = shutil.disk_usage(path.parent)
        if disk.total and disk.free < _SMALL:
            return "SQLITE_FULL"
    if path.is_file() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        return "SQLITE_READONLY"
    return code
