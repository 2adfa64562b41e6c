"""Whether a data set has anything to score."""

from __future__ import annotations

from collections.abc import Iterable

from bitfront.errors import DataError

from .base import Batch


def refuse_nothing(batches: Iterable[Batch], what: str, remedy: str) -> None:
    """Raises ``DataError`` when no position of the batches, ``what`` they are, counts."""
    counted = [batch.counted for batch in batches]
    if all(given is not None and not given.any() for given in counted):
        raise DataError(f"no position of {what!r} is scored", remedy)
