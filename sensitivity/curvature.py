"""A batch's loss, and its derivatives in the weights of layers; products.py has the second ones.

    z       outputs (N, P, K)
    L       loss of the batch, in nats: sum over its scored positions, each times its weight
    W       weight of an owner: of a layer, and of all layers that use the same tensor
    J       ∂z/∂W              r  ∂L/∂z              A  ∂²L/∂z²
    H       ∂²L/∂W² = Jᵀ A J + Σ r ∂²z/∂W²: the Gauss-Newton part, and the residual one

    kl      KL(p ‖ q) to the model's own output p, at q = p: r is zero, A = diag p - p pᵀ, and H is
            the Fisher matrix
    labels  cross-entropy of the task's own labels: the same A, and r = p - y

Outputs, gradients and products are in the model's own dtype, the loss and all sums in float32 or
wider.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bitfront.errors import ModelError
from bitfront.quant.surgery import weight_of
from bitfront.tasks.base import Batch, Task
from bitfront.tasks.boundary import foreign
from bitfront.tasks.metrics import kl, nll

from .probes import labels_of
from .taps import evaluating, no_gradient

METRICS = {"kl": "kl", "labels": "nll"}  # loss -> the metric whose increase it stands for
TWICE = (
    "its operations must be differentiable twice: load it without fused kernels "
    "(attn_implementation='eager'), or use the profiler fisher"
)

Weights = Mapping[str, tuple[nn.Parameter, ...]]
"""Owner -> the parameters that hold its weight: one, unless a model ties them by their memory."""


def weights_by_owner(task: Task) -> dict[str, tuple[nn.Parameter, ...]]:
    """``Weights`` of all layers of a task.

    Raises ``ModelError`` for a weight that is computed on the fly, and for parameters that share
    memory in different shapes.
    """
    found: dict[str, tuple[nn.Parameter, ...]] = {}
    for layer in task.layers:
        weight = weight_of(layer.name, task.module(layer.name))
        owner = layer.shares or layer.name
        held = found.setdefault(owner, (weight,))
        if weight.shape != held[0].shape:
            raise ModelError(
                f"layers {owner!r} and {layer.name!r} hold one weight in two shapes",
                "tie them as one parameter, or leave both out",
            )
        if all(weight is not other for other in held):
            found[owner] = (*held, weight)
    return found


@contextmanager
def differentiable(model: nn.Module, weights: Weights) -> Iterator[None]:
    """While this lasts the model is evaluated, with gradients of ``weights`` alone.

    Attention runs in plain matrix products, since its fused kernels have no second derivative.
    """
    with evaluating(model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        for parameters in weights.values():
            for parameter in parameters:
                parameter.requires_grad_(True)
        yield


def loss_of(task: Task, batch: Batch, loss: str, z: Tensor) -> Tensor:
    """L of outputs z, 0-dim; ``loss`` is a key of ``METRICS``.

    Raises ``DataError`` for labels that are wanted and missing.
    """
    counted = batch.counted
    kept = slice(None) if counted is None else (counted > 0).to(z.device)
    y = z[kept].reshape(-1, z.shape[-1])
    if loss == "labels":
        t = labels_of(batch, task.output).to(z.device)[kept].reshape(-1)
        each = nll(y, y, t, task.output)
    else:
        each = kl(y.detach(), y, None, task.output)
    return each.sum() if counted is None else (each * counted.to(each)[kept]).sum()


def positions(batch: Batch, z: Tensor) -> float:
    """What the positions of a batch with outputs z count for in all: their number, or weights."""
    return float(batch.counts(z.shape[1]).sum())


def gradients(
    outputs: Tensor, u: Tensor, weights: Weights, *, twice: bool = False
) -> dict[str, tuple[Tensor, ...]]:
    """∂(outputs · u)/∂W by owner, of those that the outputs depend on; the graph is kept.

    u: of the outputs' shape. twice: whether the gradients are to be differentiated again. Raises
    ``ModelError`` for an operation without a gradient, naming the first layer that it cuts off.
    """
    if not outputs.requires_grad:  # none of these layers ran, or nothing of them is left
        return {}

    def differentiated(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            outputs, inputs, u.to(outputs.dtype),
            retain_graph=True, create_graph=twice, allow_unused=True,
        )  # fmt: skip

    flat = [w for parameters in weights.values() for w in parameters]
    with foreign("differentiating the model", TWICE):
        try:
            found = differentiated(flat)
        except (RuntimeError, NotImplementedError) as error:
            if layers := _beyond(weights, differentiated):
                raise no_gradient(layers, error) from error
            raise
    of = dict(zip(map(id, flat), found, strict=True))
    parts = {n: tuple(of[id(w)] for w in p if of[id(w)] is not None) for n, p in weights.items()}
    return {name: part for name, part in parts.items() if part}


def _beyond(weights: Weights, differentiated: Callable[[Sequence[Tensor]], object]) -> list[str]:
    """The owners that an operation without a gradient keeps gradients from."""
    found = []
    for name, parameters in weights.items():
        try:
            differentiated(parameters)
        except (RuntimeError, NotImplementedError):
            found.append(name)
    return found


def finite(owner: str, value: float) -> float:
    """``value``, of one layer's curvature. Raises ``ModelError`` for one that is not finite."""
    if not abs(value) < float("inf"):
        raise ModelError(
            f"the curvature of layer {owner!r} is {value}",
            "use a wider dtype (float32), or leave the layer out",
        )
    return value
