"""Scales of integer grids, by squared error.

    w  (rows, groups, g)   weights of each group      v  broadcastable to w   importance, 1 if None
    q  (rows, groups, g)   codes, as floats           p = q - z
    s  (rows, groups, 1)   scale, as it is stored     z  (rows, groups, 1)    integer zero point
    a = Σ v·w·p            b = Σ v·p²                 sums over a group

    error(s) = Σ v·(w - s·p)² = Σ v·w² - 2·s·a + s²·b,   least at s = a / b

Clipping ratios of the full range give candidate codes; of those the codes win whose own best scale
``a / b`` leaves the least error. From there rounding and refitting alternate, and the best stored
scale on the way is kept. The work goes over slices of rows small enough for the cache, so that
temporaries stay small whatever the matrix.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bitfront.errors import SchemeError

SHARES = (0.0, 0.5, 1.0)  # asymmetric: how much of what is clipped is cut off below
REFITS = 4
_ROUNDER = 1.5 * 2**23  # float32 numbers near it are whole
# elements; on the CPU just below where torch would start its threads for each small operation
_CPU_SLICE, _GPU_SLICE = (1 << 15) - 1, 1 << 24


def integer_range(bits: int, symmetric: bool) -> tuple[int, int]:
    """Least and greatest code."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if symmetric else (0, (1 << bits) - 1)


def ratios(bits: int, dense: int, sparse: int, least: float) -> tuple[float, ...]:
    """Parts of the full range to try, from a little above 1 down to ``least``.

    The error has minima about 2^-bits apart: ``dense`` steps of a part of that, where the best
    scale of few weights lies; then ``sparse`` ones, for rows with outliers.
    """
    step = min(0.4 / 2**bits, (1 - 2 * least) / dense)
    near = [1 + step * (2 - i) for i in range(dense)]
    fall = least / near[-1]
    return (*near, *(near[-1] * fall ** (i / sparse) for i in range(1, sparse + 1)))


def encode(w: Tensor, s: Tensor, z: Tensor | None, lo: int, hi: int) -> Tensor:
    """Nearest codes of float32 ``w``, as floats; ``s`` must be positive. Ties go to even codes."""
    reach = max(-lo, hi) if z is None else hi
    q = round_(torch.div(w, s).clamp_(-reach - 1, reach + 1))
    if z is not None:
        q += z
    return q.clamp_(lo, hi)


def round_(x: Tensor) -> Tensor:
    """Round float32 ``x`` to nearest in place, for magnitudes below 2^22; ties go to even numbers.

    By addition, since torch's own starts its threads however small ``x`` is, and they wait for each
    other at every call: on a busy machine that took 10 times as long.
    """
    return x.add_(_ROUNDER).sub_(_ROUNDER)


def stored(s: Tensor, dtype: torch.dtype) -> Tensor:
    """``s`` rounded to ``dtype``, as float32: positive, and not beyond the largest number."""
    info = torch.finfo(dtype)
    return s.clamp(info.smallest_normal * info.eps, info.max).to(dtype).float()


def symmetric_scales(w: Tensor, bits: int, dtype: torch.dtype, v: Tensor | None = None) -> Tensor:
    """Scales (rows, groups) in ``dtype`` for ``w`` (rows, groups, g).

    ``v`` weighs the squared errors. Groups of zeros get the scale 1. Raises ``SchemeError`` when
    the largest weight needs a scale beyond ``dtype``.
    """
    scale = torch.empty(w.shape[:2], dtype=dtype, device=w.device)
    for rows in slices(w):
        scale[rows] = _symmetric(w[rows].float(), bits, dtype, _part(v, rows)).squeeze(-1).to(dtype)
    return scale


