"""What each layer costs under each scheme, counted as an export stores it.

    bytes        of every tensor that the export holds
    bits         nominal weight bits × weights (``keep``: the width of the model's dtype)
    stored_bits  8 × bytes of a layer's stored tensors: codes, scales, zero points
    bops         weight bits × activation bits × multiply-accumulates; an input that is not
                 quantized has the width of the model's dtype
    kv           bytes that attention caches for one token: keys and values, and where they are
                 quantized a 16-bit scale for each head; counted where there are such layers

A tied layer's weight is counted where it is owned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from bitfront.errors import ProblemError
from bitfront.types import Costs, Layer, Scheme

from .stored import KEEP, Stored
from .suitability import Reason, barred, takes

if TYPE_CHECKING:
    from torch import Tensor, nn

RESOURCES = ("bytes", "bits", "stored_bits", "bops")
SCALE_BYTES = 2  # of a cached token's head
# of safetensors' dtype names, in bits
WIDTHS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip


def cost_tables(
    layers: Sequence[Layer],
    schemes: Sequence[Scheme],
    stored: Stored,
    other_bytes: int,
    *,
    kept: Sequence[Layer] = (),
    average_over: Literal["allocated", "all"] = "allocated",
    reason: Reason = takes,
) -> Costs:
    """Costs of ``layers`` under ``schemes``; ``kept`` are the discovered layers that are left out.

    stored: (layer, scheme) -> suffix of a tensor's name -> (safetensors dtype, shape), without the
    bias. other_bytes: of all other parameters and buffers. average_over: which weights average
    bits are taken over, those being allocated, or those of ``kept`` too (at their own width).
    reason: why a layer cannot take a scheme, or None; an exporter may refuse more than the default.
    """
    by_name = {layer.name: layer for layer in [*layers, *kept]}
    for layer in by_name.values():
        if layer.shares is not None and layer.shares not in by_name:
            raise ProblemError(
                f"layer {layer.name!r} uses the weight of {layer.shares!r}, which is not counted",
                "pass both, among the layers or those kept out",
            )
    shape = (len(layers), len(schemes))
    resources = (*RESOURCES, "kv") if any(la.cached for la in by_name.values()) else RESOURCES
    tables = {resource: np.full(shape, np.nan) for resource in resources}
    reasons = {}
    for i, layer in enumerate(layers):
        for j, scheme in enumerate(schemes):
            why = barred(layer, scheme, by_name, reason)
            if why is not None:
                reasons[layer.name, str(scheme)] = why
                continue
            costs = layer_costs(layer, scheme, stored)
            for resource in resources:
                tables[resource][i, j] = costs[resource]

    counted = [*layers, *kept] if average_over == "all" else list(layers)
    apart = _total(kept, stored)
    fixed = {r: apart[r] for r in resources if r not in ("bits", "stored_bits")}
    fixed["bytes"] += other_bytes
    for resource in ("bits", "stored_bits"):
        fixed[resource] = apart[resource] if average_over == "all" else 0.0
    whole = [layer_costs(layer, KEEP, stored) for layer in layers]
    unquantized = {resource: np.array([cost[resource] for cost in whole]) for resource in resources}
    return Costs(
        layers=tuple(layer.name for layer in layers),
        schemes=tuple(map(str, schemes)),
        tables=tables,
        fixed=fixed,
        full={r: float(unquantized[r].sum()) + fixed[r] for r in resources},
        weights=sum(layer.weights for layer in counted if layer.shares is None),
        reasons=reasons,
        unquantized=unquantized,
        counts=np.array([0 if layer.shares else layer.weights for layer in layers]),
    )


def layer_costs(layer: Layer, scheme: Scheme, stored: Stored) -> dict[str, float]:
    """Resource -> cost of one layer that can take ``scheme``."""
    weight_bits = scheme.bits or layer.width
    input_bits = layer.width if scheme.activation is None else scheme.activation.bits
    size = 0 if layer.shares else sum(map(tensor_bytes, stored(layer, scheme).values()))
    return {
        "bytes": float(size),
        "bits": 0.0 if layer.shares else float(weight_bits * layer.weights),
        "stored_bits": 8.0 * size,
        "bops": float(weight_bits * input_bits * layer.macs),
        "kv": _cached(layer, scheme),
    }


def _cached(layer: Layer, scheme: Scheme) -> float:
    if not layer.cached:
        return 0.0
    if scheme.cache is None:
        return layer.rows * layer.width / 8
    return layer.rows * scheme.cache / 8 + SCALE_BYTES * (layer.rows // layer.head)


def tensor_bytes(tensor: tuple[str, tuple[int, ...]]) -> int:
    """Size of a (safetensors dtype, shape)."""
    dtype, shape = tensor
    return math.prod(shape) * WIDTHS[dtype] // 8


def other_bytes(model: nn.Module, layers: Sequence[Layer]) -> int:
    """Bytes of every parameter and persistent buffer but the weights of ``layers``.

    Tensors in one storage are counted once, as an export writes them.
    """
    from torch import Tensor

    seen = {_place(model.get_parameter(f"{layer.name}.weight")) for layer in layers}
    total = 0
    for tensor in model.state_dict(keep_vars=True).values():
        if isinstance(tensor, Tensor) and _place(tensor) not in seen:
            seen.add(_place(tensor))
            total += tensor.numel() * tensor.element_size()
    return total


def _place(tensor: Tensor) -> tuple[object, ...]:
    """Equal for tensors that are the same numbers in memory."""
    pointer = tensor.untyped_storage().data_ptr()
    return (pointer or id(tensor), tensor.storage_offset(), tensor.numel(), tensor.dtype)


def _total(layers: Sequence[Layer], stored: Stored) -> dict[str, float]:
    costs = [layer_costs(layer, KEEP, stored) for layer in layers]
    return {resource: sum(cost[resource] for cost in costs) for resource in (*RESOURCES, "kv")}
