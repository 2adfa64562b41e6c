"""In which form a layer stands in an ONNX graph, and in what tensors. Imported without torch.

form      weights                                  inputs        nodes
float     as they are                              as they are   MatMul, Conv, ConvTranspose, Gather
blocked   2, 4, 8 bits in groups of 16, 32, ...    as they are   MatMulNBits
                                                   (4 bits), a8g
integer   to 8 bits, symmetric, one scale a row    a8, a8s,      QuantizeLinear,
                                                   a8sz          MatMulIntegerToFloat
rounded   the same, of a convolution               a8so, a8szo   QuantizeLinear, QLinearConv,
                                                                 DequantizeLinear
folded    codes and scales, or 16-bit floats       as they are   Cast, Mul: the runtime does them
                                                                 once, when it loads; then as float

These are what ONNX Runtime (1.32) computes on a CPU as a trial does, and not slower than float32;
docs/export.md has figures. Codes of 2 to 4 bits stand in 4 (``blocked``: in their own width), wider
ones in 8, scales in 16. Tensors are counted as bytes: two codes of 4 bits are one ``U8``.
"""

from __future__ import annotations

import math

from bitfront.scheme import KEEP as KEEP_WORD
from bitfront.types import Layer, Scheme

from .suitability import TOKEN_KINDS, takes

BLOCK_BITS = (2, 4, 8)
LEAST_BLOCK = 16
_CASTS = {"bf16": "BF16", "fp16": "F16"}

Tensors = dict[str, tuple[str, tuple[int, ...]]]


def form_of(layer: Layer, scheme: Scheme) -> str | None:
    """The form of ``layer`` under ``scheme``; None where there is none (``reason``)."""
    return next((name for name, why in _reasons(layer, scheme).items() if why is None), None)


def reason(layer: Layer, scheme: Scheme) -> str | None:
    """Why ``layer`` under ``scheme`` has no form; None if it has one."""
    reasons = _reasons(layer, scheme)
    if None in reasons.values():
        return None
    if len(reasons) == 1:
        return reasons.popitem()[1]
    activation = scheme.activation
    if activation is None:
        return reasons["folded"]
    if activation.group is not None:
        return reasons["blocked"]
    return reasons["integer" if layer.kind in TOKEN_KINDS else "rounded"]


