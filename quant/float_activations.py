"""Float activations: a layer's input on the grid of a float format, as compressed-tensors has it.

    fp8            x ≈ s · E4M3(x / s)             s = max|x| / 448 of a token, in x's dtype; static
    nvfp4          x ≈ (s / t) · E2M1(x · t / s)   s = E4M3(t · max|x| / 6) of 16 inputs, t static
    mxfp4, mxfp8   x ≈ 2^e · V(x / 2^e)            e = k - top(V) of 32 inputs, 2^k the power of two
                                                   below max|x|, the next from 1.75 · 2^k on;
                                                   V = E2M1, E4M3; top = 2, 8

E2M1 rounds ties to even codes. ``nvfp4`` is float32 inside and rounded once to x's dtype; powers of
two are exact. Static: from the histogram of calibration magnitudes, the fp8 step by squared error,
t so that the largest of them has the largest scale, 448 · 6 / max|x|.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bitfront.types import Activation

from .floats import E2M1, E4M3_MAX, nearest_e2m1
from .statistics import BINS, Histogram

CLIPS = tuple(0.96**i for i in range(120))  # of the largest magnitude, down to 0.8 %
_EXPONENTS = {"mxfp4": 2, "mxfp8": 8}  # of the largest element
_ZERO_SCALE = 0.125  # stands for a group's scale that E4M3 rounds to 0


def on_float_grid(x: Tensor, activation: Activation, static: Tensor | None) -> Tensor:
    """``x`` (..., K) rounded, in its dtype. static: 0-dim float32, what calibration gave."""
    if activation.format == "fp8":
        return _fp8(x, static)
    assert activation.group is not None
    parts = x.unflatten(-1, (-1, activation.group))
    if activation.format == "nvfp4":
        assert static is not None
        return _nvfp4(parts, static.to(x.device)).flatten(-2)
    return _mx(parts, activation.format).flatten(-2)


def least_error_step(
    magnitudes: Histogram, top_code: float, nearest: Callable[[Tensor], Tensor]
) -> Tensor:
    """The step (0-dim float32) of least squared error over the histogram; 1 if all inputs are 0.

    nearest: the grid of step 1, of float64 numbers from 0 on. top_code: its largest.
    """
    counts = magnitudes.counts.double()
    if not magnitudes.width:
        return torch.tensor(1.0)
    x = (torch.arange(BINS, dtype=torch.float64) + 0.5) * magnitudes.width
    top = float(x[counts > 0][-1])
    steps = torch.tensor(CLIPS, dtype=torch.float64)[:, None] * (top / top_code)
    errors = (nearest(x / steps) * steps - x).square() @ counts
    return steps[errors.argmin(), 0].float()


def static_float(magnitudes: Histogram, format: str) -> Tensor:
    """What calibration gives a static activation in ``format`` (0-dim float32)."""
    if format == "fp8":
        return least_error_step(magnitudes, E4M3_MAX, lambda x: _e4m3(x).double())
    if not magnitudes.width:
        return torch.tensor(1.0)
    top = (float(magnitudes.counts.nonzero()[-1]) + 1) * magnitudes.width  # its bin's upper end
    return torch.tensor(min(E4M3_MAX * E2M1[-1] / top, torch.finfo(torch.float32).max))


def _fp8(x: Tensor, static: Tensor | None) -> Tensor:
    if static is None:
        s = x.abs().amax(-1, keepdim=True) / E4M3_MAX
        s = torch.where(s > 0, s, torch.finfo(s.dtype).eps)
    else:
        s = static.to(x)
    return _e4m3(x / s).to(x.dtype).mul_(s)


def _nvfp4(parts: Tensor, t: Tensor) -> Tensor:
    s = _e4m3(t * (parts.abs().amax(-1, keepdim=True) / E2M1[-1]).float()).float()
    step = torch.where(s > 0, s, _ZERO_SCALE) / t
    return nearest_e2m1(parts.float() / step).mul_(step).to(parts.dtype)


def _mx(parts: Tensor, format: str) -> Tensor:
    # frexp: top = m · 2^x with m in [0.5, 1)
    m, x = torch.frexp(parts.abs().amax(-1, keepdim=True).float())
    biased = (x + (m >= 0.875) - 1 - _EXPONENTS[format] + 127).clamp(0, 254)
    # a float32's exponent field; 2^-127, of field 0, is its upper bit of fraction
    power = torch.where(biased > 0, biased << 23, 1 << 22).to(torch.int32).view(torch.float32)
    scaled = parts.float() / power
    rounded = nearest_e2m1(scaled) if format == "mxfp4" else _e4m3(scaled).float()
    return rounded.mul_(power).to(parts.dtype)


def _e4m3(x: Tensor) -> Tensor:
    return x.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
