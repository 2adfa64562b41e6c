"""What SDNQ layers, as diffusers loads them, store of a layer and what they cannot hold.

Without torch.

    suffix       symmetric integers                with zero points       fp8
    weight       codes, below 8 bits packed        same                   E4M3
    scale        of 16 bits                        same                   same
    zero_point                                     float32, -z · s

    weight ≈ zero_point + code · scale, in float32, rounded once to the model's dtype

So the weights are the trial's to the bit: -z · s, code · s and their sum have less than 24 bits.
Shapes are SDNQ's: a group is a dimension of its own, and a convolution's scale stands there for
each place of its kernel. Codes are packed as one row: a unit of some codes is some bytes.
"""

from __future__ import annotations

import math

from bitfront.scheme import KEEP as KEEP_WORD
from bitfront.types import Layer, Scheme

from .suitability import takes

UNITS = {2: (4, 1), 3: (8, 3), 4: (2, 1), 5: (8, 5), 6: (4, 3), 7: (8, 7)}  # codes, bytes
_KINDS = ("linear", "embedding", "conv1d", "conv2d")
_CASTS = {"bf16": "BF16", "fp16": "F16"}
_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}

Tensors = dict[str, tuple[str, tuple[int, ...]]]


def reason(layer: Layer, scheme: Scheme) -> str | None:
    """Why diffusers cannot load ``layer`` under ``scheme``; None if it can."""
    if str(scheme) == KEEP_WORD:
        return None
    if layer.kind not in _KINDS:
        return f"a {layer.kind} can only be kept"
    if layer.shares is not None:
        return f"its weight is tied to {layer.shares!r}, which must stay in one piece"
    if scheme.format in _CASTS:
        return None
    if layer.dtype == "float64":
        return "SDNQ's weights are products in float32, and it is float64"
    if scheme.format not in ("int", "fp8"):
        return f"SDNQ has no scales like those of {scheme.format}; use integers or fp8"
    if scheme.activation is not None or scheme.cache is not None:
        return "SDNQ leaves inputs and outputs as they are; use schemes of weights alone"
    if not scheme.symmetric and layer.dtype != "float32":
        return f"loading rounds zero points to {layer.dtype}; use symmetric schemes"
    if scheme.group is not None and math.prod(layer.kernel) != 1:
        return "SDNQ's groups of a convolution are channels at one place; use schemes without g"
    why = takes(layer, scheme)
    if why is None and scheme.bits in UNITS and layer.weights % UNITS[scheme.bits][0]:
        unit = UNITS[scheme.bits][0]
        why = f"SDNQ packs {unit} codes of {scheme.bits} bits together, and it has {layer.weights}"
    return why


def in_sdnq(layer: Layer, scheme: Scheme) -> Tensors:
    """The tensors of ``export_diffusers``; nothing of a weight that is shared."""
    if layer.shares is not None:
        return {}
    if str(scheme) == KEEP_WORD:
        return {"weight": (_DTYPES[layer.dtype], (layer.rows, layer.cols))}
    if scheme.format in _CASTS:
        return {"weight": (_CASTS[scheme.format], own_shape(layer))}
    own = "F16" if layer.dtype == "float32" else _DTYPES[layer.dtype]
    tensors: Tensors = {
        "weight": (_code_dtype(scheme), code_shape(layer, scheme)),
        "scale": (own, scale_shape(layer, scheme)),
    }
    if scheme.bits in UNITS:
        codes, bytes = UNITS[scheme.bits]
        units = layer.weights // codes
        tensors["weight"] = ("U8", (units,) if bytes == 1 else (units, bytes))
    if not scheme.symmetric:
        tensors["zero_point"] = ("F32", scale_shape(layer, scheme))
    return tensors


def own_shape(layer: Layer) -> tuple[int, ...]:
    """The shape of the module's weight."""
    return (layer.rows, layer.cols // math.prod(layer.kernel), *layer.kernel)


def groups(layer: Layer, scheme: Scheme) -> int:
    """Scales of one row."""
    return layer.cols // (scheme.group or layer.cols)


def code_shape(layer: Layer, scheme: Scheme) -> tuple[int, ...]:
    """The shape of the codes before they are packed: groups are a dimension, if there are two."""
    count = groups(layer, scheme)
    if count == 1:
        return own_shape(layer)
    return (layer.rows, count, layer.cols // count, *layer.kernel)


def scale_shape(layer: Layer, scheme: Scheme) -> tuple[int, ...]:
    """The shape of scales: 1 for what shares one, but places of a kernel have their own."""
    count = groups(layer, scheme)
    if count == 1:
        return (layer.rows, 1, *layer.kernel)
    return (layer.rows, count, 1, *layer.kernel)


def _code_dtype(scheme: Scheme) -> str:
    if scheme.format == "fp8":
        return "F8_E4M3"
    return "I8" if scheme.symmetric else "U8"
