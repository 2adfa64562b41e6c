"""A quantized layer as the tensors of a file, and back.

suffix                holds
weight_codes          (rows, bytes): integers and 4-bit floats packed densely by row; other
                      floats (rows, cols) as they are; GGUF's blocks byte for byte
weight_scale          (rows, groups)
weight_zero           (rows, bytes): zero points packed like the codes, asymmetric schemes only
weight_tensor_scale   (), nvfp4 only
input_scale           (), static activations only
input_zero            (), static activations with a zero point only
output_scale          (), rounded outputs only
output_zero           (), rounded outputs with a zero point only
weight                a kept weight, unchanged
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bitfront.types import Layer, Scheme

from .ggml_types import is_block
from .packing import pack, to_signed, to_unsigned, unpack
from .stored import WIDE_CODES, groups
from .weights import QuantizedLayer, QuantizedWeight


def to_tensors(layer: Layer, quantized: QuantizedLayer) -> dict[str, Tensor]:
    """The tensors of ``stored.in_safetensors``."""
    q, tensors = quantized.weight, {}
    scheme = q.scheme
    if layer.shares is None:
        if scheme.format in WIDE_CODES or is_block(scheme):
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
    for part in ("input", "output"):
        scale, zero = getattr(quantized, f"{part}_scale"), getattr(quantized, f"{part}_zero")
        if scale is not None:
            tensors[f"{part}_scale"] = scale
        if zero is not None:
            tensors[f"{part}_zero"] = torch.tensor(zero, dtype=torch.uint8)
    return tensors


def from_tensors(layer: Layer, scheme: Scheme, tensors: Mapping[str, Tensor]) -> QuantizedLayer:
    """The quantized layer that ``to_tensors`` was given (``layer`` owns its weight)."""
    codes, zero = tensors["weight_codes"], tensors.get("weight_zero")
    if scheme.format not in WIDE_CODES and not is_block(scheme):
        codes = unpack(codes, scheme.bits, layer.cols)
        if scheme.format == "int" and scheme.symmetric:
            codes = to_signed(codes, scheme.bits)
    if zero is not None:
        zero = unpack(zero, scheme.bits, groups(layer, scheme))
    weight = QuantizedWeight(
        scheme, codes, tensors.get("weight_scale"), zero, tensors.get("weight_tensor_scale")
    )
    return with_grids(QuantizedLayer(weight), tensors)


def with_grids(layer: QuantizedLayer, tensors: Mapping[str, Tensor]) -> QuantizedLayer:
    """``layer`` with the grids of inputs and outputs that are among ``tensors``."""
    input_zero, output_zero = tensors.get("input_zero"), tensors.get("output_zero")
    return replace(
        layer,
        input_scale=tensors.get("input_scale"),
        input_zero=None if input_zero is None else int(input_zero),
        output_scale=tensors.get("output_scale"),
        output_zero=None if output_zero is None else int(output_zero),
    )
