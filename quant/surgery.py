"""Quantized layers in a live model, for as long as a ``with`` block lasts.

Weights change in place and come back bit for bit; inputs, and outputs that are rounded or cached,
are quantized by hooks. Weights on borrowed memory get memory of their own while they are changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from bitfront.errors import ModelError
from bitfront.scratch import Scratch
from bitfront.types import Activation, Scheme

from .activations import fake_cache, fake_output, fake_quantize
from .formats import dequantize
from .layers import adapter_of
from .statistics import call_input
from .suitability import TOKEN_KINDS
from .weights import QuantizedLayer

# weight parameter -> its original matrix, while it is replaced
_ORIGINALS: WeakIdKeyDictionary = WeakIdKeyDictionary()
# weight parameter -> memory of others that it stands on, which nobody may write to
_BORROWED: WeakIdKeyDictionary = WeakIdKeyDictionary()


def borrow(weight: nn.Parameter, memory: Tensor) -> None:
    """Let ``weight`` have its values in ``memory``, of its shape and dtype, which others share."""
    weight.data = memory
    _BORROWED[weight] = memory


@contextmanager
def applied(
    model: nn.Module, layers: Mapping[str, QuantizedLayer], scratch: Scratch | None = None
) -> Iterator[nn.Module]:
    """``model`` with ``layers`` quantized, until the block ends, however it ends.

    Originals wait in ``scratch`` (default: one of its own), so that no second copy of the model
    need fit in memory. Blocks may be nested on different layers. Raises ``ModelError`` for a layer
    that is applied already, or two layers that share a tensor and want different weights.
    """
    with ExitStack() as stack:
        room = stack.enter_context(Scratch()) if scratch is None else scratch
        done: dict[int, str] = {}
        for name, layer in layers.items():
            module = model.get_submodule(name)
            weight = weight_of(name, module)
            if id(weight) in done:
                _check_same(name, module, layer, done[id(weight)])
            else:
                _replace(stack, name, module, layer, room)
                done[id(weight)] = name
            activation = layer.weight.scheme.activation
            if activation is not None:
                hook = input_hook(
                    name, activation, adapter_of(module).kind, layer.input_scale, layer.input_zero
                )
                stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
                if activation.output:
                    rounding = output_hook(layer, adapter_of(module).kind)
                    stack.callback(module.register_forward_hook(rounding).remove)
            if layer.head:
                cached = cache_hook(layer.weight.scheme, layer.head)
                stack.callback(module.register_forward_hook(cached).remove)
        yield model


class Lazily(Mapping[str, QuantizedLayer]):
    """Quantized layers by name, each made when it is asked for and kept by whoever asked."""

    def __init__(self, names: Iterable[str], make: Callable[[str], QuantizedLayer]) -> None:
        self._names, self._make = list(names), make

    def __getitem__(self, name: str) -> QuantizedLayer:
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def original(name: str, module: nn.Module) -> Tensor:
    """The full-precision weight matrix (rows, cols) of layer ``name``, applied or not."""
    weight = weight_of(name, module)
    saved: Tensor | None = _ORIGINALS.get(weight)
    return adapter_of(module).matrix(module) if saved is None else saved.to(weight.device)


def is_applied(name: str, module: nn.Module) -> bool:
    """Whether the weight of layer ``name`` is replaced at the moment."""
    return weight_of(name, module) in _ORIGINALS


def weight_of(name: str, module: nn.Module) -> nn.Parameter:
    """The module's own weight. Raises ``ModelError`` for one that is computed on the fly."""
    weight = module._parameters.get("weight")
    if weight is None:
        raise ModelError(
            f"the weight of layer {name!r} is not a parameter of its own",
            "fold its parametrization (weight norm, LoRA) into the weight first",
        )
    return weight


def _replace(
    stack: ExitStack, name: str, module: nn.Module, layer: QuantizedLayer, room: Scratch
) -> None:
    weight, adapter = weight_of(name, module), adapter_of(module)
    if weight in _ORIGINALS:
        raise ModelError(f"layer {name!r} is quantized already", "leave the outer block first")
    M = adapter.matrix(module)
    if M.shape != layer.weight.shape:
        raise ModelError(
            f"layer {name!r} has weights {tuple(M.shape)}, its quantized form {layer.weight.shape}",
            "quantize this model's own layers",
        )
    saved = M if weight in _BORROWED else room.keep(M)
    stack.callback(_restore, weight, module, saved)
    _ORIGINALS[weight] = saved
    if weight in _BORROWED:
        weight.data = torch.empty_like(weight)
    adapter.assign(module, dequantize(layer.weight, weight.dtype).to(weight.device))


def _restore(weight: nn.Parameter, module: nn.Module, saved: Tensor) -> None:
    interrupt = None
    while True:
        try:
            if weight in _BORROWED:
                weight.data = _BORROWED[weight]
            else:
                adapter_of(module).assign(module, saved)
            _ORIGINALS.pop(weight, None)
            break
        except KeyboardInterrupt as error:  # finish first: a half-restored model is worthless
            interrupt = error
    if interrupt is not None:
        raise interrupt


def _check_same(name: str, module: nn.Module, layer: QuantizedLayer, other: str) -> None:
    M = adapter_of(module).matrix(module)
    if not torch.equal(dequantize(layer.weight, M.dtype).to(M.device), M):
        raise ModelError(
            f"layers {name!r} and {other!r} share a weight but are to be quantized differently",
            "give tied layers the same scheme",
        )


def input_hook(
    name: str, activation: Activation, kind: str, step: Tensor | None, zero: int | None = None
) -> Any:
    """A forward pre-hook (with keyword arguments) that quantizes a layer's input.

    name, kind: the layer's. step: 0-dim float32, for static activations; zero: the code of 0, where
    they have a zero point. Raises ``ModelError`` when the step is missing.
    """
    if activation.static and step is None:
        raise ModelError("a static activation scheme without a step", "build the layer by Builder")

    def hook(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        x = fake_quantize(name, call_input(args, kwargs), activation, kind, step, zero)
        if args:
            return (x, *args[1:]), kwargs
        return args, {**kwargs, next(iter(kwargs)): x}

    return hook


def output_hook(layer: QuantizedLayer, kind: str) -> Any:
    """A forward hook that rounds a layer's output, bias included. kind: the layer's.

    Raises ``ModelError`` when the step of outputs is missing.
    """
    if layer.output_scale is None:
        raise ModelError("rounded outputs without a step", "build the layer by Builder")

    def hook(module: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return fake_output(layer, output, module.bias, channel_axis(module, kind))

    return hook


def channel_axis(module: Any, kind: str) -> int:
    """The dimension of a layer's outputs, batched or not, that its channels are in."""
    return -1 if kind in TOKEN_KINDS else 1 - int(module.weight.ndim)


def cache_hook(scheme: Scheme, head: int) -> Any:
    """A forward hook that quantizes a key or value projection's output as it is cached.

    head: outputs of one head.
    """
    assert scheme.cache is not None
    bits = scheme.cache

    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return fake_cache(output, bits, head)

    return hook
