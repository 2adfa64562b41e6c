"""Float weights: plain casts, and 8- and 4-bit floats with scales.

    keep         w = v
    bf16, fp16   w ≈ v                    v rounded to the dtype
    fp8          w ≈ v · s                v E4M3, one scale s a row (dtype of ``scale_dtype``)
    mxfp4        w ≈ v · 2^(e - 127)      v E2M1, e uint8 (E8M0), groups of 32   (OCP MX 1.0)
    mxfp8        w ≈ v · 2^(e - 127)      v E4M3, e uint8 (E8M0), groups of 32   (OCP MX 1.0)
    nvfp4        w ≈ v · (s / t)          v E2M1, s E4M3, groups of 16, t one float32 a tensor

``nvfp4`` divides by its tensor scale, as compressed-tensors does (its ``weight_global_scale``):
float32 quotient, float32 product, then the cast. Group scales are chosen by squared error.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from bitfront.errors import SchemeError
from bitfront.types import Scheme

from .scales import check_reach, round_, slices, stored
from .weights import QuantizedWeight, scale_dtype

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # value of each code; bit 3 is the sign
E4M3_MAX = 448.0
_E4M3_LEAST = 2.0**-9
_MIDDLES = tuple((a + b) / 2 for a, b in pairwise(E2M1))
_NVFP4_TOPS = (6.0, 5.5, 5.0, 4.5, 4.0, 3.5, 3.0)  # what a group's largest weight may map to
_MX_SHIFTS = (0, 1, -1)  # from the exponent of the MX specification


class Cast:
    """Values rounded to a 16-bit dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def quantize(self, M: Tensor, scheme: Scheme) -> QuantizedWeight:
        codes = M.to(self.dtype, copy=True)
        if not torch.isfinite(codes).all():
            raise SchemeError(
                f"weights as large as {float(M.abs().max()):.3g} overflow {self.dtype}",
                "keep this layer or take bf16",
            )
        return QuantizedWeight(scheme, codes)

    def dequantize(self, q: QuantizedWeight) -> Tensor:
        return q.codes


class Keep:
    """The weights as they are."""

    def quantize(self, M: Tensor, scheme: Scheme) -> QuantizedWeight:
        return QuantizedWeight(scheme, M.clone())

    def dequantize(self, q: QuantizedWeight) -> Tensor:
        return q.codes


class FP8:
    """E4M3 values with one scale a row."""

    def quantize(self, M: Tensor, scheme: Scheme) -> QuantizedWeight:
        dtype = scale_dtype(M.dtype)
        top = _largest(M)
        check_reach(top, E4M3_MAX, dtype)
        s = torch.where(top > 0, stored(top / E4M3_MAX, dtype), 1.0)
        codes = torch.empty(M.shape, dtype=torch.float8_e4m3fn, device=M.device)
        for rows in slices(M):
            codes[rows] = _e4m3(M[rows].float() / s[rows])
        return QuantizedWeight(scheme, codes, s.to(dtype))

    def dequantize(self, q: QuantizedWeight) -> Tensor:
        assert q.scale is not None
        return q.codes.float() * q.scale.float()


class MXFP4:
    """E2M1 values in groups that share a power of two."""

    def quantize(self, M: Tensor, scheme: Scheme) -> QuantizedWeight:
        w = M.unflatten(1, (-1, scheme.group or M.shape[1]))
        top = _largest(w)
        biased = _biased(top, 2)
        codes, best = _least_error(w, _power_of_two(biased))
        exponent = biased.gather(0, best)[0]
        return QuantizedWeight(scheme, codes.flatten(1), exponent.squeeze(-1).to(torch.uint8))

    def dequantize(self, q: QuantizedWeight) -> Tensor:
        assert q.scale is not None
        return _times(q, _power_of_two(q.scale))


class MXFP8:
    """E4M3 values in groups that share a power of two."""

    def quantize(self, M: Tensor, scheme: Scheme) -> QuantizedWeight:
        w = M.unflatten(1, (-1, scheme.group or M.shape[1]))
        biased = _biased(_largest(w), 8)
        codes = torch.empty(w.shape, dtype=torch.float8_e4m3fn, device=M.device)
        exponent = torch.empty(w.shape[:2], dtype=torch.uint8, device=M.device)
        for rows in slices(w):
            part, options = w[rows].float(), _power_of_two(biased[:, rows])
            values = [_e4m3(part / s) for s in options]
            errors = [
                (v.float() * s - part).square_().sum(-1)
                for v, s in zip(values, options, strict=True)
            ]
            best = torch.stack(errors).argmin(0)[None, ..., None]
            exponent[rows] = biased[:, rows].gather(0, best)[0].squeeze(-1).to(torch.uint8)
            codes[rows] = _e4m3(part / options.gather(0, best)[0])
        return QuantizedWeight(scheme, codes.flatten(1), exponent)

    def dequantize(self, q: QuantizedWeight) -> Tensor:
        assert q.scale is not None
        return _spread(q.codes.float(), _power_of_two(q.scale))


