"""Quantizable modules, all seen as matrix products.

    M        (rows, cols)      weight matrix: output channels × inputs of one output channel
    x        the module's input, y its output without bias
    patches  (N, P, G, cols)   N leading entries of x, P positions, G convolution groups, such that
                               y[n, p, g·R + r] = patches[n, p, g] · M[g·R + r],  R = rows / G

Adding a module type is one class and one decorator.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitfront.errors import ModelError
from bitfront.registry import Registry

KINDS: Registry[type[Adapter]] = Registry("layer kind")


class Adapter:
    """What Bitfront needs to know of one module type. Stateless; ``module`` is passed in."""

    kind: ClassVar[str]

    @classmethod
    def takes(cls, module: nn.Module) -> bool:
        """Whether this adapter describes ``module``."""
        raise NotImplementedError

    @classmethod
    def matrix(cls, module: Any) -> Tensor:
        """The weight as (rows, cols): a view where strides allow, else a copy."""
        return module.weight.detach()

    @classmethod
    def assign(cls, module: Any, M: Tensor) -> None:
        """Write ``M`` (rows, cols) into the module's weight, in place, in the weight's dtype."""
        with torch.no_grad():
            module.weight.copy_(M)

    @classmethod
    def apply(cls, module: Any, x: Tensor, M: Tensor) -> Tensor:
        """The module's output on ``x`` with weight ``M`` and without bias."""
        raise NotImplementedError

    @classmethod
    def batched(cls, module: Any, x: Tensor) -> Tensor:
        """``x`` (an input or an output) with the leading dimension that torch lets callers omit."""
        return x[None] if x.ndim == 1 else x

    @classmethod
    def patches(cls, module: Any, x: Tensor) -> Tensor:
        """``x`` as (N, P, G, cols), see the module docstring."""
        raise NotImplementedError

    @classmethod
    def outputs(cls, module: Any, y: Tensor) -> Tensor:
        """An output (or its gradient) as (N, P, rows)."""
        y = cls.batched(module, y)
        return y.reshape(y.shape[0], math.prod(y.shape[1:-1]), y.shape[-1])

    @classmethod
    def macs(cls, module: Any, x: Tensor, y: Tensor) -> int:
        """Multiply-accumulates of one call, over the whole batch."""
        rows, cols = cls.matrix(module).shape
        return y.numel() // rows * rows * cols


@KINDS.register("linear")
class LinearAdapter(Adapter):
    kind = "linear"

    @classmethod
    def takes(cls, module: nn.Module) -> bool:
        return isinstance(module, nn.Linear)

    @classmethod
    def apply(cls, module: Any, x: Tensor, M: Tensor) -> Tensor:
        return F.linear(x, M)

    @classmethod
    def patches(cls, module: Any, x: Tensor) -> Tensor:
        x = cls.batched(module, x)
        return x.reshape(x.shape[0], -1, 1, x.shape[-1])


@KINDS.register("hf_conv1d")
class HFConv1DAdapter(LinearAdapter):
    """transformers' Conv1D (GPT-2): a linear layer whose weight is stored (inputs, outputs)."""

    kind = "hf_conv1d"

    @classmethod
    def takes(cls, module: nn.Module) -> bool:
        # by name, so that transformers need not be imported to look at a plain torch model
        return type(module).__name__ == "Conv1D" and type(module).__module__.startswith(
            "transformers."
        )

    @classmethod
    def matrix(cls, module: Any) -> Tensor:
        return module.weight.detach().T

    @classmethod
    def assign(cls, module: Any, M: Tensor) -> None:
        super().assign(module, M.T)


@KINDS.register("embedding")
class EmbeddingAdapter(Adapter):
    """A table of rows; its input is integer ids, so there are no patches."""

    kind = "embedding"

    @classmethod
    def takes(cls, module: nn.Module) -> bool:
        return isinstance(module, nn.Embedding)

    @classmethod
    def apply(cls, module: Any, x: Tensor, M: Tensor) -> Tensor:
        return F.embedding(x, M, module.padding_idx)

    @classmethod
    def patches(cls, module: Any, x: Tensor) -> Tensor:
        raise ModelError(
            "an embedding looks rows up", "use a method that needs no input statistics"
        )

    @classmethod
    def macs(cls, module: Any, x: Tensor, y: Tensor) -> int:
        return 0


class _ConvAdapter(Adapter):
    """Convolutions of ``dims`` spatial dimensions, with groups and any padding mode."""

    dims: ClassVar[int]

    @classmethod
    def matrix(cls, module: Any) -> Tensor:
        return module.weight.detach().flatten(1)

    @classmethod
    def assign(cls, module: Any, M: Tensor) -> None:
        super().assign(module, M.reshape(module.weight.shape))

    @classmethod
    def apply(cls, module: Any, x: Tensor, M: Tensor) -> Tensor:
        weight = M.reshape(module.weight.shape).to(x.dtype)
        return module._conv_forward(x, weight, None)

    @classmethod
    def batched(cls, module: Any, x: Tensor) -> Tensor:
        return x[None] if x.ndim == cls.dims + 1 else x

    @classmethod
    def patches(cls, module: Any, x: Tensor) -> Tensor:
        x = cls.batched(module, x)
        if module.padding_mode != "zeros":
            x = F.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode)
            pads = [(0, 0)] * cls.dims
        elif isinstance(module.padding, str):
            flat = module._reversed_padding_repeated_twice  # last dimension first
            pads = [(flat[2 * i], flat[2 * i + 1]) for i in reversed(range(cls.dims))]
        else:
            pads = [(p, p) for p in module.padding]
        return _unfold(x, module.kernel_size, module.stride, module.dilation, pads, module.groups)

    @classmethod
    def outputs(cls, module: Any, y: Tensor) -> Tensor:
        return cls.batched(module, y).flatten(2).transpose(1, 2)


