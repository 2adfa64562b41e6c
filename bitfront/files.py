"""Files that are there whole or not at all, and what to do where the system refuses."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """An empty file beside ``path`` to write to, which takes its name when the block ends.

    Where the block, or the file system (``OSError``), raises, it is removed and ``path`` is as it
    was.
    """
    target = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)  # mkstemp's own mode lets nobody else read it
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
