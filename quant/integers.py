"""Integer weights: symmetric codes around 0, or asymmetric ones with integer zero points.

    w ≈ s·q          q in [-2^(b-1), 2^(b-1) - 1]
    w ≈ s·(q - z)    q and z in [0, 2^b - 1]

A product of a code (8 bits; 9 with a zero point) and a 16-bit scale is exact in float32, so the one
rounding is the last cast. compressed-tensors multiplies in the scale's own dtype, which rounds the
same exact product once: the weights are the very same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bitfront.types import Scheme

from .scales import asymmetric_scales, encode, integer_range, slices, symmetric_scales
from .weights import QuantizedWeight, scale_dtype

_BLOCK = 1 << 24  # weights in float32 at a time, so that a large embedding takes no copy of itself


class Integers:
    """Codes of 2 to 8 bits, one scale per row or per ``scheme.group`` columns."""

    def quantize(self, M: Tensor, scheme: Scheme) -> QuantizedWeight:
        codes = torch.empty(M.shape, dtype=_code_dtype(scheme), device=M.device)
        scale, zero = grid(M, scheme)
        for rows in slices(M, _BLOCK):
            z = None if zero is None else zero[rows]
            codes[rows] = nearest(M[rows].float(), scheme, scale[rows], z).to(codes.dtype)
        return QuantizedWeight(scheme, codes, scale, zero)

    def dequantize(self, q: QuantizedWeight) -> Tensor:
        assert q.scale is not None
        p = grouped(q.codes, q.scheme).float()
        if q.zero is not None:
            p = p - q.zero.unsqueeze(-1)
        return (p * q.scale.float().unsqueeze(-1)).flatten(1)


def grid(M: Tensor, scheme: Scheme, v: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Scale (rows, groups) and, for asymmetric schemes, zero point, of least squared error.

    M: (rows, cols). v: (rows, cols) or (1, cols), what each squared error counts.
    """
    w = grouped(M, scheme)
    importance = None if v is None else grouped(v.float(), scheme)
    dtype = scale_dtype(M.dtype)
    if scheme.symmetric:
        return symmetric_scales(w, scheme.bits, dtype, importance), None
    return asymmetric_scales(w, scheme.bits, dtype, importance)


def nearest(M: Tensor, scheme: Scheme, scale: Tensor, zero: Tensor | None) -> Tensor:
    """Codes (rows, cols) of float32 ``M``, as floats."""
    lo, hi = integer_range(scheme.bits, scheme.symmetric)
    z = None if zero is None else zero.unsqueeze(-1)
    return encode(grouped(M, scheme), scale.float().unsqueeze(-1), z, lo, hi).flatten(1)


def with_codes(
    scheme: Scheme, codes: Tensor, scale: Tensor, zero: Tensor | None
) -> QuantizedWeight:
    """The quantized weight with ``codes`` given as floats."""
    return QuantizedWeight(scheme, codes.to(_code_dtype(scheme)), scale, zero)


def _code_dtype(scheme: Scheme) -> torch.dtype:
    return torch.int8 if scheme.symmetric else torch.uint8


def grouped(M: Tensor, scheme: Scheme) -> Tensor:
    """(rows, cols) as (rows, groups, g)."""
    return M.unflatten(1, (-1, scheme.group or M.shape[1]))
