"""A deployed model's inputs at another number of samples and tokens, and what layers then get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from bitfront.errors import InvalidInput
from bitfront.quant.onnx_trace import Signature
from bitfront.quant.statistics import call_input
from bitfront.types import Layer


def sized(called: Signature, batch: int, tokens: int | None) -> dict[str, Tensor]:
    """Inputs of ``batch`` samples of ``tokens`` tokens (None: as many as the example has), made of
    the example's, which are repeated or cut.

    Raises ``InvalidInput`` for sizes that do not vary.
    """
    inputs = dict(called.inputs)
    first = [name for name, axes in called.axes.items() if 0 in axes]
    if not first and batch != 1:
        raise InvalidInput(f"{batch} samples of a model that takes one number of them", "use b1")
    along = {name: axes[1] for name, axes in called.axes.items() if len(axes) > 1}
    if tokens is not None and not along:
        raise InvalidInput(f"{tokens} tokens of a model without", "leave out s")
    for name in first:
        inputs[name] = _resized(inputs[name], 0, batch)
    for name, axis in along.items():
        if tokens is not None:
            inputs[name] = _resized(inputs[name], axis, tokens)
    return inputs


def layer_inputs(
    model: nn.Module, layers: Sequence[Layer], called: Signature, inputs: Mapping[str, Tensor]
) -> dict[str, list[Tensor]]:
    """Layer -> the input of each of its calls; none for layers that are not called."""
    found: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}

    def noting(name: str) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found[name].append(call_input(args, kwargs).detach().clone())

        return hook

    with ExitStack() as stack, torch.no_grad():
        for layer in layers:
            module = model.get_submodule(layer.name)
            handle = module.register_forward_pre_hook(noting(layer.name), with_kwargs=True)
            stack.callback(handle.remove)
        called.run(*inputs.values())
    return found


def _resized(x: Tensor, axis: int, size: int) -> Tensor:
    at = torch.arange(size, device=x.device) % x.shape[axis]
    return x.index_select(axis, at).contiguous()
