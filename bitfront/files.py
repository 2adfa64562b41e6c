"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
