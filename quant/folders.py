"""Folders that appear whole or not at all."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from bitfront.errors import ExportError
from bitfront.files import PARTIAL, remedy

MANIFEST = "bitfront.json"  # in every folder that was written here
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


@contextmanager
def new_folder(folder: Path, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder beside ``folder`` that takes its name when the block ends.

    Everything is flushed to the disk first, then one rename makes it appear. When the block raises,
    it vanishes and ``folder`` is as before; when the process is killed, it stays until ``folder``
    is written again. A folder that is there already and not empty is refused
    unless ``overwrite`` is given, which exchanges it. Raises ``ExportError`` as ``check_target``
    does, and in place of any ``OSError`` of the block.
    """
    check_target(folder, overwrite)
    folder = _real(folder)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    try:
        _clear(folder)
        partial.mkdir()
        with _locked(partial):
            yield partial
            _flush(partial)
            _place(partial, folder)
            _flush_entry(folder.parent)
    except (OSError, SafetensorError) as error:  # the latter also stands for a full disk
        raise _failure(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_target(folder: Path, overwrite: bool = False) -> None:
    """Raises ``ExportError`` unless ``folder`` can be made.

    A folder with files in it is replaced on demand, but only by what wrote it: one without
    ``bitfront.json`` holds something else, and is never removed.
    """
    folder = _real(folder)
    try:
        if not folder.parent.is_dir():
            raise ExportError(f"no folder {str(folder.parent)!r} to write into", "create it first")
        if folder.exists() and not folder.is_dir():
            raise ExportError(f"{str(folder)!r} is a file", "give the name of a folder")
        if not folder.is_dir() or not any(folder.iterdir()):
            return
        if not overwrite:
            raise ExportError(
                f"{str(folder)!r} is there and not empty", "choose another, or overwrite it"
            )
        if not (folder / MANIFEST).is_file():
            raise ExportError(
                f"{str(folder)!r} is no export, it has no {MANIFEST}",
                "choose another, or remove it yourself",
            )
    except OSError as error:
        raise _failure(folder, error) from error


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold a folder for as long as this process lives; whether nobody else does.

    Where the file system has no locks on folders, nobody holds any and nobody can tell.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def _clear(folder: Path) -> None:
    """Remove what processes that were killed left of ``folder``."""
    name = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f]{{8}}{re.escape(PARTIAL)}")
    for path in folder.parent.iterdir():
        if name.fullmatch(path.name):
            with _locked(path) as free:
                if free:
                    shutil.rmtree(path, ignore_errors=True)


def _real(folder: Path) -> Path:
    """``folder`` without links and dots: what is renamed in the end."""
    return Path(os.path.realpath(folder))


def _failure(folder: Path, error: OSError | SafetensorError) -> ExportError:
    reason, todo = str(error), "choose another place"
    if isinstance(error, OSError):
        reason, todo = error.strerror or reason, remedy(error, todo)
    return ExportError(f"cannot write {folder.name!r} ({reason})", todo)


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        _flush_entry(path)
    _flush_entry(folder)


def _flush_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _place(partial: Path, folder: Path) -> None:
    """Rename ``partial`` to ``folder``; what was there is left under the name ``partial``."""
    if not folder.is_dir() or not any(folder.iterdir()):
        os.rename(partial, folder)  # POSIX: an empty folder is replaced
    elif not _exchange(partial, folder):
        aside = partial.with_suffix(".old")
        os.rename(folder, aside)
        try:
            os.rename(partial, folder)
        except OSError:
            os.rename(aside, folder)
            raise
        os.rename(aside, partial)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two names in one step, where the system can (Linux)."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    paths = os.fsencode(a), os.fsencode(b)
    return renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0
