"""Relevance through the functions that a model calls between its layers.

A function mode sees every call of torch, whoever makes it, so no architecture needs a patch of its
own: attention by softmax and matrix products, fused attention, norms composed of powers and roots,
gates. Calls are told apart by the function's name: ``torch.mul``, ``Tensor.mul`` and ``x * y`` are
one. What the backward pass carries is g with relevance x g, so that additions, means, reshapes,
masks and products with constants are right as autograd has them, and the rest takes little:

    half       y = a ∘ b of two factors that depend on the input: autograd's own gradient, halved
    attention  y = softmax(q kᵀ) v: half of it to v, a quarter each to q and k
    detach     what is to be constant is detached
    identity   g = G f(x) / x

Cost and memory are those of ordinary backward passes; fused kernels stay fused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .lrp_composite import Composite
from .lrp_norms import NORMS

Call = Callable[..., Any]

# function -> the positions of its factors
PRODUCTS = {"mul": (0, 1), "multiply": (0, 1), "addcmul": (1, 2)}
MATRIX_PRODUCTS = {
    **dict.fromkeys(("matmul", "bmm", "mm", "mv", "dot", "linear"), (0, 1)),
    **dict.fromkeys(("baddbmm", "addbmm", "addmm", "addmv"), (1, 2)),
}
QUOTIENTS = ("div", "divide", "true_divide")
INVERSES = ("rsqrt", "reciprocal", "__rdiv__", "__rtruediv__")
ACTIVATIONS = (
    "gelu", "silu", "mish", "tanh", "hardtanh", "relu6", "elu", "selu", "celu", "hardswish",
    "softsign", "square",
)  # fmt: skip
ATTENTION = "scaled_dot_product_attention"
# functions of Python that call others, which are to be seen in their place
OPENED = ("multi_head_attention_forward",)
KNOWN = {
    *PRODUCTS, *MATRIX_PRODUCTS, *QUOTIENTS, *INVERSES, *ACTIVATIONS, *NORMS,
    "einsum", "pow", "softmax", ATTENTION,
}  # fmt: skip


class Operations(TorchFunctionMode):
    """While this lasts, functions called with gradients enabled propagate relevance instead."""

    def __init__(self, composite: Composite) -> None:
        super().__init__()
        self._rule = composite.operation

    def __torch_function__(
        self, func: Call, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if torch.is_grad_enabled():
            if name in OPENED:
                with self:  # the body of func, with this mode on for what it calls
                    return torch._C._skip_one_hop_torch_function(func, types, tuple(args), kwargs)
            inplace = name.endswith("_") and not name.endswith("__")
            name = name[:-1] if inplace else name
            if name in KNOWN:
                return self._propagated(name, func, _positional(args, kwargs), kwargs, inplace)
        return func(*args, **kwargs)

    def _propagated(
        self, name: str, func: Call, args: list[Any], kwargs: dict[str, Any], inplace: bool
    ) -> Any:
        if name in PRODUCTS and self._rule("product") == "half":
            return halved(func, PRODUCTS[name], args, kwargs, inplace)
        if name in MATRIX_PRODUCTS and self._rule("matmul") == "half":
            return halved(func, MATRIX_PRODUCTS[name], args, kwargs, inplace)
        if name == "einsum" and self._rule("matmul") == "half":
            if isinstance(args[1], list | tuple):
                args = [args[0], *args[1]]
            return halved(func, range(1, len(args)), args, kwargs, inplace)
        if name == ATTENTION:
            return self._attention(func, args, kwargs)
        if name == "softmax" and self._rule("softmax") == "detach":
            return func(*args, **kwargs).detach()
        if name in NORMS and self._rule("norm") == "detach":
            return NORMS[name](*args, **kwargs)
        exponent = args[1] if name == "pow" and isinstance(args[1], int | float) else 0
        if self._rule("quotient") == "detach":
            if name in INVERSES or exponent < 0:
                return func(*args, **kwargs).detach()
            if name in QUOTIENTS and isinstance(args[1], Tensor):
                return func(args[0], args[1].detach(), *args[2:], **kwargs)
        if self._rule("activation") == "identity" and (name in ACTIVATIONS or exponent > 0):
            return activated(func, args, kwargs)
        return func(*args, **kwargs)

    def _attention(self, func: Call, args: list[Any], kwargs: dict[str, Any]) -> Any:
        args += [kwargs.pop(name) for name in ("query", "key", "value")[len(args) :]]
        q, k, v = args[:3]
        if self._rule("softmax") == "detach":
            q, k = q.detach(), k.detach()
        if self._rule("matmul") == "half":
            scores = q.requires_grad + k.requires_grad
            share = (0.5 if v.requires_grad else 1.0) / max(scores, 1)
            v = scaled(v, 0.5) if scores else v
            q, k = scaled(q, share), scaled(k, share)
        return func(q, k, v, *args[3:], **kwargs)


def halved(
    func: Call, factors: Sequence[int], args: list[Any], kwargs: dict[str, Any], inplace: bool
) -> Any:
    """A call whose factors that depend on the input share relevance equally."""
    moving = [i for i in factors if isinstance(args[i], Tensor) and args[i].requires_grad]
    if len(moving) < 2:
        return func(*args, **kwargs)
    shared = [scaled(a, 1 / len(moving)) if i in moving else a for i, a in enumerate(args)]
    if not inplace:
        return func(*shared, **kwargs)
    return args[0].copy_(func(shared[0].clone(), *shared[1:], **kwargs))


def activated(func: Call, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """A call of an elementwise function of its first argument, by the identity rule."""
    x, *rest = args
    if not isinstance(x, Tensor) or not x.requires_grad:
        return func(*args, **kwargs)
    inplace = False

    def f(v: Tensor) -> Tensor:
        nonlocal inplace
        copy = v.clone()
        y: Tensor = func(copy, *rest, **kwargs)
        inplace = y is copy
        return y

    y = identity(f, x)
    return x.copy_(y) if inplace else y


def identity(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """f(x) of an elementwise f with f(0) = 0, by the identity rule: g = G f(x) / x.

    At 0 the ratio is that at a point nearby.
    """
    with torch.no_grad():
        at = x.detach()
        y = f(at)
        zero = at == 0
        slope = y / torch.where(zero, 1, at)
        if zero.any():
            near = torch.full_like(at, torch.finfo(at.dtype).eps)
            slope = torch.where(zero, f(near) / near, slope)
    return _Scaled.apply(x, lambda: y, slope)


def scaled(x: Tensor, share: float) -> Tensor:
    """x, whose gradient is multiplied by ``share``; not to be changed in place."""
    if share == 1 or not x.requires_grad:
        return x
    return _Scaled.apply(x, lambda: x.view_as(x), share)


class _Scaled(torch.autograd.Function):
    """values(), made within so that they are no view of an input; the gradient times ``slope``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Callable[[], Tensor], slope: Tensor | float) -> Tensor:
        ctx.slope = slope
        return values()

    @staticmethod
    def backward(ctx: Any, *G: Tensor) -> tuple[Tensor, None, None]:
        return G[0] * ctx.slope, None, None


def _positional(args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """Arguments with the two that may be factors taken out of ``kwargs``, where they are there."""
    return [*args, *(kwargs.pop(key) for key in ("input", "other", "mat2") if key in kwargs)]