def in_onnx(layer: Layer, scheme: Scheme) -> Tensors:
    """The layer's own tensors: bias, constants and sizes of shapes excluded."""
    if layer.shares is not None:
        return {}
    form = form_of(layer, scheme)
    if form == "float":
        return {"weight": ("F32", (layer.rows, layer.cols))}
    if scheme.format in _CASTS:
        return {"weight": (_CASTS[scheme.format], (layer.rows, layer.cols))}
    tensors: Tensors = {"codes": ("U8", (_code_bytes(layer.weights, scheme),))}
    count = layer.cols // (scheme.group or layer.cols)
    tensors["scale"] = ("F16", (layer.rows, count))
    if form == "blocked":
        tensors["codes"] = ("U8", (layer.weights * scheme.bits // 8,))
    if not scheme.symmetric:
        packed = layer.rows * math.ceil(count * scheme.bits / 8)
        size = packed if form == "blocked" else _code_bytes(layer.rows * count, scheme)
        tensors["zero"] = ("U8", (size,))
    activation = scheme.activation
    if activation is not None and activation.static:
        for part in ("", "output_") if activation.output else ("",):
            tensors[f"{part}step"] = ("F32", ())
            if not activation.symmetric:
                tensors[f"{part}offset"] = ("U8", ())
    return tensors


def core_of(layer: Layer, scheme: Scheme) -> tuple[str, dict[str, int]]:
    """The operator that computes a layer, and the attributes that say its precision."""
    form = form_of(layer, scheme)
    if form == "blocked":
        assert scheme.group is not None
        level = 0 if scheme.activation is None else 4
        return "MatMulNBits", {
            "bits": scheme.bits, "block_size": scheme.group, "accuracy_level": level
        }  # fmt: skip
    if form == "integer":
        return "MatMulIntegerToFloat", {}
    if form == "rounded":
        return "QLinearConv", {}
    if layer.kind == "embedding":
        return "Gather", {}
    if layer.kind in TOKEN_KINDS:
        return "MatMul", {}
    return "ConvTranspose" if layer.kind.startswith("conv_transpose") else "Conv", {}


def _code_bytes(count: int, scheme: Scheme) -> int:
    return math.ceil(count / 2) if scheme.bits <= 4 else count


def _reasons(layer: Layer, scheme: Scheme) -> dict[str, str | None]:
    """Form -> why not, the better ones first; one entry where none is possible."""
    why = takes(layer, scheme)
    if why is None and layer.dtype != "float32":
        why = f"ONNX Runtime's CPU kernels are float32, and the layer is {layer.dtype}"
    if why is None and scheme.cache is not None:
        why = "these files say nothing of a cache; use safetensors"
    if why is None and layer.beyond_lookup and scheme.format != KEEP_WORD:
        why = "its embedding does more than look rows up, which a graph has in full precision only"
    if why is not None:
        return {"any": why}
    return {
        "float": None if scheme.format == KEEP_WORD else "it is quantized",
        "blocked": _not_blocked(layer, scheme),
        "integer": _not_integer(layer, scheme),
        "rounded": _not_rounded(layer, scheme),
        "folded": _not_folded(scheme),
    }


def _not_blocked(layer: Layer, scheme: Scheme) -> str | None:
    if layer.shares is not None:
        return _twice(layer)
    if layer.kind not in TOKEN_KINDS:
        return f"MatMulNBits is no {layer.kind}"
    if scheme.format != "int" or scheme.bits not in BLOCK_BITS:
        return "MatMulNBits has weights of 2, 4 and 8 bits"
    size = scheme.group
    if size is None or size < LEAST_BLOCK or size & (size - 1):
        return "MatMulNBits has groups of 16, 32, 64 and so on"
    activation = scheme.activation
    if activation is None:
        return None if scheme.bits == 4 else "without a8g it is fast for weights of 4 bits only"
    if activation.group is None or activation.bits != 8 or activation.bos:
        return "MatMulNBits rounds inputs as a8g"
    if scheme.bits == 2 and size == LEAST_BLOCK:
        return "MatMulNBits leaves inputs as they are for weights of 2 bits in groups of 16"
    return None


def _twice(layer: Layer) -> str:
    return f"its weight is tied to {layer.shares!r}, which it would stand beside in another layout"


def _not_integer(layer: Layer, scheme: Scheme) -> str | None:
    if layer.shares is not None:
        return _twice(layer)
    if layer.kind not in TOKEN_KINDS:
        return f"a {layer.kind} is no product of matrices"
    if scheme.format != "int" or not scheme.symmetric or scheme.group is not None:
        return "integer products take symmetric weights with one scale for a row"
    activation = scheme.activation
    if activation is None or activation.bits != 8 or activation.bos or activation.group:
        return "integer products take inputs of 8 bits, a8 or a8s"
    if activation.output:
        return f"integer products of a {layer.kind} leave its outputs as they are; use it without o"
    return None


def _not_rounded(layer: Layer, scheme: Scheme) -> str | None:
    if layer.kind not in ("conv1d", "conv2d"):
        return f"ONNX Runtime has no integer {layer.kind}"
    if layer.shares is not None:
        return _twice(layer)
    if scheme.format != "int" or not scheme.symmetric or scheme.group is not None:
        return "integer convolutions take symmetric weights with one scale for a row"
    activation = scheme.activation
    if activation is None or activation.bits != 8 or not activation.output:
        return "integer convolutions round outputs as well as inputs, to 8 bits: a8so or a8szo"
    return None


def _not_folded(scheme: Scheme) -> str | None:
    if scheme.format in _CASTS:
        return None
    if scheme.format != "int":
        return f"ONNX Runtime has no {scheme}; use integers, bf16 or fp16"
    return None if scheme.activation is None else "its inputs are as they are"
