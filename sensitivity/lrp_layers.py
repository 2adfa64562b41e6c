"""Layers as affine maps, as rules of relevance see them; with a batch norm behind them as one map.

M (rows, cols)   weight matrix (quant/layers.py)     b   bias
s, t (rows,)     y s + t is what a batch norm in evaluation mode makes of y
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from bitfront.quant.layers import adapter_of


@dataclass(frozen=True, eq=False)
class Affine:
    """A layer as y = apply(x, M) + b.

    apply: linear in x, and in M (rows, cols). b: broadcasts against y, or None.
    """

    apply: Callable[[Tensor, Tensor], Tensor]
    M: Tensor
    b: Tensor | None


def affine(module: Any) -> Affine:
    """A layer as an affine map, in float32 or its own wider dtype."""
    adapter = adapter_of(module)
    M = adapter.matrix(module)
    wide = torch.promote_types(M.dtype, torch.float32)
    b = None if module.bias is None else module.bias.detach().to(wide)
    if b is not None and adapter.kind.startswith("conv"):
        b = b.reshape(-1, *[1] * (module.weight.dim() - 2))  # channels come before positions

    def apply(x: Tensor, M: Tensor) -> Tensor:
        return adapter.apply(module, x, M)

    return Affine(apply, M.to(wide), b)


def merged(layer: Affine, norm: _BatchNorm, y: Tensor) -> Affine:
    """A layer with output ``y`` and the batch norm behind it, in evaluation mode, as one layer."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    wide = layer.M.dtype
    s = torch.rsqrt(norm.running_var.to(wide) + norm.eps)
    if norm.weight is not None:
        s = s * norm.weight.detach().to(wide)
    t = -norm.running_mean.to(wide) * s
    if norm.bias is not None:
        t = t + norm.bias.detach().to(wide)
    shape = (-1, *[1] * (y.dim() - 2))
    b = t.reshape(shape) if layer.b is None else layer.b * s.reshape(shape) + t.reshape(shape)
    return Affine(layer.apply, layer.M * s[:, None], b)