def asymmetric_scales(
    w: Tensor, bits: int, dtype: torch.dtype, v: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scales (rows, groups) in ``dtype`` and zero points (rows, groups) uint8, as above."""
    scale = torch.empty(w.shape[:2], dtype=dtype, device=w.device)
    zero = torch.empty(w.shape[:2], dtype=torch.uint8, device=w.device)
    for rows in slices(w):
        s, z = _asymmetric(w[rows].float(), bits, dtype, _part(v, rows))
        scale[rows], zero[rows] = s.squeeze(-1).to(dtype), z.squeeze(-1).to(torch.uint8)
    return scale, zero


def slices(w: Tensor, size: int | None = None) -> Iterator[slice]:
    """Ranges of rows that cover ``w``, each of ``size`` elements or one row.

    By default small enough for many operations on a slice to stay in the cache.
    """
    if size is None:
        size = _CPU_SLICE if w.device.type == "cpu" else _GPU_SLICE
    step = max(1, size // w[0].numel())
    return (slice(i, i + step) for i in range(0, w.shape[0], step))


def check_reach(largest: Tensor, reach: float, dtype: torch.dtype) -> None:
    """Raise ``SchemeError`` when weights as large as ``largest`` need a scale beyond ``dtype``.

    ``reach`` is the greatest code.
    """
    if largest.numel() and float(largest.max()) / reach > torch.finfo(dtype).max:
        raise SchemeError(
            f"weights as large as {float(largest.max()):.3g} need a scale beyond {dtype}",
            "keep this layer or take bf16",
        )


def _symmetric(w: Tensor, bits: int, dtype: torch.dtype, v: Tensor | None) -> Tensor:
    lo, hi = integer_range(bits, True)
    top = w.abs().amax(-1, keepdim=True)
    check_reach(top, -lo, dtype)
    vw = w if v is None else v * w
    best, least = torch.ones_like(top), torch.full_like(top, torch.inf)
    for ratio in (
        *ratios(bits, 20, 9, 0.15),
        hi / (hi + 1),
    ):  # the last maps the largest weight to the least code
        p = encode(w, stored(top * (ratio / hi), dtype), None, lo, hi)
        a, b = _moments(p, vw, v)
        s = stored(a / b, dtype)
        best, least = _pick(s, _error(s, a, b), best, least)
    s, least = best, torch.full_like(top, torch.inf)
    for _ in range(REFITS + 1):
        p = encode(w, s, None, lo, hi)
        a, b = _moments(p, vw, v)
        best, least = _pick(s, _error(s, a, b), best, least)
        s = stored(a / b, dtype)
    return torch.where(top > 0, best, 1.0)


def _asymmetric(
    w: Tensor, bits: int, dtype: torch.dtype, v: Tensor | None
) -> tuple[Tensor, Tensor]:
    lo, hi = integer_range(bits, False)
    floor = w.amin(-1, keepdim=True).clamp_(max=0)
    span = w.amax(-1, keepdim=True).clamp_(min=0) - floor
    check_reach(span, hi, dtype)
    vw = w if v is None else v * w
    best_s, best_z = torch.ones_like(span), torch.zeros_like(span)
    least = torch.full_like(span, torch.inf)
    # one code wider, both ends fit whatever rounding does to the zero point
    for width in (hi / (hi - 1), *ratios(bits, 11, 5, 0.3)):
        for share in SHARES if width < 1 else SHARES[:1]:
            s = stored(span * (width / hi), dtype)
            z = _zero_point(floor + span * (share * (1 - width)), s, hi)
            a, b = _moments(encode(w, s, z, lo, hi).sub_(z), vw, v)
            s = stored(a / b, dtype)
            error = _error(s, a, b)
            best_z, _ = _pick(z, error, best_z, least)
            best_s, least = _pick(s, error, best_s, least)
    s, z, least = best_s, best_z, torch.full_like(span, torch.inf)
    total = vw.sum(-1, keepdim=True)
    count = total.new_tensor(w.shape[-1]) if v is None else v.expand_as(w).sum(-1, keepdim=True)
    for _ in range(REFITS + 1):
        q = encode(w, s, z, lo, hi)
        a, b = _moments(q - z, vw, v)
        error = _error(s, a, b)
        best_z, _ = _pick(z, error, best_z, least)
        best_s, least = _pick(s, error, best_s, least)
        # line through (q, w): slope s, and where it meets w = 0 the zero point
        mean = (q if v is None else q * v).sum(-1, keepdim=True) / count
        slope, spread = _moments(q - mean, vw, v)
        z = _zero_point(total / count - mean * (slope / spread), slope / spread, hi)
        a, b = _moments(q.sub_(z), vw, v)
        s = stored(a / b, dtype)
    return torch.where(span > 0, best_s, 1.0), torch.where(span > 0, best_z, 0.0)


def _zero_point(floor: Tensor, s: Tensor, hi: int) -> Tensor:
    """Code of 0 when code 0 stands for ``floor``."""
    return torch.nan_to_num(-floor / s).round_().clamp_(0, hi)


def _moments(p: Tensor, vw: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor]:
    """a and b; b is never 0."""
    a = (p * vw).sum(-1, keepdim=True)
    b = p.square_() if v is None else p.square_().mul_(v)
    return a, b.sum(-1, keepdim=True).clamp_(min=1e-30)


def _error(s: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Squared error but for the constant Σ v·w²."""
    return s * (s * b - 2 * a)


def _pick(value: Tensor, error: Tensor, best: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    better = error < least
    return torch.where(better, value, best), torch.where(better, error, least)


def _part(v: Tensor | None, rows: slice) -> Tensor | None:
    return v if v is None or v.shape[0] == 1 else v[rows]
