"""Glob patterns on layer names; one that matches nothing is a mistake."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from bitfront.errors import UnknownName


def matching(glob: str, names: Sequence[str]) -> list[str]:
    """The names that ``glob`` matches, in order. Raises ``UnknownName`` naming near ones."""
    found = [name for name in names if fnmatchcase(name, glob)]
    if not found:
        near = difflib.get_close_matches(glob.replace("*", ""), names, 3, 0.0) or list(names[:3])
        raise UnknownName(f"no layer matches {glob!r}", f"near it: {', '.join(near)}")
    return found
