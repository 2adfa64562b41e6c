"""Paths as users give them. Unlike pathlib's own, these functions raise nothing."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """``path`` with ``~`` replaced by the home folder, where there is one."""
    return Path(os.path.expanduser(path))


def absolute(path: str | Path) -> Path:
    """``expanded``, absolute and without links: what another process finds too."""
    return Path(os.path.realpath(expanded(path)))


def is_reference(text: str) -> bool:
    """Whether ``text`` is of the form ``path/to/file.py:name``."""
    return ".py:" in text
