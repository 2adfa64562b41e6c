"""Graphs with a cache: texts in pieces, each with what the ones before left, as in generation.

The first half of a text at once and then tokens one by one, with half of the samples; and in three
pieces. Every token's arithmetic is the same as in the whole text but for the order of sums, and for
the sums that move a rounded input across an edge: so where inputs are rounded the limits are those
of the whole text's outputs (``graph_audit``), and elsewhere that of float32 sums.

N  samples      T  tokens of each
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from bitfront.quant.onnx_run import Session

STEPS = 16  # tokens that are given one by one

PAST, PRESENT = "past_key_values.", "present."

Pieces = Mapping[str, Tensor]  # how a text was cut -> logits (n, T, V) of the first n samples


def real(inputs: Mapping[str, Tensor], outputs: Tensor) -> Tensor:
    """Which positions of outputs count: of a graph with a cache, those that are no padding.

    There the caller says positions, and what it says of padding means nothing.
    """
    if not has_cache(inputs):
        return torch.ones(outputs.shape[:1], dtype=torch.bool)
    return inputs["attention_mask"].bool()


def has_cache(inputs: Mapping[str, Tensor]) -> bool:
    """Whether keys and values of earlier tokens are among the inputs."""
    return any(name.startswith(PAST) for name in inputs)


def pieces(session: Session, inputs: Mapping[str, Tensor]) -> Pieces:
    """Logits of the texts in pieces; nothing for a graph without a cache."""
    if not has_cache(inputs):
        return {}
    N, T = inputs["input_ids"].shape
    half = T // 2
    single = min(half + STEPS, T)
    return {
        "token by token": _run(
            session, inputs, max(N // 2, 1), [half, *range(half + 1, single), single]
        ),
        "in three pieces": _run(session, inputs, N, [half, (half + T) // 2]),
    }


def faults(
    found: Pieces, whole: Tensor, trial: Tensor, real: Tensor, limit: float
) -> Iterator[str]:
    """Pieces that differ from the graph's own outputs (N, T, V), or from the trial's, by a root
    mean square of more than ``limit``.
    """
    for how, logits in found.items():
        n = len(logits)
        for what, other in (("whole texts", whole), ("the trial", trial)):
            size = float((logits.double() - other[:n])[real[:n]].square().mean().sqrt())
            if not size <= limit:
                yield (
                    f"texts {how} differ from {what} by {size:.3g} (root mean square), "
                    f"more than {limit:.3g}"
                )


def _run(
    session: Session, inputs: Mapping[str, Tensor], samples: int, cuts: Sequence[int]
) -> Tensor:
    """Logits of the first samples, their texts cut before the tokens ``cuts``."""
    given = {name: x[:samples] for name, x in inputs.items()}
    past = {name: x for name, x in given.items() if name.startswith(PAST)}
    T = given["input_ids"].shape[1]
    edges = sorted({0, *cuts, T})
    logits = []
    for begin, end in pairwise(edges):
        now = {n: x[:, begin:end] for n, x in given.items() if n in ("input_ids", "position_ids")}
        now["attention_mask"] = given["attention_mask"][:, :end]
        found = dict(zip(session.outputs, session({**now, **past}), strict=True))
        logits.append(found["logits"])
        past = {name: found[PRESENT + name.removeprefix(PAST)] for name in past}
    return torch.cat(logits, 1)
