"""Mixtures of experts as torch's exporter takes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def batched_experts(model: nn.Module) -> Iterator[None]:
    """Experts of transformers as batched products of the weights that tokens chose, until the block
    ends.

    Their usual grouped products have no ONNX operator. Both give the same, up to the order of sums.
    """
    if not hasattr(model, "get_experts_implementation"):
        yield
        return
    experts: Any = model
    before = experts.get_experts_implementation()
    experts.set_experts_implementation("batched_mm")
    try:
        yield
    finally:
        experts.set_experts_implementation(before)
