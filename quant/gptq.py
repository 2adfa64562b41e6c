"""GPTQ (arXiv:2210.17323): columns are rounded one after another, each error is spread on the rest.

    W   (G, R, cols)      weights, one row of blocks per convolution group (G = 1 for linear layers)
    H   (G, cols, cols)   mean of x xᵀ over the layer's inputs, damped
    U   (G, cols, cols)   upper Cholesky factor of H⁻¹ (H⁻¹ = Uᵀ U)
    e   (G, R)            (w_i - ŵ_i) / U_ii of column i; every later column j takes off e · U_ij

Deviations from the paper's code: scales come from a squared-error search on the original weights,
each error weighed by diag(H) (so groups are static, also when columns are reordered, and no group
index is stored); columns that no input ever touches are rounded to nearest instead of zeroed; U
comes from one Cholesky factorization of the reversed H and a triangular inverse.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bitfront.errors import ModelError
from bitfront.types import Scheme

from .integers import grid, with_codes
from .scales import encode, integer_range
from .statistics import InputStatistics
from .weights import QuantizedWeight

DAMPING = 0.01  # of the mean of H's diagonal
BLOCK = 128  # columns whose errors are spread on the rest at once


def gptq(
    M: Tensor, scheme: Scheme, stats: InputStatistics | None, act_order: bool = False
) -> QuantizedWeight:
    """``M`` (rows, cols) under an integer ``scheme``; ``stats.H`` is (G, cols, cols).

    ``act_order`` takes the columns in order of decreasing diag(H). Raises ``ModelError`` when H is
    not positive definite even after damping.
    """
    assert stats is not None
    assert stats.H is not None
    H = stats.H.to(M.device, torch.float32)
    G, cols, _ = H.shape
    scale, zero = grid(M, scheme, _importance(H, M.shape[0]))

    W = M.float().unflatten(0, (G, -1)).clone()
    s, z = (None if t is None else t.float().unflatten(0, (G, -1)) for t in (scale, zero))
    assert s is not None

    order = torch.arange(cols, device=M.device).expand(G, cols)
    if act_order:
        order = H.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
        H = H.take_along_dim(order[:, :, None], 1).take_along_dim(order[:, None], 2)
        W = W.take_along_dim(order[:, None], 2)

    limits = integer_range(scheme.bits, scheme.symmetric)
    codes = _sweep(W, s, z, order // (scheme.group or cols), inverse_factor(H), limits)
    if act_order:
        codes = codes.take_along_dim(order.argsort(1)[:, None], 2)
    return with_codes(scheme, codes.flatten(0, 1), scale, zero)


def _importance(H: Tensor, rows: int) -> Tensor:
    """diag(H) damped and with mean 1.01, (rows, cols), or (1, cols) without convolution groups."""
    diagonal = H.diagonal(dim1=1, dim2=2)
    v = diagonal / _mean(diagonal) + DAMPING
    return v if len(v) == 1 else v.repeat_interleave(rows // len(v), 0)


def _mean(diagonal: Tensor) -> Tensor:
    """Mean of (G, cols) over columns, (G, 1); 1 where all inputs are 0."""
    mean = diagonal.mean(1, keepdim=True)
    return torch.where(mean > 0, mean, 1.0)


def inverse_factor(H: Tensor) -> Tensor:
    """U of the notation table, of damped H; dead inputs stand alone."""
    H = H.clone()
    diagonal = H.diagonal(dim1=1, dim2=2)  # a view
    mean = _mean(diagonal)
    diagonal += torch.where(diagonal > 0, DAMPING * mean, mean)
    # with J the reversal: J H J = L Lᵀ, so H = R Rᵀ with upper R = J L J, and U = R⁻¹
    L, info = torch.linalg.cholesky_ex(H.flip(1, 2))
    if info.any():
        L, info = torch.linalg.cholesky_ex(H.flip(1, 2).double())
    if info.any() or not torch.isfinite(L).all():
        raise ModelError(
            "the inputs' second moments are not positive definite",
            "use more calibration data, or rtn for this layer",
        )
    eye = torch.eye(H.shape[-1], dtype=L.dtype, device=H.device).expand_as(L)
    return torch.linalg.solve_triangular(L.flip(1, 2), eye, upper=True).float()


def _sweep(
    W: Tensor, s: Tensor, z: Tensor | None, group: Tensor, U: Tensor, limits: tuple[int, int]
) -> Tensor:
    """Codes (G, R, cols), as floats; ``W`` is used up.

    s, z: (G, R, groups). group: (G, cols), which of them each column belongs to.
    """
    codes = torch.empty_like(W)
    cols = W.shape[-1]
    for start in range(0, cols, BLOCK):
        stop = min(start + BLOCK, cols)
        block, factor = W[..., start:stop].clone(), U[:, start:stop, start:stop]
        index = group[:, None, start:stop]
        S, Z = s.take_along_dim(index, 2), None if z is None else z.take_along_dim(index, 2)
        errors = torch.empty_like(block)
        for i in range(stop - start):
            zero = None if Z is None else Z[..., i]
            q = encode(block[..., i], S[..., i], zero, *limits)
            codes[..., start + i] = q
            rounded = S[..., i] * (q if zero is None else q - zero)
            e = (block[..., i] - rounded) / factor[:, i, i, None]
            errors[..., i] = e
            block[..., i + 1 :].baddbmm_(e.unsqueeze(-1), factor[:, i : i + 1, i + 1 :], alpha=-1)
        W[..., stop:].baddbmm_(errors, U[:, start:stop, stop:], alpha=-1)
    return codes
