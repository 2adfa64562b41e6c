"""Listening to a model: each layer's input together with the gradient at its output."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bitfront.errors import ModelError
from bitfront.quant.statistics import call_input
from bitfront.tasks.boundary import describe, foreign

Receive = Callable[[str, Tensor, Tensor], None]
T = TypeVar("T")

REACH = (
    "leave out layers that the outputs do not depend on; where they do, let nothing that follows "
    "them detach, round or run under no_grad, or use a profiler without gradients (perturb, mse)"
)


class InputChanged(BaseException):  # nobody may take it for an error of the model
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
) -> Iterator[Collection[str]]:
    """While this lasts, every backward pass calls ``receive(name, x, δ)`` for each call of a layer.

    Yields the names of the layers that were called so far: not all need be, as experts. x is the
    layer's input, as it is before a quantized layer rounds it; δ is the gradient at its output,
    both detached and of their own shapes.
    Parameters are frozen, so the graph begins at the first tapped layer and no weight gradient is
    ever formed. Inputs of layers in ``copied`` are copied, since the model overwrites them later;
    for another layer whose input turns out overwritten, ``InputChanged`` is raised.
    """

    called: set[str] = set()
    inputs: dict[str, tuple[Tensor, int]] = {}  # of the call that is under way, and its version

    def before(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            called.add(name)
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
            yield called
        finally:
            for handle in handles:
                handle.remove()


def back_propagate(
    z: Tensor, u: Tensor, *, again: bool, unreached: Callable[[], Sequence[str]]
) -> None:
    """Send the probe ``u`` back from the outputs ``z``; ``again`` keeps the graph for another.

    unreached: the layers that no gradient has reached so far. Raises ``ModelError`` naming the
    first where the outputs depend on none in a differentiable way, or an operation has no gradient.
    """
    if not z.requires_grad:
        raise no_gradient(unreached())
    with foreign("differentiating the model", REACH):
        try:
            torch.autograd.backward(z, u.to(z.dtype), retain_graph=again)
        except (RuntimeError, NotImplementedError) as error:
            if layers := unreached():
                raise no_gradient(layers, error) from error
            raise


def no_gradient(
    layers: Sequence[str], cause: Exception | None = None, what: str = "gradient"
) -> ModelError:
    """That ``what`` reaches none of ``layers``, the first of which is named."""
    more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
    why = f" ({describe(cause)})" if cause is not None else ""
    return ModelError(f"no {what} reached layer {layers[0]!r}{more}{why}", REACH)
