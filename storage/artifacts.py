"""Artifacts: large arrays and other files, kept beside the database and known by their content.

A file is whole and on the disk before the transaction that records it begins. A crash between
leaves a file that no row knows, never a row without its file.

Collecting is safe beside writers, even of the same content, and whatever clocks say:

- It removes a file only within a transaction that nobody else can record artifacts in, and only if
  no row has it. With SQLite that is any writing transaction; with PostgreSQL it locks the table,
  which waits for everybody who recorded an artifact, or a reference to one, and has not committed.
- Whoever records an artifact looks whether its file is still there once the row is in, and writes
  it again if not. No collector gets between that and the commit, and the next one sees the row.
- Rows go in a transaction before that of their files: where it is undone, no file has gone.

The time that collecting gives, ``grace``, is for what is recorded and not yet referred to.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Column, ColumnElement, Connection, bindparam, delete, select, text

from bitfront.errors import InvalidInput, StorageError, UnknownName
from bitfront.files import PARTIAL

from .engine import Database, beside, now
from .failures import named
from .folder import Folder, sha256, sha256_of
from .models import ArtifactRow, IdentityRow, Table
from .records import Artifact, Collected

LARGE = 64 << 10  # bytes, from which on an array is kept in a file
NPY, NPZ = "application/x-npy", "application/x-npz"
WRITING = 60.0  # seconds without a write, up to which a partial file is never left-over


@dataclass(frozen=True)
class Blob:
    """Bytes on their way into the database. hash: if they go to a file, else None."""

    source: bytes | Path
    size: int
    media_type: str
    hash: str | None

    @property
    def columns(self) -> dict[str, Any]:
        """Of a row of arrays."""
        return {"data": None if self.hash else self.source, "artifact": self.hash}


class Artifacts(Database):
    """Files in the artifact folder: recording, reading and collecting them."""

    def take_folder(self) -> None:
        """In a folder that several databases may share, take this one's own."""
        if self.folder is None or self.folder == beside(self.url):
            return
        with self.reading() as connection:
            key = connection.scalar(select(IdentityRow.key))
        self.folder = Folder(self.folder.path / str(key))

    def put_artifact(self, source: bytes | Path, media_type: str) -> Artifact:
        """Keep these bytes, or a copy of this file. What is there already stays as it is.

        It is collected some time after, unless a row refers to it. Raises ``InvalidInput`` for a
        file that cannot be read.
        """
        self._folder()
        try:
            hash = sha256(source) if isinstance(source, bytes) else sha256_of(source)
            size = len(source) if isinstance(source, bytes) else source.stat().st_size
        except OSError as error:
            raise InvalidInput(
                f"{str(source)!r} cannot be read ({error.strerror})", "name another file"
            ) from error
        blob = Blob(source, size, media_type, hash)
        self._write([blob])
        with self.writing() as connection:
            self._record([blob], connection)
            return self._artifact(connection, hash)

    def artifact(self, hash: str) -> Artifact:
        """What is recorded under ``hash``. Raises ``UnknownName``."""
        with self.reading() as connection:
            return self._artifact(connection, hash)

    def open_artifact(self, hash: str) -> BinaryIO:
        """The bytes under ``hash``, checked, as an open file that the caller closes.

        Raises ``UnknownName``, and ``StorageError`` for a file that is missing or damaged.
        """
        return self._folder().open(self.artifact(hash).hash)

    def collect(self, grace: float = 3600.0) -> Collected:
        """Remove what nothing refers to: rows of artifacts, files without a row, partial files.

        grace: seconds since an artifact was last written or put, in which it stays. Writers, and
        other collectors, may be at work. Raises ``InvalidInput`` for a negative ``grace``.
        """
        if not grace >= 0:
            raise InvalidInput(f"a grace of {grace:g} seconds", "give 0 or more")
        folder, moment = self._folder(), time.time()
        self._forget(folder, moment - grace)

        def is_old(name: str) -> bool:
            least = WRITING if name.endswith(PARTIAL) else 0.0
            return folder.changed(name) <= moment - max(grace, least)

        sizes = []
        for part in folder.parts():
            old = {name for name in folder.names(part) if is_old(name)}
            with self.reading() as connection:
                old -= _recorded(connection, part)
            if not old:
                continue
            with self._alone() as connection:
                # with what became of them since: of time, of row, or by another collector
                left = set(folder.names(part)) & old - _recorded(connection, part)
                sizes += [folder.remove(name) for name in sorted(left) if is_old(name)]
        return Collected(len(sizes), sum(sizes))

    def discard(self, hashes: Iterable[str]) -> Collected:
        """Remove these artifacts at once, but for those that a row refers to."""
        chosen = [{"old": hash} for hash in sorted(set(hashes))]
        if not chosen:
            return Collected(0, 0)
        folder, one = self._folder(), ArtifactRow.hash == bindparam("old")
        with self._alone() as connection:
            connection.execute(delete(ArtifactRow).where(one, *_unused()), chosen)
        sizes = []
        with self._alone() as connection:
            for row in chosen:
                kept = connection.scalar(select(ArtifactRow.hash).where(one), row) is not None
                if not kept and folder.changed(row["old"]) > -math.inf:
                    sizes.append(folder.remove(row["old"]))
        return Collected(len(sizes), sum(sizes))

    def _blob(self, data: bytes, media_type: str) -> Blob:
        """An array on its way into a row; a large one into a file, if there is a folder."""
        large = len(data) >= LARGE and self.folder is not None
        return Blob(data, len(data), media_type, sha256(data) if large else None)

    def _write(self, blobs: Iterable[Blob]) -> None:
        """Have the files of ``blobs`` on the disk: before the transaction that records them."""
        sources = {blob.hash: blob.source for blob in blobs if blob.hash is not None}
        if sources:
            self._folder().put(sources)

    def _record(self, blobs: Iterable[Blob], connection: Connection) -> None:
        """Add rows for the files of ``blobs``, which were written, so that others may refer."""
        # in one order everywhere, so that two writers never wait for each other's rows
        files = sorted({blob.hash: blob for blob in blobs if blob.hash is not None}.items())
        if not files:
            return
        moment = now()
        rows = [
            {"hash": hash, "bytes": blob.size, "media_type": blob.media_type, "created": moment}
            for hash, blob in files
        ]
        connection.execute(self.insert(ArtifactRow), rows)
        folder = self._folder()
        gone = {hash: blob.source for hash, blob in files if not folder.want(hash, blob.size)}
        folder.put(gone)  # collected since they were written

    def _bytes(self, data: bytes | None, artifact: str | None) -> bytes:
        """The bytes of an array, given the two columns of its row."""
        if artifact is not None:
            return self._folder().read(artifact)
        assert data is not None
        return data

    def _folder(self) -> Folder:
        if self.folder is None:
            raise StorageError(
                f"{named(self.url)} has no artifact folder here",
                "set BITFRONT_ARTIFACTS to the folder that its machines share",
            )
        return self.folder

    def _artifact(self, connection: Connection, hash: str) -> Artifact:
        A = ArtifactRow
        query = select(A.hash, A.bytes, A.media_type, A.created).where(A.hash == hash)
        row = connection.execute(query).one_or_none()
        if row is None:
            raise UnknownName(f"no artifact {hash!r}", "it was never put, or was collected")
        return Artifact(*row, path=self._folder().file(hash))

    def _forget(self, folder: Folder, before: float) -> None:
        """Delete the rows that no other refers to, if their files are old or missing."""
        unused = select(ArtifactRow.hash).where(*_unused())

        def old(connection: Connection) -> list[dict[str, str]]:
            hashes = connection.scalars(unused)
            return [{"old": hash} for hash in hashes if folder.changed(hash) <= before]

        with self.reading() as connection:
            if not old(connection):
                return
        with self._alone() as connection:
            rows = old(connection)
            if rows:
                one = delete(ArtifactRow).where(ArtifactRow.hash == bindparam("old"))
                connection.execute(one, rows)

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        """A writing transaction while nobody else has begun to record artifacts; see above."""
        with self.writing() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("LOCK TABLE artifact IN EXCLUSIVE MODE"))
            yield connection


def referring() -> list[Column[Any]]:
    """The columns of all tables that refer to artifacts."""
    return [
        key.parent
        for table in Table.metadata.sorted_tables
        for key in table.foreign_keys
        if key.column.table.name == ArtifactRow.__tablename__
    ]


def _unused() -> list[ColumnElement[bool]]:
    """That no row refers to an artifact."""
    return [~select(column).where(column == ArtifactRow.hash).exists() for column in referring()]


def _recorded(connection: Connection, part: str) -> set[str]:
    """The artifacts whose hash begins with ``part``."""
    within = ArtifactRow.hash.between(part, part + "g")  # above every digit
    return set(connection.scalars(select(ArtifactRow.hash).where(within)))
