"""Largest eigenvalue of each layer's Hessian block by power iteration: HAWQ (arXiv:1905.03696).

    H_b      Hessian block of a layer, of the loss summed over batch b (products.py)
    λ_b      its largest eigenvalue: v ← H_b v / |H_b v| until v · H_b v / v · v hardly changes
    n_b      scored positions of batch b
    s[c]     = ½ (Σ_b λ_b / Σ_b n_b) ‖ΔW_c‖²                             nats per scored position

To second order the greatest increase that a change of this size can cause. A mean of the largest
eigenvalues of batches is at least the largest one of their mean: with small batches it overstates.
Each step is a product for each layer by itself, so that the time grows with the number of layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bitfront.errors import InvalidInput
from bitfront.types import Estimate, Measurement, Sensitivities

from .base import (
    PROFILERS,
    Arrays,
    Checkpoints,
    Float,
    Pair,
    Profiler,
    Subject,
    assemble,
    by_batch,
)
from .curvature import METRICS, differentiable, finite, loss_of, positions, weights_by_owner
from .products import Products, rayleigh, steps
from .quadratic import Vectors, loss_read, redrawn, refuse_unreached, scaled, squared_changes
from .stability import ratio_estimate

Product = Callable[[Tensor], Tensor]


@PROFILERS.register("eigen")
@dataclass(frozen=True)
class Eigen(Profiler):
    """Largest curvature times squared change of the weights, in nats; rounded inputs are not seen.

    loss: ``kl`` to the full model, or ``labels``, the cross-entropy of the task's own. until:
    relative change of an eigenvalue at which its iteration stops. iterations: the most for each
    layer and batch. seed: of the first vectors. Standard errors are over batches (nan for one).
    """

    loss: str = "kl"
    until: float = 0.01
    iterations: int = 50
    seed: int = 0

    name: ClassVar[str] = "eigen"
    one_pass: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.loss not in METRICS:
            raise InvalidInput(f"loss {self.loss!r}", f"choose from {', '.join(METRICS)}")
        if not self.until > 0:
            raise InvalidInput(f"until {self.until}", "give a relative change above 0, like 0.01")
        if self.iterations < 2:
            raise InvalidInput(f"{self.iterations} iterations", "allow 2 at least")

    @classmethod
    def reader(cls, measurements: Iterable[Measurement]) -> Eigen:
        """One of the loss that was measured."""
        return cls(loss=loss_read(measurements))

    def measure(
        self, subject: Subject, pairs: Sequence[Pair], checkpoints: Checkpoints
    ) -> Iterator[list[Measurement]]:
        changes = squared_changes(subject, pairs)
        owners = list(dict.fromkeys(layer.shares or layer.name for layer, _ in pairs))
        parts = by_batch(subject, checkpoints, partial(self._batch, subject, owners))
        samples = sum(batch.samples for batch in subject.batches)
        refuse_unreached("e", owners, parts)
        found = {owner: _largest_curvature(owner, parts, samples) for owner in owners}
        yield scaled(self, METRICS[self.loss], pairs, changes, found)

    def tables(
        self, measurements: Iterable[Measurement], layers: Sequence[str], schemes: Sequence[str]
    ) -> dict[str, Sensitivities]:
        """The one table, of the loss's metric: ``kl`` or ``nll``.

        Its notes have the most ``iterations`` that a layer took in a batch.
        """
        recorded = [m for m in measurements if m.layer in layers and m.scheme in schemes]
        taken = [int(m.vectors["iterations"].max()) for m in recorded if m.vectors]
        notes: dict[str, Any] = {"loss": self.loss}
        if taken:
            notes["iterations"] = max(taken)
        metric = METRICS[self.loss]
        table = assemble(
            recorded, layers, schemes, metric, metric=metric, profiler=self.name, notes=notes
        )
        return {metric: table}

    def resampled(self, measurement: Measurement, table: str, W: Float) -> Float | None:
        """From the eigenvalues of batches."""
        return redrawn(measurement, table, "eigenvalue", W)

    def _batch(self, subject: Subject, owners: Sequence[str], index: int) -> Arrays:
        """``e/OWNER``: (eigenvalue, iterations); none of owners the loss does not depend on."""
        task, batch = subject.task, subject.batches[index]
        every = weights_by_owner(task)
        weights = {name: every[name] for name in owners}
        with differentiable(task.model, weights):
            z = task.outputs(batch)
            H = Products(loss_of(task, batch, self.loss, z), weights)
            arrays: Arrays = {"count": np.array([positions(batch, z)])}
            first = next(steps(weights, self.seed, index))
            for name in H.reached:
                value, taken = self._top(partial(_block, H, name), first[name])
                arrays[f"e/{name}"] = np.array([finite(name, value), taken])
        return arrays

    def _top(self, block: Product, first: Tensor) -> tuple[float, int]:
        """The largest eigenvalue of one layer's block, and the iterations that it took."""
        value, taken = self._dominant(block, first)
        if not value < 0:
            return value, taken
        # the eigenvalue of largest size is the lowest: without it, none is below zero
        above, more = self._dominant(lambda v: block(v) - value * v, first)
        return value + above, taken + more

    def _dominant(self, product: Product, v: Tensor) -> tuple[float, int]:
        """The eigenvalue of largest size. v: where to begin; all steps have its length."""
        length = torch.linalg.vector_norm(v)
        value, taken, settled = math.nan, 0, False
        while not settled and taken < self.iterations:
            w = product(v)
            last, value = value, rayleigh(v, w)
            taken += 1
            settled = abs(value - last) <= self.until * abs(value) or not w.any()
            v = w * (length / torch.linalg.vector_norm(w))
        return value, taken


def _block(H: Products, name: str, v: Tensor) -> Tensor:
    return H.times({name: v})[name]


def _largest_curvature(
    owner: str, parts: Sequence[Arrays], samples: int
) -> tuple[Estimate, Vectors]:
    """λ per scored position of one layer, and by batch: eigenvalue, iterations."""
    count = np.concatenate([part["count"] for part in parts]).astype(np.float64)
    each = np.stack([part.get(f"e/{owner}", np.zeros(2)) for part in parts])
    vectors = {"eigenvalue": each[:, 0], "iterations": each[:, 1], "count": count}
    return Estimate(*ratio_estimate(each[:, 0], count), samples), vectors