class NVFP4:
    """E2M1 values in groups with E4M3 scales, themselves scaled by one number."""

    def quantize(self, M: Tensor, scheme: Scheme) -> QuantizedWeight:
        w = M.unflatten(1, (-1, scheme.group or M.shape[1]))
        top = _largest(w)
        largest = float(top.max()) if top.numel() else 0.0
        reach = E4M3_MAX * E2M1[-1]
        finite = torch.finfo(torch.float32)
        t = min(max(reach / largest, finite.tiny), finite.max) if largest else 1.0
        tensor_scale = torch.tensor(t, dtype=torch.float32, device=M.device)
        fits = torch.stack([_e4m3(top * (tensor_scale / code)).float() for code in _NVFP4_TOPS])
        scales = torch.where(fits > 0, fits, _E4M3_LEAST)
        codes, best = _least_error(w, scales / tensor_scale)
        chosen = scales.gather(0, best)[0]
        return QuantizedWeight(
            scheme, codes.flatten(1), _e4m3(chosen).squeeze(-1), tensor_scale=tensor_scale
        )

    def dequantize(self, q: QuantizedWeight) -> Tensor:
        assert q.scale is not None
        assert q.tensor_scale is not None
        return _times(q, q.scale.float() / q.tensor_scale)


def e2m1_codes(x: Tensor) -> Tensor:
    """uint8 codes of the nearest E2M1 values; ties go towards zero, which is never negative."""
    magnitude = torch.bucketize(x.abs().contiguous(), x.new_tensor(_MIDDLES))
    return (magnitude + 8 * ((x < 0) & (magnitude > 0))).to(torch.uint8)


def e2m1_values(codes: Tensor) -> Tensor:
    """float32 values of uint8 ``codes``."""
    table = torch.tensor([*E2M1, *(-v for v in E2M1)], device=codes.device)
    return table[codes.int()]


def _least_error(w: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of ``w`` (rows, groups, g) under the best of ``scales`` (candidates, rows, groups, 1).

    Also which candidate that is (1, rows, groups, 1).
    """
    codes = torch.empty_like(w, dtype=torch.uint8)
    best = torch.empty((1, *scales.shape[1:]), dtype=torch.int64, device=w.device)
    for rows in slices(w):
        part, options = w[rows].float(), scales[:, rows]
        errors = [nearest_e2m1(part / s).mul_(s).sub_(part).square_().sum(-1) for s in options]
        best[0, rows] = torch.stack(errors).argmin(0).unsqueeze(-1)
        codes[rows] = e2m1_codes(part / options.gather(0, best[:, rows])[0])
    return codes, best


def nearest_e2m1(x: Tensor) -> Tensor:
    """The E2M1 values nearest to float32 ``x``: steps of 0.5 up to 2, of 1 up to 4, of 2 up to 6.

    Ties go to even codes.
    """
    x = x.clamp(-6, 6)
    size = x.abs()
    step = torch.where(size > 2, torch.where(size > 4, 2.0, 1.0), 0.5)
    return round_(x.div_(step)).mul_(step)


def _largest(w: Tensor) -> Tensor:
    """float32 magnitude of the largest number along the last dimension, which is kept."""
    low, high = torch.aminmax(w, dim=-1, keepdim=True)
    return torch.maximum(-low.float(), high.float())


def _power_of_two(biased: Tensor) -> Tensor:
    """float32 2^(biased - 127), exactly, for 1 to 254: the exponent field of a float32."""
    return (biased.int() << 23).view(torch.float32)


def _biased(top: Tensor, reach: int) -> Tensor:
    """Exponents to try (candidates, ...), biased by 127, for values up to about 2^``reach``."""
    # frexp: top = m · 2^x with m in [0.5, 1), so floor(log2 top) = x - 1
    e = torch.where(top > 0, torch.frexp(top).exponent - 1 - reach, 0)
    return torch.stack([(e + shift + 127).clamp(1, 254) for shift in _MX_SHIFTS])


def _times(q: QuantizedWeight, s: Tensor) -> Tensor:
    return _spread(e2m1_values(q.codes), s)


def _spread(values: Tensor, s: Tensor) -> Tensor:
    return (values.unflatten(1, (s.shape[1], -1)) * s.unsqueeze(-1)).flatten(1)


def _e4m3(x: Tensor) -> Tensor:
    return x.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
