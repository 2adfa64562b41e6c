"""A deployed model's inputs at another number of samples and tokens, and what layers then get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bitfront.errors import InvalidInput
from bitfront.quant.onnx_trace import Signature
from bitfront.quant.statistics import call_input
from bitfront.types import Layer

from .cached import ALL, BATCH, PAST, TOKENS


def sized(
    called: Signature, batch: int, tokens: int | None = None, past: int | None = None
) -> dict[str, Tensor]:
    """Inputs of ``batch`` samples of ``tokens`` tokens (None: as many as the example has) after
    ``past`` others, made of the example's, which are repeated or cut.

    Raises ``InvalidInput`` for sizes that do not vary.
    """
    sizes = {
        (name, axis): size for name, axes in called.axes.items() for axis, size in axes.items()
    }
    known = set(sizes.values())
    if batch != 1 and BATCH not in known:
        raise InvalidInput(f"{batch} samples of a model that takes one number of them", "use b1")
    if tokens is not None and TOKENS not in known:
        raise InvalidInput(f"{tokens} tokens of a model without", "leave out s")
    if past is not None and PAST not in known:
        raise InvalidInput(f"{past} tokens in the cache of a model without", "leave out p")
    given = {size: called.inputs[name].shape[axis] for (name, axis), size in sizes.items()}
    wanted = {**given, BATCH: batch, TOKENS: tokens or given.get(TOKENS, 0), PAST: past or 0}
    wanted[ALL] = wanted[TOKENS] + wanted[PAST]
    inputs = dict(called.inputs)
    for (name, axis), size in sizes.items():
        inputs[name] = _resized(inputs[name], axis, wanted[size])
    return inputs


class Call(NamedTuple):
    """Of a layer. given: its input. made: elements of its output."""

    given: Tensor
    made: int


def layer_calls(
    model: nn.Module, layers: Sequence[Layer], called: Signature, inputs: Mapping[str, Tensor]
) -> dict[str, list[Call]]:
    """Layer -> its calls; none for layers that are not called.

    None of an embedding that does more than look up: what it is given is no input of a kernel.
    """
    found: dict[str, list[Call]] = {layer.name: [] for layer in layers}

    def noting(name: str) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any) -> None:
            found[name].append(Call(call_input(args, kwargs).detach().clone(), made.numel()))

        return hook

    with ExitStack() as stack, torch.no_grad():
        for layer in layers:
            if layer.beyond_lookup:
                continue
            module = model.get_submodule(layer.name)
            handle = module.register_forward_hook(noting(layer.name), with_kwargs=True)
            stack.callback(handle.remove)
        called.run(*inputs.values())
    return found


def _resized(x: Tensor, axis: int, size: int) -> Tensor:
    if not x.shape[axis]:  # keys and values of no tokens
        shape = list(x.shape)
        shape[axis] = size
        return torch.zeros(shape, dtype=x.dtype, device=x.device)
    at = torch.arange(size, device=x.device) % x.shape[axis]
    return x.index_select(axis, at).contiguous()
