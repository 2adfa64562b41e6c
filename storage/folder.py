"""Files known by their content: a file's name is the SHA-256 of its bytes, in hex.

    <folder>/ab/ab31...                      under the first two letters of its name
    <folder>/ab/.ab31....<random>.partial    one that is being written

A file is written under the other name, flushed to the disk and renamed: one with its proper name is
whole and on the disk, and never changes. Its time of change is when it was last written or wanted.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bitfront.errors import StorageError
from bitfront.files import PARTIAL, remedy, replacing

_NAME = re.compile(rf"[0-9a-f]{{64}}|\.[0-9a-f]{{64}}\.\w+{re.escape(PARTIAL)}")
_RESTORE = "restore it from a copy of this folder, which belongs to the database"


@dataclass(frozen=True)
class Folder:
    """The files under ``path``, a folder that is made when the first one is written.

    Threads and processes of several machines may share it. Methods raise ``StorageError`` where
    the file system refuses.
    """

    path: Path

    def file(self, hash: str) -> Path:
        """Where the bytes of this hash are, or would be."""
        return self.path / hash[:2] / hash

    def put(self, sources: Mapping[str, bytes | Path]) -> None:
        """Have the bytes of all ``sources``, by their hash, on the disk when this returns."""
        folders = set()
        for hash, source in sources.items():
            target = self.file(hash)
            with _refusals(target, "written"):
                size = len(source) if isinstance(source, bytes) else source.stat().st_size
                if not self.want(hash, size):
                    _make(target.parent)
                    with replacing(target) as partial:
                        _write(source, partial, hash)
            folders |= {target.parent, self.path}
        for folder in folders:  # in any case: who renamed a file may not have come so far
            with _refusals(folder, "written"):
                _flush(folder)

    def want(self, hash: str, size: int) -> bool:
        """Whether there is such a file of this size; if so, it counts as written just now."""
        path = self.file(hash)
        with _refusals(path, "read"):
            try:
                # opened, not only looked at: a network file system then asks its server
                with path.open("rb") as file:
                    if os.fstat(file.fileno()).st_size != size:
                        return False
                    with suppress(PermissionError):  # another user's keeps its time
                        os.utime(file.fileno())
            except FileNotFoundError:
                return False
        return True

    def read(self, hash: str) -> bytes:
        """The bytes of this hash. Raises ``StorageError`` if the file is missing or damaged."""
        path = self.file(hash)
        with _refusals(path, "read"):
            data = path.read_bytes()
        if sha256(data) != hash:
            raise _damaged(path)
        return data

    def open(self, hash: str) -> BinaryIO:
        """The file of this hash, checked and open at its begin. Raises as ``read`` does."""
        path = self.file(hash)
        with _refusals(path, "read"):
            file = path.open("rb")
            try:
                if hashlib.file_digest(file, "sha256").hexdigest() != hash:
                    raise _damaged(path)
                file.seek(0)
            except BaseException:
                file.close()
                raise
        return file

    def parts(self) -> list[str]:
        """The first two letters that there are folders for."""
        with _refusals(self.path, "read"):
            if not self.path.is_dir():
                return []
            return sorted(
                name for name in os.listdir(self.path) if re.fullmatch("[0-9a-f]{2}", name)
            )

    def changed(self, name: str) -> float:
        """When a file, whole or partial, was written or wanted last; -inf if there is none.

        Seconds since 1970, by the clock of the file system.
        """
        path = self.path / name.lstrip(".")[:2] / name
        with _refusals(path, "read"):
            try:
                return path.stat().st_mtime
            except FileNotFoundError:
                return -math.inf

    def names(self, part: str) -> list[str]:
        """Of the files of a part, partial ones too. What else is there is not ours."""
        with _refusals(self.path / part, "read"):
            return [name for name in os.listdir(self.path / part) if _NAME.fullmatch(name)]

    def remove(self, name: str) -> int:
        """Remove a file, whole or partial; its size in bytes."""
        path = self.path / name.lstrip(".")[:2] / name
        with _refusals(path, "removed"):
            size = path.stat().st_size
            path.unlink()
        return size


def sha256(data: bytes) -> str:
    """The hash of ``data``, in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_of(path: Path) -> str:
    """The hash of a file, in hex. Raises ``OSError``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(source: bytes | Path, partial: Path, hash: str) -> None:
    if isinstance(source, bytes):
        partial.write_bytes(source)
        return
    shutil.copyfile(source, partial)
    if sha256_of(partial) != hash:
        raise StorageError(f"{str(source)!r} changed while it was read", "let nobody write to it")


def _make(folder: Path) -> None:
    """Make a folder that is there after a crash, too."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush(folder.parent)


def _flush(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _damaged(path: Path) -> StorageError:
    return StorageError(f"artifact file {str(path)!r} is damaged", _RESTORE)


@contextmanager
def _refusals(path: Path, done: str) -> Iterator[None]:
    """Turns what the file system says about ``path`` into ``StorageError``."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and done == "read":
            raise StorageError(f"artifact file {str(path)!r} is missing", _RESTORE) from error
        raise StorageError(
            f"artifact file {str(path)!r} cannot be {done} ({error.strerror})",
            remedy(error, "check the disk it is on"),
        ) from error