@KINDS.register("conv1d")
class Conv1dAdapter(_ConvAdapter):
    kind, dims = "conv1d", 1

    @classmethod
    def takes(cls, module: nn.Module) -> bool:
        return isinstance(module, nn.Conv1d)


@KINDS.register("conv2d")
class Conv2dAdapter(_ConvAdapter):
    kind, dims = "conv2d", 2

    @classmethod
    def takes(cls, module: nn.Module) -> bool:
        return isinstance(module, nn.Conv2d)


class _ConvTransposeAdapter(_ConvAdapter):
    """Transposed convolutions; the stored weight is (inputs, outputs / G, *kernel)."""

    @classmethod
    def matrix(cls, module: Any) -> Tensor:
        w, G = module.weight.detach(), module.groups
        w = w.reshape(G, w.shape[0] // G, w.shape[1], -1)  # (G, in/G, out/G, K)
        return w.transpose(1, 2).reshape(module.out_channels, -1)

    @classmethod
    def assign(cls, module: Any, M: Tensor) -> None:
        Adapter.assign.__func__(cls, module, cls._stored(module, M))  # type: ignore[attr-defined]

    @classmethod
    def _stored(cls, module: Any, M: Tensor) -> Tensor:
        G, shape = module.groups, module.weight.shape
        M = M.reshape(G, module.out_channels // G, shape[0] // G, -1)
        return M.transpose(1, 2).reshape(shape)

    @classmethod
    def apply(cls, module: Any, x: Tensor, M: Tensor) -> Tensor:
        transposed = F.conv_transpose1d if cls.dims == 1 else F.conv_transpose2d
        weight = cls._stored(module, M).to(x.dtype)
        return transposed(
            x, weight, None, module.stride, module.padding, module.output_padding,
            module.groups, module.dilation,
        )  # fmt: skip

    @classmethod
    def patches(cls, module: Any, x: Tensor) -> Tensor:
        x = cls.batched(module, x)
        # y is a stride-1 convolution of the zero-stuffed input with the flipped kernel
        stuffed = x
        for d, stride in enumerate(module.stride, start=2):
            shape = list(stuffed.shape)
            shape[d] = (shape[d] - 1) * stride + 1
            spread = stuffed.new_zeros(shape)
            spread[(slice(None),) * d + (slice(None, None, stride),)] = stuffed
            stuffed = spread
        pads = []
        for d in range(cls.dims):
            reach = module.dilation[d] * (module.kernel_size[d] - 1) - module.padding[d]
            pads.append((reach, reach + module.output_padding[d]))
        ones = (1,) * cls.dims
        cols = _unfold(stuffed, module.kernel_size, ones, module.dilation, pads, module.groups)
        K = module.weight[0, 0].numel()
        return cols.unflatten(-1, (-1, K)).flip(-1).flatten(-2)

    @classmethod
    def macs(cls, module: Any, x: Tensor, y: Tensor) -> int:
        return x.numel() // module.in_channels * module.weight.numel()


@KINDS.register("conv_transpose1d")
class ConvTranspose1dAdapter(_ConvTransposeAdapter):
    kind, dims = "conv_transpose1d", 1

    @classmethod
    def takes(cls, module: nn.Module) -> bool:
        return isinstance(module, nn.ConvTranspose1d)


@KINDS.register("conv_transpose2d")
class ConvTranspose2dAdapter(_ConvTransposeAdapter):
    kind, dims = "conv_transpose2d", 2

    @classmethod
    def takes(cls, module: nn.Module) -> bool:
        return isinstance(module, nn.ConvTranspose2d)


def adapter_for(module: nn.Module) -> type[Adapter] | None:
    """The adapter that describes ``module``, or None if it is not quantizable."""
    return next((a for a in KINDS.values() if a.takes(module)), None)


def adapter_of(module: nn.Module) -> type[Adapter]:
    """As ``adapter_for``, but raises ``ModelError`` for a module that is not quantizable."""
    adapter = adapter_for(module)
    if adapter is None:
        raise ModelError(
            f"a {type(module).__name__} is not a quantizable layer",
            f"known kinds: {', '.join(KINDS)}",
        )
    return adapter


def own_forward(kind: str, module: nn.Module) -> bool:
    """Whether a layer is an embedding that does something besides looking rows up."""
    return kind == EmbeddingAdapter.kind and type(module).forward is not nn.Embedding.forward


def beyond_lookup(kind: str, module: nn.Module) -> bool:
    """Whether a layer is an embedding that does more than look up, and scale."""
    return own_forward(kind, module) and not hasattr(module, "embed_scale")


def _unfold(
    x: Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    pads: list[tuple[int, int]],
    groups: int,
) -> Tensor:
    """Sliding windows of ``x`` (N, C, *spatial) as (N, P, G, C/G · kernel).

    Windows are views until the one copy at the end, which a cache holds if ``x`` is small: several
    times faster than ``F.unfold``.
    """
    if len(kernel) == 1:
        x, kernel, stride, dilation = x[:, :, None], (1, *kernel), (1, *stride), (1, *dilation)
        pads = [(0, 0), *pads]
    (top, bottom), (left, right) = pads
    windows = F.pad(x, (left, right, top, bottom))
    for d in (0, 1):
        reach = dilation[d] * (kernel[d] - 1) + 1
        windows = windows.unfold(2 + d, reach, stride[d])[..., :: dilation[d]]
    columns = windows.permute(0, 1, 4, 5, 2, 3).flatten(4)  # (N, C, *kernel, P), still a view
    cols = x.shape[1] // groups * kernel[0] * kernel[1]
    return columns.reshape(len(x), groups, cols, columns.shape[-1]).permute(0, 3, 1, 2)
