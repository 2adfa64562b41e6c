"""Sequences of token ids as batches of a language model.

N  sequences of a batch      T  tokens of its longest one
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .base import Batch
from .texts import Tokens


def batched(rows: Sequence[Tokens], parts: Sequence[int] | None, size: int) -> list[Batch]:
    """Batches of ``size`` sequences, in order. parts: the part of each, None for no parts."""
    return [
        padded(rows[i : i + size], None if parts is None else parts[i : i + size])
        for i in range(0, len(rows), size)
    ]


def padded(rows: Sequence[Tokens], parts: Sequence[int] | None = None) -> Batch:
    """One batch of sequences, padded at the right with masked zeros where lengths differ.

    Labels are the tokens that follow, (N, T−1); one is scored where both are real tokens.
    """
    T = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), T, dtype=torch.int64)
    mask = torch.zeros(len(rows), T, dtype=torch.int64)
    weights = torch.zeros(len(rows), T)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.from_numpy(row.ids)
        mask[i, : len(row)] = 1
        if row.weights is not None:
            weights[i, : len(row)] = torch.from_numpy(row.weights)
    full = bool(mask.all())
    return Batch(
        args=(),
        kwargs={"input_ids": ids} if full else {"input_ids": ids, "attention_mask": mask},
        samples=len(rows),
        labels=ids[:, 1:],
        scored=None if full else mask[:, 1:].bool(),
        weights=weights[:, 1:] if any(row.weights is not None for row in rows) else None,
        part=None if parts is None else torch.tensor(parts),
    )
