"""Where in a request a value stands that is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bitfront.errors import BitfrontError


@contextmanager
def within_body(*location: str | int) -> Iterator[None]:
    """Let an error of the block say where in the body the value stands that is wrong."""
    try:
        yield
    except BitfrontError as error:
        error.__dict__.setdefault("location", ["body", *location])
        raise
