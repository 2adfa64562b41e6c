"""Which part of a file a Range header asks for (RFC 9110, 14.2)."""

from __future__ import annotations

import re

from .problems import Problem

_ONE = re.compile(r"bytes=\s*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))\s*", re.IGNORECASE)


def one_range(header: str, size: int) -> bool:
    """Whether it is one range of a file of ``size`` bytes. Everything else is to be ignored.

    Raises ``Problem`` for a range that is not within the file.
    """
    match = _ONE.fullmatch(header)
    if match is None:
        return False
    first, last, suffix = match.groups()
    if suffix is None and last and int(last) < int(first):
        return False
    if (int(suffix) == 0 or size == 0) if suffix is not None else int(first) >= size:
        raise Problem(
            416,
            f"{header!r} of a file of {size} bytes",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return True
