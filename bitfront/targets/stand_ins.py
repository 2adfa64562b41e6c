"""Weights that stand in for quantized ones where only time counts: drawn, not quantized."""

from __future__ import annotations

import torch
from torch import nn

from bitfront.quant.scales import integer_range
from bitfront.quant.stored import KEEP, groups
from bitfront.quant.surgery import original
from bitfront.quant.weights import QuantizedLayer, QuantizedWeight
from bitfront.types import Layer, Scheme

STEP = 0.05  # of a static activation
CASTS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def stand_in(layer: Layer, module: nn.Module, scheme: Scheme) -> QuantizedLayer:
    """A layer as if quantized, with outputs of the size of its inputs; the same each time."""
    if scheme == KEEP:
        return QuantizedLayer(QuantizedWeight(scheme, original(layer.name, module)))
    generator = torch.Generator().manual_seed(0)
    shape = (layer.rows, layer.cols)
    if scheme.format in CASTS:
        weight = torch.randn(shape, generator=generator) / layer.cols**0.5
        return QuantizedLayer(QuantizedWeight(scheme, weight.to(CASTS[scheme.format])))
    low, high = integer_range(scheme.bits, scheme.symmetric)
    dtype = torch.int8 if scheme.symmetric else torch.uint8
    codes = torch.randint(low, high + 1, shape, generator=generator, dtype=dtype)
    count = groups(layer, scheme)
    scale = torch.full((layer.rows, count), 2.0 / (high - low) / layer.cols**0.5)
    zero = None
    if not scheme.symmetric:
        zero = torch.full((layer.rows, count), (high + 1) // 2, dtype=torch.uint8)
    weight, activation = QuantizedWeight(scheme, codes, scale.half(), zero), scheme.activation
    if activation is None or not activation.static:
        return QuantizedLayer(weight)
    # what a ReLU lets through begins at 0: a runtime drops what stands between two such layers
    step, low_end = torch.tensor(STEP), None if activation.symmetric else 0
    if not activation.output:
        return QuantizedLayer(weight, step, input_zero=low_end)
    middle = None if activation.symmetric else 1 << (activation.bits - 1)
    return QuantizedLayer(weight, step, 0, low_end, step, low_end if layer.rectified else middle)
