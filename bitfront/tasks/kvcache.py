"""Which layers write what attention caches: key and value projections, by their names.

Models of transformers call them ``k_proj`` and ``v_proj``, or ``key`` and ``value``, inside of the
module that knows the size of a head. Where one layer gives queries, keys and values together
(GPT-2's ``c_attn``), it is ``fused``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from bitfront.types import Layer

from .grouping import LINEAR

_ROLES = {
    "q_proj": "query", "k_proj": "key", "v_proj": "value",
    "query": "query", "key": "key", "value": "value",
    "c_attn": "fused", "query_key_value": "fused", "qkv_proj": "fused", "Wqkv": "fused",
}  # fmt: skip
_SIZES = ("head_dim", "head_size", "attention_head_size")


def with_attention(model: nn.Module, layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """``layers``, those of attention with their part in it, keys and values with their head's size.

    A key or value projection whose outputs are no whole number of heads is left as any other layer.
    """
    return tuple(_with_part(model, layer) for layer in layers)


def _with_part(model: nn.Module, layer: Layer) -> Layer:
    above, _, last = layer.name.rpartition(".")
    part = _ROLES.get(last) if layer.kind in LINEAR and layer.role == "body" else None
    if part is None or part in ("query", "fused"):
        return replace(layer, attention=part or "")
    parent = model.get_submodule(above)
    head = next((s for n in _SIZES if isinstance(s := getattr(parent, n, None), int)), 0)
    if head < 1 or layer.rows % head:
        return layer
    return replace(layer, attention=part, head=head)
