"""Calibration data held back: nothing is chosen by it, so that it tells how far choices fit.

    B  batches, or whatever else cannot be cut      H  those held back, share · B to the nearest

All but the last, which may be a short one, are cut into H equal stretches, and one batch of each is
held back: they are spread over the order, and which ones they are depends on B and the share alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from bitfront.errors import InvalidInput

HOLD_BACK = 0.125  # share, unless another is asked for
_SEED = 0

T = TypeVar("T")


def checked_share(share: float) -> float:
    """``share`` as a float. Raises ``InvalidInput`` unless it is from 0 to below 1."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise InvalidInput(f"hold_back {share!r}", "give a share from 0 to below 1")
    return float(share)


def chosen(count: int, share: float) -> tuple[int, ...]:
    """Which of ``count`` (B) are held back, in order; never the last."""
    held = min(int(share * count + 0.5), count - 1)  # halves upwards: 1 of 4 for the default
    generator = np.random.default_rng(_SEED)
    stretches = pairwise(i * (count - 1) // held for i in range(held + 1)) if held > 0 else ()
    return tuple(int(generator.integers(first, last)) for first, last in stretches)


def split(items: Sequence[T], share: float) -> tuple[Sequence[T], Sequence[T]]:
    """What is left to choose by, and what is held back, both in their order."""
    held = chosen(len(items), share)
    if not held:
        return items, ()
    rest = tuple(i for i in range(len(items)) if i not in held)
    return _Some(items, rest), _Some(items, held)


def note(count: int, share: float, remedy: str) -> tuple[str, ...]:
    """What a reader should know where a share was asked for and nothing could be held back."""
    if not share or chosen(count, share):
        return ()
    return (f"nothing is held back of {count} calibration batches: {remedy}",)


class _Some(Sequence[T]):
    """Some of ``items``, each fetched when it is asked for."""

    def __init__(self, items: Sequence[T], indices: tuple[int, ...]) -> None:
        self._items, self._indices = items, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._items[i] for i in self._indices[index]]
        return self._items[self._indices[index]]
