"""A quantized layer as the tensors of a file, and back.

suffix                holds
weight_codes          (rows, bytes): integers and 4-bit floats packed densely by row; other
                      floats (rows, cols) as they are
weight_scale          (rows, groups)
weight_zero           (rows, bytes): zero points packed like the codes, asymmetric schemes only
weight_tensor_scale   (), nvfp4 only
input_scale           (), static activations only
weight                a kept weight, unchanged
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from bitfront.types import Layer, Scheme

from .export_base import KEEP, Stored, torch_dtype
from .packing import pack, packed_bytes, to_signed, to_unsigned, unpack
from .tensorfiles import dtype_name
from .weights import QuantizedLayer, QuantizedWeight, scale_dtype

_WIDE_CODES = {"bf16": "BF16", "fp16": "F16", "fp8": "F8_E4M3"}  # stored as they are
_SCALES = {"mxfp4": "U8", "nvfp4": "F8_E4M3"}  # others: scale_dtype of the weights


def stored(layer: Layer, scheme: Scheme) -> Stored:
    """What stands in the file for a layer, see ``Exporter.stored``."""
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    if layer.shares is None:
        tensors |= _weight(layer, scheme)
    if scheme.activation is not None and scheme.activation.static:
        tensors["input_scale"] = ("F32", ())
    return tensors


def to_tensors(layer: Layer, quantized: QuantizedLayer) -> dict[str, Tensor]:
    """The tensors of ``stored``."""
    q, tensors = quantized.weight, {}
    scheme = q.scheme
    if layer.shares is None:
        if scheme.format in _WIDE_CODES:
            tensors["weight_codes"] = q.codes
        else:
            signed = scheme.format == "int" and scheme.symmetric
            codes = to_unsigned(q.codes, scheme.bits) if signed else q.codes
            tensors["weight_codes"] = pack(codes, scheme.bits)
        if q.scale is not None:
            tensors["weight_scale"] = q.scale
        if q.zero is not None:
            tensors["weight_zero"] = pack(q.zero, scheme.bits)
        if q.tensor_scale is not None:
            tensors["weight_tensor_scale"] = q.tensor_scale
    if quantized.input_scale is not None:
        tensors["input_scale"] = quantized.input_scale
    return tensors


def from_tensors(layer: Layer, scheme: Scheme, tensors: Mapping[str, Tensor]) -> QuantizedLayer:
    """The quantized layer that ``to_tensors`` was given (``layer`` owns its weight)."""
    codes, zero = tensors["weight_codes"], tensors.get("weight_zero")
    if scheme.format not in _WIDE_CODES:
        codes = unpack(codes, scheme.bits, layer.cols)
        if scheme.format == "int" and scheme.symmetric:
            codes = to_signed(codes, scheme.bits)
    if zero is not None:
        zero = unpack(zero, scheme.bits, groups(layer, scheme))
    weight = QuantizedWeight(
        scheme, codes, tensors.get("weight_scale"), zero, tensors.get("weight_tensor_scale")
    )
    return QuantizedLayer(weight, tensors.get("input_scale"))


def groups(layer: Layer, scheme: Scheme) -> int:
    """Scales of one row."""
    return layer.cols // (scheme.group or layer.cols)


def scale_name(layer: Layer, scheme: Scheme) -> str:
    """The safetensors dtype of a layer's scales."""
    return _SCALES.get(scheme.format) or dtype_name(scale_dtype(torch_dtype(layer)))


def _weight(layer: Layer, scheme: Scheme) -> Stored:
    rows, cols = layer.rows, layer.cols
    if scheme == KEEP:
        return {"weight": (dtype_name(torch_dtype(layer)), (rows, cols))}
    if scheme.format in _WIDE_CODES:
        tensors = {"weight_codes": (_WIDE_CODES[scheme.format], (rows, cols))}
    else:
        tensors = {"weight_codes": ("U8", (rows, packed_bytes(cols, scheme.bits)))}
    if scheme.format not in ("bf16", "fp16"):
        tensors["weight_scale"] = (scale_name(layer, scheme), (rows, groups(layer, scheme)))
    if not scheme.symmetric:
        width = packed_bytes(groups(layer, scheme), scheme.bits)
        tensors["weight_zero"] = ("U8", (rows, width))
    if scheme.format == "nvfp4":
        return {**tensors, "weight_tensor_scale": ("F32", ())}
    return tensors
