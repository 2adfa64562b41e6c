"""Quantized candidates of a pass, kept compactly: one sweep of quantizing, then reuse."""

from __future__ import annotations

from collections.abc import Sequence

from bitfront.quant.weights import QuantizedLayer

from .base import Pair, Subject
from .taps import evaluating


def keep_quantized(subject: Subject, pairs: Sequence[Pair]) -> dict[str, list[QuantizedLayer]]:
    """Layer -> its candidates in the order of ``pairs``; codes wait in scratch memory."""
    with evaluating(subject.task.model):
        subject.builder.prepare([(layer.name, scheme) for layer, scheme in pairs])
    kept: dict[str, list[QuantizedLayer]] = {}
    for layer, scheme in pairs:
        kept.setdefault(layer.name, []).append(subject.builder.kept(layer.name, scheme))
    return kept
