"""Normalizations whose statistics are constants for relevance (AttnLRP, prop. 3.4).

    x - mean(x), divided by a deviation that gradients do not see; or x, divided by its root mean
    square or norm in the same way

Centering is linear, so x g adds up to what the output's relevance was, except for the shift b.
Functions have the signatures of ``torch.nn.functional`` that models call, in place of which they
stand. Statistics of 16 bit inputs are taken in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """``F.layer_norm`` and ``torch.layer_norm``."""
    dims = tuple(range(-len(normalized_shape), 0))
    return _affine(_centred(_wide(input), dims, eps).to(input.dtype), weight, bias)


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """``F.rms_norm`` and ``torch.rms_norm``."""
    dims = tuple(range(-len(normalized_shape), 0))
    x = _wide(input)
    least = torch.finfo(input.dtype).eps if eps is None else eps
    square = x.detach().square().mean(dims, keepdim=True)
    return _affine((x * torch.rsqrt(square + least)).to(input.dtype), weight, None)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """``F.group_norm`` and ``torch.group_norm``."""
    x = _wide(input).reshape(input.shape[0], num_groups, -1)
    y = _centred(x, (-1,), eps).reshape(input.shape).to(input.dtype)
    return _affine(y, _channels(weight, input), _channels(bias, input))


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``F.instance_norm``; with running statistics it is linear anyway."""
    if not use_input_stats:
        return torch.nn.functional.instance_norm(
            input, running_mean, running_var, weight, bias, False, momentum, eps
        )
    return group_norm(input, input.shape[1], weight, bias, eps)


def normalize(
    input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None
) -> Tensor:
    """``F.normalize``."""
    length = input.detach().norm(p, dim, keepdim=True).clamp_min(eps)
    return torch.div(input, length, out=out)


# name of the function -> what stands in its place
NORMS: dict[str, Callable[..., Any]] = {
    f.__name__: f for f in (layer_norm, rms_norm, group_norm, instance_norm, normalize)
}


def _centred(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    variance = x.detach().var(dims, correction=0, keepdim=True)
    return (x - x.mean(dims, keepdim=True)) * torch.rsqrt(variance + eps)


def _affine(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _channels(v: Tensor | None, x: Tensor) -> Tensor | None:
    return None if v is None else v.reshape(-1, *[1] * (x.dim() - 2))
