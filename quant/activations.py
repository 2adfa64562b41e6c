"""Integer activations: what a layer's input becomes when it is quantized, or what is cached.

    x ≈ s · clamp(round(x / s), -2^(b-1), 2^(b-1) - 1)

Dynamic: s = max|x| / ((2^b - 1) / 2) over one token (the last dimension; one sample of a
convolution's input), in x's dtype, as compressed-tensors computes it. Static: one s a layer, from
the histogram of calibration magnitudes, by squared error. BOS-aware: the first token stays x, and
s is that of the others. Of a cache: dynamic, s over one head of one token. In groups of a token:
s = max|x| / (2^(b-1) - 1), as ONNX Runtime's MatMulNBits computes it at accuracy level 4.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bitfront.types import Activation

from .scales import integer_range
from .statistics import BINS, Histogram
from .suitability import TOKEN_KINDS
from .tokens import split_first
from .weights import QuantizedLayer

CLIPS = tuple(0.96**i for i in range(120))  # of the largest magnitude, down to 0.8 %


def fake_quantize(
    name: str, x: Tensor, activation: Activation, kind: str, step: Tensor | None
) -> Tensor:
    """``x`` rounded to ``activation``'s grid, in its dtype; gradients pass straight through.

    name, kind: the layer's. step: 0-dim float32, for static activations only. Raises
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
    if activation.group is None:
        return _rounded(x, activation.bits, kind, step)
    parts = x.unflatten(-1, (-1, activation.group))
    _, most = integer_range(activation.bits, symmetric=True)
    steps = _positive(parts.detach().abs().amax(-1, keepdim=True) / most)
    return _rounded(parts, activation.bits, kind, steps).flatten(-2)


def _rounded(x: Tensor, bits: int, kind: str, step: Tensor | None) -> Tensor:
    s = _dynamic_step(x, bits, kind) if step is None else step.to(x)
    lo, hi = integer_range(bits, symmetric=True)
    return _StraightThrough.apply(x, s, lo, hi)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, s: Tensor, lo: int, hi: int) -> Tensor:
        return (x / s).round_().clamp_(lo, hi).mul_(s)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return grad, None, None, None


def static_step(magnitudes: Histogram, bits: int) -> Tensor:
    """The step (0-dim float32) of least squared error over the histogram; 1 if all inputs are 0."""
    counts = magnitudes.counts.double()
    if not magnitudes.width:
        return torch.tensor(1.0)
    x = (torch.arange(BINS, dtype=torch.float64) + 0.5) * magnitudes.width
    top = float(x[counts > 0][-1])
    _, hi = integer_range(bits, symmetric=True)
    steps = torch.tensor(CLIPS, dtype=torch.float64)[:, None] * (top / hi)
    errors = ((x / steps).round_().clamp_(max=hi) * steps - x).square() @ counts
    return steps[errors.argmin(), 0].float()


def _dynamic_step(x: Tensor, bits: int, kind: str) -> Tensor:
    x = x.detach()
    dims = -1 if kind in TOKEN_KINDS else tuple(range(1, x.ndim))
    return _positive(x.abs().amax(dims, keepdim=True) / (((1 << bits) - 1) / 2))


def _positive(s: Tensor) -> Tensor:
    return torch.where(s > 0, s, torch.finfo(s.dtype).eps)
