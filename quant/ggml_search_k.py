"""Super-blocks of least squared error: sub-blocks' scales and minima are codes themselves.

    w      (N, S, g)  weights of sub-blocks          q     (N, S, g)  their codes, as whole floats
    d, dm  (N, 1, 1)  a super-block's two float16    k, l  (N, S, 1)  codes of scales, of minima
    s = d·k           m = -dm·l                      w ≈ s·q + m,  dm = 0 where there are no minima

Each sub-block has a best scale and minimum of its own (``ggml_search``), about which its error is a
parabola for the codes that it has there. By these d is chosen from a fine grid, then dm. From there
steps of true error follow: each sub-block takes its k, one more or one less, and the l of its
codes, one more or one less; then d and dm are fitted to all codes at once (least squares in k·q
and l). The best round is kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .ggml_layouts import Blocks, Layout, stored_scales
from .ggml_search import better, code_range, errors, half, lines, moments, nearest, scales
from .scales import round_

ROUNDS = 3
_GRID = 32
_FAR, _NEAR = 1.06, 0.7  # parts of the greatest code that the largest scale may have
_TINY = 1e-30

Range = tuple[int, int]


def superblocks(w: Tensor, layout: Layout, name: str) -> Blocks:
    """Blocks with sub-blocks of float32 ``w`` (N, E)."""
    w = w.unflatten(1, (layout.subs, -1))
    reach = scale_range(name)
    if layout.affine:
        d, dm, k, l, q = _affine(w, layout, reach)
        m, minima = dm.half().flatten(), l[..., 0].to(torch.uint8)
    else:
        d, k, q = _symmetric(w, layout, reach)
        m, minima = None, None
    codes = (q + layout.zero).flatten(1).to(torch.uint8)
    return Blocks(codes, d.half().flatten(), m, stored_scales(name, k[..., 0]), minima)


def scale_range(name: str) -> Range:
    """Least and greatest code of a sub-block's scale."""
    return {"q6_k": (-128, 127), "q3_k": (-32, 31), "q2_k": (0, 15)}.get(name, (0, 63))


def _symmetric(w: Tensor, layout: Layout, reach: Range) -> tuple[Tensor, ...]:
    """d, k, q."""
    codes = code_range(layout)
    zero = torch.zeros_like(w[..., :1])
    s = scales(w, layout)
    _, b = moments(nearest(w, s, zero, *codes), w)
    d, k = _unit(s, b, reach)
    best: tuple[Tensor, ...] = (d, k, torch.zeros_like(w))
    least = torch.full_like(d, torch.inf)
    for _ in range(ROUNDS):
        tried: tuple[Tensor, ...] = (k, torch.zeros_like(w))
        error = torch.full_like(zero, torch.inf)
        for step in (0, 1, -1):
            other = (k + step).clamp_(*reach)
            q = nearest(w, d * other, zero, *codes)
            tried, error = better((other, q), errors(w, d * other, zero, q), tried, error)
        k, q = tried
        best, least = better((d, k, q), error.sum(1, keepdim=True), best, least)
        a, b = moments(q, w)
        d = half(_sum(k * a) / _sum(k * k * b).clamp(min=_TINY))
    return best


def _affine(w: Tensor, layout: Layout, reach: Range) -> tuple[Tensor, ...]:
    """d, dm, k, l, q."""
    codes, g = code_range(layout), w.shape[-1]
    t = w.sum(-1, keepdim=True)
    s, m = lines(w, layout, floor=True)
    q = nearest(w, s, m, *codes)
    _, b = moments(q, w)
    c = q.sum(-1, keepdim=True)
    d, k = _unit(s, (b - c * c / g).clamp(min=_TINY), reach)
    dm, l = _unit((d * k * c - t).clamp(min=0) / g, torch.full_like(t, g), reach)
    best: tuple[Tensor, ...] = (d, dm, k, l, torch.zeros_like(w))
    least = torch.full_like(d, torch.inf)
    for _ in range(ROUNDS):
        tried: tuple[Tensor, ...] = (k, l, torch.zeros_like(w))
        error = torch.full_like(t, torch.inf)
        for step in (0, 1, -1):
            other = (k + step).clamp_(*reach)
            q = nearest(w, d * other, -dm * l, *codes)
            tried, error = better((other, l, q), errors(w, d * other, -dm * l, q), tried, error)
            lower = _codes((d * other * q.sum(-1, keepdim=True) - t) / g, dm, reach)
            q = nearest(w, d * other, -dm * lower, *codes)
            tried, error = better(
                (other, lower, q), errors(w, d * other, -dm * lower, q), tried, error
            )
        for step in (1, -1):
            k, l, _ = tried
            lower = (l + step).clamp_(*reach)
            q = nearest(w, d * k, -dm * lower, *codes)
            tried, error = better((k, lower, q), errors(w, d * k, -dm * lower, q), tried, error)
        k, l, q = tried
        best, least = better((d, dm, k, l, q), error.sum(1, keepdim=True), best, least)
        d, dm = _fitted(w, k, l, q)
    return best


def _unit(ideal: Tensor, weight: Tensor, reach: Range) -> tuple[Tensor, Tensor]:
    """The unit of codes for ``ideal`` (N, S, 1), of least weighted squared error, and these."""
    lo, hi = reach
    top = ideal.gather(1, ideal.abs().argmax(1, keepdim=True))
    best: tuple[Tensor, ...] = (torch.zeros_like(top), torch.zeros_like(ideal))
    least = torch.full_like(top, torch.inf)
    for end in (lo, hi) if lo < 0 else (hi,):
        for i in range(_GRID):
            unit = half(top / (end * (_FAR - (_FAR - _NEAR) * i / (_GRID - 1))))
            k = _codes(ideal, unit, reach)
            error = _sum(weight * (unit * k - ideal).square_())
            best, least = better((unit, k), error, best, least)
    unit, k = best
    return unit, k


def _codes(ideal: Tensor, unit: Tensor, reach: Range) -> Tensor:
    inverse = torch.where(unit != 0, 1 / unit, 0.0)
    return round_((ideal * inverse).clamp_(*reach))


def _fitted(w: Tensor, k: Tensor, l: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """d and dm of least squared error for all codes of a super-block."""
    g = w.shape[-1]
    a, b = moments(q, w)
    uu, uv, vv = (
        _sum((k * k * b).double()),
        _sum((k * l * q.sum(-1, keepdim=True)).double()),
        (g * _sum((l * l).double())),
    )
    uw, vw = _sum((k * a).double()), _sum((l * w.sum(-1, keepdim=True)).double())
    det = uu * vv - uv * uv
    both = det > 1e-9 * uu * vv
    d = torch.where(both, uw * vv - uv * vw, uw) / torch.where(both, det, uu.clamp(min=_TINY))
    dm = torch.where(both, (uv * uw - uu * vw) / torch.where(both, det, 1.0), 0.0)
    return half(d.clamp(min=0).float()), half(dm.clamp(min=0).float())


def _sum(x: Tensor) -> Tensor:
    """Over a super-block's sub-blocks."""
    return x.sum(1, keepdim=True)
