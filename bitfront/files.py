"""Files that are there whole or not at all, and what to do where the system refuses."""

from __future__ import annotations

import errno
import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"  # how the name of a file ends that is not whole yet
_REMEDIES = {
    errno.ENOSPC: "the disk is full: make room, or choose another place",
    errno.EDQUOT: "the quota is used up: make room, or choose another place",
    errno.EROFS: "choose another place",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.ENAMETOOLONG: "give a shorter name",
}


def remedy(error: OSError, otherwise: str) -> str:
    """What to do about an error of the file system; ``otherwise`` about one not known here."""
    return _REMEDIES.get(error.errno or 0, otherwise)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` (UTF-8) under a temporary name beside ``path``, then rename it.

    Raises ``OSError`` as the file system does; ``path`` is then as it was.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def clear(path: Path) -> None:
    """Remove what processes that were killed left of ``path``, which nobody else writes."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL}"):
        partial.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """An empty file beside ``path`` to write to, which takes its name when the block ends.

    Where the block, or the file system (``OSError``), raises, it is removed and ``path`` is as it
    was.
    """
    target = Path(path)
    partial = target.parent / f".{target.name}.{secrets.token_hex(4)}{PARTIAL}"
    # not by tempfile, whose files nobody else may read
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
