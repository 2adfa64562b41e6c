"""Cursors: where a page ended, for the client to hand back as it is.

A cursor is good for the query that it came from only, whatever its ``limit``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from bitfront.types import content_key

from .problems import Problem

LONGEST = 2000  # characters
LARGEST = (1 << 63) - 1  # integer that a database takes


def cursor(query: Mapping[str, Any], at: list[Any]) -> str:
    """Where a page of ``query`` ended: texts, numbers and null."""
    text = json.dumps([_mark(query), *at], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def position(text: str | None, query: Mapping[str, Any], *kinds: type) -> list[Any] | None:
    """What ``cursor`` was given, of these types; None without one. Raises ``Problem``."""
    if text is None:
        return None
    try:
        padded = text + "=" * (-len(text) % 4)
        found: list[Any] = json.loads(
            base64.b64decode(padded[:LONGEST], altchars=b"-_", validate=True)
        )
        mark, *at = found
    except (ValueError, TypeError, RecursionError):
        raise _wrong("it cannot be read") from None
    if mark != _mark(query):
        raise _wrong("it is of another query")
    fits = len(at) == len(kinds) and all(map(_is, at, kinds))
    if not fits:
        raise _wrong("it cannot be read")
    return at


def _is(value: Any, kind: type) -> bool:
    large = isinstance(value, int) and abs(value) > LARGEST
    return type(value) is kind and not large


def _wrong(why: str) -> Problem:
    return Problem(400, f"the cursor is wrong: {why}", "use next as it was given, or begin anew")


def _mark(query: Mapping[str, Any]) -> str:
    return content_key(dict(query))[:12]
