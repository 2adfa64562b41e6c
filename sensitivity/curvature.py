"""Second derivatives of a batch's loss in the weights of layers, as products with vectors.

    L       loss of a batch, summed over its scored positions, in nats
    W       weight of an owner: of a layer, and of all layers that use the same tensor
    g       ∂L/∂W, of W's shape, and differentiable itself
    v, H v  a direction of W's shape, and ∂(g · v)/∂W: one more backward pass; H is never formed

    kl      KL(p ‖ q) to the model's own output p, at q = p: its gradient is zero there, and H is
            the Fisher matrix Σ Jᵀ (diag p - p pᵀ) J of the outputs, J their Jacobian in W
    labels  cross-entropy of the task's own labels: H has a second part, and may have negative
            eigenvalues

Outputs, gradients and products are in the model's own dtype, the loss and all sums in float32 or
wider.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bitfront.errors import ModelError
from bitfront.quant.surgery import weight_of
from bitfront.tasks.base import Batch, Task
from bitfront.tasks.boundary import foreign
from bitfront.tasks.metrics import kl, nll, wide

from .probes import labels_of, signs
from .taps import evaluating

METRICS = {"kl": "kl", "labels": "nll"}  # loss -> the metric whose increase it stands for
TWICE = (
    "the model's operations must be differentiable twice: load it without fused kernels "
    "(attn_implementation='eager'), or use the profiler fisher"
)

Parameters = tuple[nn.Parameter, ...]


@dataclass(frozen=True, eq=False)
class Curvature:
    """Products with the Hessian of one batch's loss, while ``curvature`` lasts.

    weights: owner -> its parameter, or several of one shape in the same memory. gradients: of
    owners that the loss depends on, to their parameters. count: scored positions of the batch.
    """

    weights: Mapping[str, Parameters]
    gradients: Mapping[str, tuple[Tensor, ...]]
    count: int

    def times(self, v: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """H v, by owner, of the block of H that belongs to the owners in ``v``.

        Raises ``ModelError`` for an operation that cannot be differentiated twice, and for
        products that are not finite.
        """
        inputs = [w for name in v for w in self.weights[name]]
        outputs = [g for name in v for g in self.gradients[name]]
        directions = [d for name, d in v.items() for _ in self.weights[name]]
        with foreign("differentiating the model twice", TWICE):
            flat = torch.autograd.grad(
                outputs, inputs, [d.to(w.dtype) for d, w in zip(directions, inputs, strict=True)],
                retain_graph=True, materialize_grads=True,
            )  # fmt: skip
        found, at = {}, 0
        for name in v:
            parts = flat[at : at + len(self.weights[name])]
            at += len(parts)
            found[name] = torch.stack([wide(part) for part in parts]).sum(0)
            if not torch.isfinite(found[name]).all():
                raise ModelError(
                    f"the curvature of layer {name!r} is not finite",
                    "use a wider dtype (float32), or leave the layer out",
                )
        return found

    def direction(self, name: str, seed: int, index: int) -> Iterator[Tensor]:
        """Independent random signs times the root mean square of W, without end.

        As large as the weights: a step that 16 bits hold, and that no layer's share of drowns the
        others'. The same for the same seed, batch index and owner, whatever else is asked.
        """
        weight = self.weights[name][0]
        key = zlib.crc32(f"{seed} {index} {name}".encode())
        generator = torch.Generator().manual_seed(key)
        size = wide(weight.detach()).square().mean().sqrt()
        size = torch.where(size > 0, size, 1.0).to(weight.dtype)
        while True:
            drawn = signs(tuple(weight.shape), generator).to(weight.device)
            yield wide(drawn * size)


@contextmanager
def curvature(task: Task, batch: Batch, loss: str) -> Iterator[Curvature]:
    """Of all layers of the model as it is now; ``loss`` is a key of ``METRICS``.

    The model is evaluated with gradients of its layers' weights alone, and with attention in plain
    matrix products, since fused kernels have no second derivative. Raises ``ModelError`` for
    outputs that depend on no layer in a differentiable way, and ``DataError`` for labels that are
    wanted and missing.
    """
    weights = weights_by_owner(task)
    with evaluating(task.model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        for parameters in weights.values():
            for parameter in parameters:
                parameter.requires_grad_(True)
        z = task.outputs(batch)
        if not z.requires_grad:
            raise ModelError(
                "the outputs do not depend on any layer in a differentiable way",
                "check that the model's forward does not detach, round or run under no_grad",
            )
        L, count = _loss(task, batch, loss, z)
        flat = [w for parameters in weights.values() for w in parameters]
        with foreign("differentiating the model", TWICE):
            g = torch.autograd.grad(L, flat, create_graph=True, allow_unused=True)
        of = dict(zip(map(id, flat), g, strict=True))
        reached = {
            name: tuple(w for w in parameters if of[id(w)] is not None)
            for name, parameters in weights.items()
        }
        reached = {name: parameters for name, parameters in reached.items() if parameters}
        gradients = {name: tuple(of[id(w)] for w in p) for name, p in reached.items()}
        yield Curvature(reached, gradients, count)


def weights_by_owner(task: Task) -> dict[str, Parameters]:
    """Owner -> the parameters that hold its weight: one, unless a model ties them by their memory.

    Raises ``ModelError`` for a weight that is computed on the fly, and for parameters that share
    memory in different shapes.
    """
    found: dict[str, Parameters] = {}
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


def rayleigh(v: Tensor, Hv: Tensor) -> float:
    """v · H v / v · v, summed in float64."""
    return float((v.double() * Hv).sum() / v.double().square().sum())


def _loss(task: Task, batch: Batch, loss: str, z: Tensor) -> tuple[Tensor, int]:
    """Of outputs z (N, P, K), and the number of positions that it is the sum of."""
    rows = torch.arange(z.shape[0] * z.shape[1], device=z.device)
    if batch.scored is not None:
        rows = rows[batch.scored.flatten().to(z.device)]
    y = z.flatten(0, 1)[rows]
    if loss == "labels":
        t = labels_of(batch, task.output).flatten().to(z.device)[rows]
        return nll(y, y, t, task.output).sum(), len(rows)
    return kl(y.detach(), y, None, task.output).sum(), len(rows)
