"""Listening to a model: each layer's input together with the gradient at its output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bitfront.errors import ModelError
from bitfront.quant.statistics import call_input

Receive = Callable[[str, Tensor, Tensor], None]
T = TypeVar("T")


class InputChanged(Exception):
    """A later operation overwrote a layer's input in place before its gradient arrived."""

    def __init__(self, layer: str) -> None:
        super().__init__(layer)
        self.layer = layer


def copying(run: Callable[[frozenset[str]], T]) -> T:
    """``run(copied)``, again with one layer more in ``copied`` each time its input was changed."""
    copied: frozenset[str] = frozenset()
    while True:
        try:
            return run(copied)
        except InputChanged as changed:
            copied |= {changed.layer}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode with frozen parameters; both are restored on exit."""
    modes = [(m, m.training) for m in model.modules()]
    flags = [(p, p.requires_grad) for p in model.parameters()]
    try:
        model.eval()
        for p, _ in flags:
            p.requires_grad_(False)
        yield
    finally:
        for m, mode in modes:
            m.training = mode
        for p, flag in flags:
            p.requires_grad_(flag)


@contextmanager
def tapped(
    model: nn.Module, names: Sequence[str], receive: Receive, copied: frozenset[str] = frozenset()
) -> Iterator[None]:
    """While this lasts, every backward pass calls ``receive(name, x, δ)`` for each call of a layer.

    x is the layer's input, as it is before a quantized layer rounds it; δ is the gradient at its
    output, both detached and of their own shapes.
    Parameters are frozen, so the graph begins at the first tapped layer and no weight gradient is
    ever formed. Inputs of layers in ``copied`` are copied, since the model overwrites them later;
    for another layer whose input turns out overwritten, ``InputChanged`` is raised.
    """

    inputs: dict[str, tuple[Tensor, int]] = {}  # of the call that is under way, and its version

    def before(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            x = call_input(args, kwargs).detach()
            x = x.clone() if name in copied else x
            inputs[name] = x, x._version

        return hook

    def after(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            x, version = inputs.pop(name)
            if not torch.is_grad_enabled():
                return None
            replaced = None
            if not output.requires_grad:  # the first layers: let the graph begin here
                output = output.detach().requires_grad_()
                replaced = output.clone()  # a leaf itself must not be modified in place

            def arrived(grad: Tensor) -> None:
                if x._version != version:
                    raise InputChanged(name)
                receive(name, x, grad.detach())

            output.register_hook(arrived)
            return replaced

        return hook

    handles = []
    with evaluating(model):
        try:
            for name in names:
                module = model.get_submodule(name)
                handles += [
                    # first of all, also of the hooks of a block that quantizes the layer
                    module.register_forward_pre_hook(before(name), prepend=True, with_kwargs=True),
                    module.register_forward_hook(after(name), with_kwargs=True),
                ]
            yield
        finally:
            for handle in handles:
                handle.remove()


def back_propagate(z: Tensor, u: Tensor, *, again: bool) -> None:
    """Send the probe ``u`` back from the outputs ``z``; ``again`` keeps the graph for another."""
    if not z.requires_grad:
        raise ModelError(
            "the outputs do not depend on any of the profiled layers in a differentiable way",
            "check that the model's forward does not detach, round or run under no_grad",
        )
    torch.autograd.backward(z, u.to(z.dtype), retain_graph=again)
