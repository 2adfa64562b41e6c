"""Blocks of least squared error: scales and minima of groups of weights, found by their codes.

    w  (..., g)  weights of a group         q  (..., g)  codes, as whole floats
    s  (..., 1)  scale                      m  (..., 1)  what is added: w ≈ s·q + m
    a = Σ q·w    b = Σ q²    c = Σ q    t = Σ w          sums over a group

For given codes s = a / b takes a² / b off Σ w², and the line through (q, w) has slope
(g·a - c·t) / (g·b - c²). So candidates are codes: those of grids a little finer and coarser than
the one that just covers the group, then those of the best line found, a few times. Scales may be
negative where there are no minima: codes reach one step further down than up.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .ggml_layouts import Blocks, Layout
from .scales import round_

REFITS = 4
HALF = torch.finfo(torch.float16)
_TINY = 1e-30
_FLAT = 1e-6  # some roundings of float32
# bits -> parts of the grid that the largest weight may reach, from less than all of it (another
# alignment) to beyond its end (clipped), and how many are tried
_REACHES = {
    3: (0.8, 1.7, 16),
    4: (0.86, 1.3, 16),
    5: (0.86, 1.2, 16),
    6: (0.93, 1.1, 16),
    8: (0.97, 1.02, 24),
}
# bits -> parts of the range that a grid with a minimum may cover, and how many are tried
_WIDTHS = {2: (1.05, 0.5, 9), 4: (1.05, 0.85, 13), 5: (1.05, 0.9, 16)}
_SHARES = (0.0, 0.5, 1.0)  # how much of what is clipped is cut off below


def plain(w: Tensor, layout: Layout) -> Blocks:
    """Blocks without sub-blocks of float32 ``w`` (N, g)."""
    lo, hi = code_range(layout)
    if layout.affine:
        s, m = lines(w, layout)
        s, m = half(s), half(m)
        best: tuple[Tensor, ...] = (s, m, nearest(w, s, m, lo, hi))
        least = errors(w, *best)
        for _ in range(REFITS):
            s, m = (half(x) for x in line(best[2], w))
            q = nearest(w, s, m, lo, hi)
            best, least = better((s, m, q), errors(w, s, m, q), best, least)
        s, m, q = best
        return Blocks(q.to(torch.uint8), s.half().flatten(), m.half().flatten())
    s = half(scales(w, layout))
    zero = torch.zeros_like(s)
    chosen: tuple[Tensor, ...] = (s, nearest(w, s, zero, lo, hi))
    least = errors(w, s, zero, chosen[1])
    for _ in range(REFITS):
        a, b = moments(chosen[1], w)
        s = half(a / b)
        q = nearest(w, s, zero, lo, hi)
        chosen, least = better((s, q), errors(w, s, zero, q), chosen, least)
    s, q = chosen
    return Blocks((q + layout.zero).to(torch.uint8), s.half().flatten())


def code_range(layout: Layout) -> tuple[int, int]:
    """Least and greatest code, 0 being the code of 0 where there are no minima.

    8 bits go without their least code, as in every other writer.
    """
    if layout.affine:
        return 0, (1 << layout.bits) - 1
    return -layout.zero + (layout.bits == 8), layout.zero - 1


def scales(w: Tensor, layout: Layout) -> Tensor:
    """The best scale (..., 1) of each group that was tried, not rounded; 0 for a group of zeros."""
    lo, hi = code_range(layout)
    top = w.abs().amax(-1, keepdim=True)
    inverse = 1 / top.clamp(min=_TINY)
    best, gain = torch.zeros_like(top), torch.zeros_like(top)
    near, far, count = _REACHES[layout.bits]
    for i in range(count):
        reach = hi * near + (far * -lo - near * hi) * i / (count - 1)
        for sign in (1, -1) if lo < -hi else (1,):
            q = round_(w * (inverse * (sign * reach))).clamp_(lo, hi)
            best, gain = _better_scale(q, w, best, gain)
    for _ in range(2):
        q = nearest(w, best, torch.zeros_like(best), lo, hi)
        best, gain = _better_scale(q, w, best, gain)
    return best


def lines(w: Tensor, layout: Layout, floor: bool = False) -> tuple[Tensor, Tensor]:
    """The best scale and minimum (..., 1) of each group that were tried, not rounded.

    floor: minima above 0 are none.
    """
    lo, hi = code_range(layout)
    low, high = w.amin(-1, keepdim=True), w.amax(-1, keepdim=True)
    if floor:
        low = low.clamp(max=0)
    span = (high - low).clamp(min=_TINY)
    best: tuple[Tensor, ...] = (torch.zeros_like(low), low)
    least = errors(w, torch.zeros_like(low), low, torch.zeros_like(w))
    widest, least_width, count = _WIDTHS[layout.bits]
    for i in range(count):
        width = widest - (widest - least_width) * i / (count - 1)
        for share in _SHARES if width < 1 else _SHARES[1:2]:
            start = low + span * (share * (1 - width))
            q = round_((w - start) * (hi / (width * span))).clamp_(lo, hi)
            found = line(q, w, floor)
            best, least = better(found, errors(w, *found, q), best, least)
    for _ in range(2):
        q = nearest(w, best[0], best[1], lo, hi)
        found = line(q, w, floor)
        best, least = better(found, errors(w, *found, q), best, least)
    s, m = best
    return s, m


def line(q: Tensor, w: Tensor, floor: bool = False) -> tuple[Tensor, Tensor]:
    """Scale and minimum of least squared error for given codes."""
    g = w.shape[-1]
    a, b = moments(q, w)
    c, t = q.sum(-1, keepdim=True), w.sum(-1, keepdim=True)
    spread = g * b - c * c  # 0 for codes that are all alike
    flat = spread <= _FLAT * g * b
    s = torch.where(flat, 0.0, (g * a - c * t) / torch.where(flat, 1.0, spread)).clamp_(min=0)
    m = (t - s * c) / g
    return (torch.where(m > 0, a / b, s), m.clamp(max=0)) if floor else (s, m)


def nearest(w: Tensor, s: Tensor, m: Tensor, lo: int, hi: int) -> Tensor:
    """Codes of ``w``, those of 0 where the scale is 0."""
    inverse = torch.where(s != 0, 1 / s, 0.0)
    return round_(((w - m) * inverse).clamp_(lo, hi))


def errors(w: Tensor, s: Tensor, m: Tensor, q: Tensor) -> Tensor:
    """Squared errors (..., 1)."""
    return (q * s).add_(m).sub_(w).square_().sum(-1, keepdim=True)


def moments(q: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """a and b; b is never 0."""
    return (q * w).sum(-1, keepdim=True), (q * q).sum(-1, keepdim=True).clamp_(min=_TINY)


def better(
    found: Sequence[Tensor], error: Tensor, best: Sequence[Tensor], least: Tensor
) -> tuple[tuple[Tensor, ...], Tensor]:
    """For each group what has the lesser error, and that error."""
    wins = error < least
    pairs = zip(found, best, strict=True)
    return tuple(torch.where(wins, f, b) for f, b in pairs), torch.where(wins, error, least)


def half(x: Tensor) -> Tensor:
    """``x`` rounded to float16, as float32, and not beyond its largest number."""
    return x.clamp(-HALF.max, HALF.max).half().float()


def _better_scale(q: Tensor, w: Tensor, best: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    a, b = moments(q, w)
    found = a * a / b
    wins = found > gain
    return torch.where(wins, a / b, best), torch.where(wins, found, gain)
