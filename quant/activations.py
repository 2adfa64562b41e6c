"""Activations: what a layer's input becomes when it is quantized, or what is cached.

    x ≈ s · clamp(round(x / s), -2^(b-1), 2^(b-1) - 1)

Dynamic: s = max|x| / ((2^b - 1) / 2) over one token (the last dimension; one sample of a
convolution's input), in x's dtype, as compressed-tensors computes it. Static: one s a layer, from
the histogram of calibration magnitudes, by squared error. BOS-aware: the first token stays x, and
s is that of the others. Of a cache: dynamic, s over one head of one token. In groups of a token:
s = max|x| / (2^(b-1) - 1), as ONNX Runtime's MatMulNBits computes it at accuracy level 4. Floats:
float_activations.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bitfront.types import Activation

from .float_activations import least_error_step, on_float_grid, static_float
from .scales import integer_range
from .statistics import Histogram
from .suitability import TOKEN_KINDS
from .tokens import split_first
from .weights import QuantizedLayer


def fake_quantize(
    name: str, x: Tensor, activation: Activation, kind: str, step: Tensor | None
) -> Tensor:
    """``x`` rounded to ``activation``'s grid, in its dtype; gradients pass straight through.

    name, kind: the layer's. step: 0-dim float32, what ``calibrated`` gave a static one. Raises
    ``ModelError`` for an input without tokens where the first is to be left as it is.
    """
    if activation.bos:
        first, others = split_first(name, x)
        return torch.cat([first, _of_tokens(others, activation, kind, step)], -2)
    return _of_tokens(x, activation, kind, step)


def fake_cache(y: Tensor, bits: int, head: int) -> Tensor:
    """Keys or values ``y`` (..., heads · head), rounded per token and head, in their dtype.

    Gradients pass straight through.
    """
    return _rounded(y.unflatten(-1, (-1, head)), bits, "linear", None).flatten(-2)


def cache_error(q: QuantizedLayer | None, y: Tensor, bias: Tensor | None) -> Tensor | None:
    """What rounding adds to the outputs ``y`` (float32, without bias) of a layer under ``q``.

    None where nothing of it is cached in fewer bits.
    """
    if q is None or not q.head:
        return None
    assert q.weight.scheme.cache is not None
    whole = y if bias is None else y + bias.detach().float()
    return fake_cache(whole, q.weight.scheme.cache, q.head) - whole


def _of_tokens(x: Tensor, activation: Activation, kind: str, step: Tensor | None) -> Tensor:
    if activation.format != "int":
        return _StraightThrough.apply(x, lambda x: on_float_grid(x, activation, step))
    if activation.group is None:
        return _rounded(x, activation.bits, kind, step)
    parts = x.unflatten(-1, (-1, activation.group))
    _, most = integer_range(activation.bits, symmetric=True)
    steps = _positive(parts.detach().abs().amax(-1, keepdim=True) / most)
    return _rounded(parts, activation.bits, kind, steps).flatten(-2)


def _rounded(x: Tensor, bits: int, kind: str, step: Tensor | None) -> Tensor:
    s = _dynamic_step(x, bits, kind) if step is None else step.to(x)
    lo, hi = integer_range(bits, symmetric=True)
    return _StraightThrough.apply(x, lambda x: (x / s).round_().clamp_(lo, hi).mul_(s))


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rounded: Callable[[Tensor], Tensor]) -> Tensor:
        return rounded(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def calibrated(magnitudes: Histogram, activation: Activation) -> Tensor:
    """The number (0-dim float32) of a static activation."""
    if activation.format != "int":
        return static_float(magnitudes, activation.format)
    return static_step(magnitudes, activation.bits)


def static_step(magnitudes: Histogram, bits: int) -> Tensor:
    """The step (0-dim float32) of least squared error over the histogram; 1 if all inputs are 0."""
    _, hi = integer_range(bits, symmetric=True)
    return least_error_step(magnitudes, hi, lambda x: x.round_().clamp_(max=hi))


def _dynamic_step(x: Tensor, bits: int, kind: str) -> Tensor:
    x = x.detach()
    dims = -1 if kind in TOKEN_KINDS else tuple(range(1, x.ndim))
    return _positive(x.abs().amax(dims, keepdim=True) / (((1 << bits) - 1) / 2))


def _positive(s: Tensor) -> Tensor:
    return torch.where(s > 0, s, torch.finfo(s.dtype).eps)
