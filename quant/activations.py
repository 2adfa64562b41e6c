"""Activations: what a layer's input or output becomes when it is quantized, or is cached.

    x ≈ s · clamp(round(x / s), -z, 2^b - 1 - z)        z = 2^(b-1) unless there is a zero point

Dynamic: s = max|x| / ((2^b - 1) / 2) over one token (the last dimension; one sample of a
convolution's input), in x's dtype, as compressed-tensors computes it. Static: one s a layer, from
the histogram of calibration magnitudes, by squared error; with a zero point, the ends of the range
so. Outputs: rounded with their bias, which is rounded before to int32 with the scale of the
products, as ONNX's QLinearConv does. BOS-aware: the first token stays x, and
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

from .float_activations import CLIPS, least_error_step, on_float_grid, static_float
from .scales import integer_range
from .statistics import BINS, Histogram
from .suitability import TOKEN_KINDS
from .tokens import split_first
from .weights import QuantizedLayer

BIAS = 1 << 30  # of codes of a bias, so that sums with products of 8 bits stay within 32


def fake_quantize(
    name: str,
    x: Tensor,
    activation: Activation,
    kind: str,
    step: Tensor | None,
    zero: int | None = None,
) -> Tensor:
    """``x`` rounded to ``activation``'s grid, in its dtype; gradients pass straight through.

    name, kind: the layer's. step: 0-dim float32, what ``calibrated`` gave a static one. zero: the
    code of 0, None for a symmetric grid. Raises ``ModelError`` for an input without tokens where
    the first is to be left as it is.
    """
    if activation.bos:
        first, others = split_first(name, x)
        return torch.cat([first, _of_tokens(others, activation, kind, step, zero)], -2)
    return _of_tokens(x, activation, kind, step, zero)


def fake_output(q: QuantizedLayer, y: Tensor, bias: Tensor | None, axis: int) -> Tensor:
    """Outputs ``y`` of a layer under ``q``, which rounds them, bias included; in their dtype.

    axis: of channels. Gradients pass straight through.
    """
    activation = q.weight.scheme.activation
    assert activation is not None
    assert q.output_scale is not None
    y = biased(q, y, bias, axis)
    return _rounded(y, activation.bits, "", q.output_scale, q.output_zero)


def biased(q: QuantizedLayer, y: Tensor, bias: Tensor | None, axis: int) -> Tensor:
    """Outputs ``y`` with the bias as it is rounded, where they have it as it is."""
    if bias is None:
        return y
    change = rounded_bias(q, bias)[1].to(bias) - bias.detach()
    return y + change.reshape(-1, *[1] * (-1 - axis))


def rounded_bias(q: QuantizedLayer, bias: Tensor) -> tuple[Tensor, Tensor]:
    """``bias`` (rows,) as int32 codes, and the values that these stand for (float32)."""
    assert q.weight.scale is not None
    assert q.input_scale is not None
    unit = (q.weight.scale[:, 0].float() * q.input_scale.to(q.weight.scale.device)).double()
    codes = (bias.detach().double() / unit.to(bias.device)).round_().clamp_(-BIAS, BIAS)
    return codes.int(), (codes * unit.to(bias.device)).float()


def fake_cache(y: Tensor, bits: int, head: int) -> Tensor:
    """Keys or values ``y`` (..., heads · head), rounded per token and head, in their dtype.

    Gradients pass straight through.
    """
    return _rounded(y.unflatten(-1, (-1, head)), bits, "linear", None).flatten(-2)


def output_error(q: QuantizedLayer | None, y: Tensor, bias: Tensor | None) -> Tensor | None:
    """What rounding adds to the outputs ``y`` (..., rows), float32, without bias, of a layer.

    None where they are left as they are, and so is what is cached.
    """
    if not rounds_output(q):
        return None
    assert q is not None
    bias = None if bias is None else bias.detach().float()
    whole = y if bias is None else y + bias
    if q.output_scale is not None:
        return fake_output(q, whole, bias, -1) - whole
    assert q.weight.scheme.cache is not None
    return fake_cache(whole, q.weight.scheme.cache, q.head) - whole


def rounds_output(q: QuantizedLayer | None) -> bool:
    """Whether a layer's outputs are not those of its weights and inputs alone."""
    return q is not None and (q.head > 0 or q.output_scale is not None)


def _of_tokens(
    x: Tensor, activation: Activation, kind: str, step: Tensor | None, zero: int | None
) -> Tensor:
    if activation.format != "int":
        return _StraightThrough.apply(x, lambda x: on_float_grid(x, activation, step))
    if activation.group is None:
        return _rounded(x, activation.bits, kind, step, zero)
    parts = x.unflatten(-1, (-1, activation.group))
    _, most = integer_range(activation.bits, symmetric=True)
    steps = _positive(parts.detach().abs().amax(-1, keepdim=True) / most)
    return _rounded(parts, activation.bits, kind, steps).flatten(-2)


def _rounded(
    x: Tensor, bits: int, kind: str, step: Tensor | None, zero: int | None = None
) -> Tensor:
    s = _dynamic_step(x, bits, kind) if step is None else step.to(x)
    z = 1 << (bits - 1) if zero is None else zero
    lo, hi = -z, (1 << bits) - 1 - z
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


def static_grid(found: Histogram, activation: Activation) -> tuple[Tensor, int | None]:
    """Step (0-dim float32) and code of 0 of a static grid, the latter None where it is symmetric.

    With a zero point the ends of [least, greatest], 0 included, are drawn in together and then one
    after the other, as far as that lessens the squared error. They are edges of bins, so that a
    ceiling that is such an edge, 6 of ReLU6, is not exceeded.
    """
    if activation.symmetric:
        return calibrated(found, activation), None
    levels = (1 << activation.bits) - 1
    if not found.width:
        return torch.tensor(1.0), 0
    x = (torch.arange(BINS, dtype=torch.float64) + 0.5) * found.width
    counts = torch.cat([found.negative.flip(0), found.counts - found.negative]).double()
    x = torch.cat([-x.flip(0), x])[counts > 0]
    counts = counts[counts > 0]
    clips = torch.tensor(CLIPS, dtype=torch.float64)[:, None]
    half = found.width / 2
    lo, hi = (x[:1] + half).clamp(max=0), (x[-1:] - half).clamp(min=0)

    def best(lo: Tensor, hi: Tensor) -> int:
        steps = (hi - lo) / levels
        zeros = (-lo / steps).round_()
        codes = torch.minimum(torch.maximum((x / steps).round_(), -zeros), levels - zeros)
        return int(((codes * steps - x).square() @ counts).argmin())

    clip = clips[best(clips * lo, clips * hi)]
    lo, hi = clip * lo, clip * hi
    for _ in range(2 if lo and hi else 0):
        hi = clips[best(lo.expand_as(clips), clips * hi)] * hi
        lo = clips[best(clips * lo, hi.expand_as(clips))] * lo
    step = (hi - lo)[0] / levels
    return step.float(), int((-lo[0] / step).round())


def _dynamic_step(x: Tensor, bits: int, kind: str) -> Tensor:
    x = x.detach()
    dims = -1 if kind in TOKEN_KINDS else tuple(range(1, x.ndim))
    return _positive(x.abs().amax(dims, keepdim=True) / (((1 << bits) - 1) / 2))


def _positive(s: Tensor) -> Tensor:
    return torch.where(s > 0, s, torch.finfo(s.dtype).eps)
