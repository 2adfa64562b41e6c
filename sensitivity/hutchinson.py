"""Trace of each layer's Hessian block by random probes: HAWQ-V2 (arXiv:1911.03852).

    H        Hessian of the mean loss per scored position (curvature.py)     n_l  weights of layer l
    s[l, c]  = ½ Tr(H_ll) / n_l · ‖ΔW_lc‖²                                  nats per scored position

HAWQ-V2 ranks by Tr(H_ll) / n_l · ‖ΔW_lc‖². The half makes it the second-order Taylor term of a
change in random direction, so that it is comparable with KL. The trace has two parts:

    Gauss-Newton  Tr(J_lᵀ A J_l) = E |J_lᵀ u|²,   u = √A ε of signs ε (probes.py): one backward pass
    residual      Tr(R_ll) = E[v_l · (R v)_l],    v of signs, R v one product (products.py)

For ``kl`` the first is all. A product H v in the weights would give it too, for all layers at once,
but then terms between layers are noise: on a ResNet-20, 64 such probes left an error larger than
the trace of the layers that matter least. From the outputs' side there are no such terms.
``labels`` adds the residual part, for which there is no other way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfront.errors import InvalidInput
from bitfront.tasks.base import Batch, Task
from bitfront.tasks.metrics import wide
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
from .curvature import (
    METRICS,
    Weights,
    differentiable,
    finite,
    gradients,
    loss_of,
    positions,
    weights_by_owner,
)
from .probes import probe
from .products import Products, rayleigh, steps
from .quadratic import Vectors, loss_read, redrawn, refuse_unreached, scaled, squared_changes
from .stability import ratio_estimate

LEAST = 8  # probes of a batch before their spread is believed


@PROFILERS.register("hutchinson")
@dataclass(frozen=True)
class Hutchinson(Profiler):
    """Mean curvature times squared change of the weights, in nats; rounded inputs are not seen.

    loss: ``kl`` to the full model, or ``labels``, the cross-entropy of the task's own. until:
    relative standard error over probes at which a layer's trace is good enough. probes: the most
    for each batch. seed: of their signs.
    """

    loss: str = "kl"
    until: float = 0.1
    probes: int = 64
    seed: int = 0

    name: ClassVar[str] = "hutchinson"
    one_pass: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.loss not in METRICS:
            raise InvalidInput(f"loss {self.loss!r}", f"choose from {', '.join(METRICS)}")
        if not self.until > 0:
            raise InvalidInput(f"until {self.until}", "give a relative error above 0, like 0.1")
        if self.probes < 2:
            raise InvalidInput(f"{self.probes} probes", "allow 2 at least: one has no spread")

    @classmethod
    def reader(cls, measurements: Iterable[Measurement]) -> Hutchinson:
        """One of the loss that was measured."""
        return cls(loss=loss_read(measurements))

    def measure(
        self, subject: Subject, pairs: Sequence[Pair], checkpoints: Checkpoints
    ) -> Iterator[list[Measurement]]:
        changes = squared_changes(subject, pairs)
        sizes = {layer.shares or layer.name: layer.weights for layer, _ in pairs}
        parts = by_batch(subject, checkpoints, partial(self._batch, subject, list(sizes)))
        samples = sum(batch.samples for batch in subject.batches)
        refuse_unreached("q", list(sizes), parts)
        found = {owner: _mean_curvature(owner, n, parts, samples) for owner, n in sizes.items()}
        yield scaled(self, METRICS[self.loss], pairs, changes, found)

    def tables(
        self, measurements: Iterable[Measurement], layers: Sequence[str], schemes: Sequence[str]
    ) -> dict[str, Sensitivities]:
        """The one table, of the loss's metric: ``kl`` or ``nll``.

        Its notes have the most ``probes`` that a layer took in a batch, and ``probe_error``, the
        worst layer's relative standard error over probes.
        """
        recorded = [m for m in measurements if m.layer in layers and m.scheme in schemes]
        vectors = [m.vectors for m in recorded if m.vectors]
        notes: dict[str, Any] = {"loss": self.loss}
        if vectors:
            notes["probes"] = max(int(v["probes"].max()) for v in vectors)
            notes["probe_error"] = max(_relative(v["noise"], v["trace"]) for v in vectors)
        metric = METRICS[self.loss]
        table = assemble(
            recorded, layers, schemes, metric, metric=metric, profiler=self.name, notes=notes
        )
        return {metric: table}

    def resampled(self, measurement: Measurement, table: str, W: Float) -> Float | None:
        """From the traces of batches."""
        return redrawn(measurement, table, "trace", W)

    def finer(self) -> Hutchinson | None:
        """Half the error over probes, and as many more of these as that takes."""
        return replace(self, until=self.until / 2, probes=4 * self.probes)

    def _batch(self, subject: Subject, owners: Sequence[str], index: int) -> Arrays:
        """``q/OWNER`` (probes,), each an estimate of the trace of the batch's summed loss.

        A layer takes probes until it is settled, whatever others need. The relative error allowed
        to one of B batches is √B times that of their sum, B being all of the calibration data's,
        so that a batch has the same probes in a pass over a part.
        """
        task, batch = subject.task, subject.batches[index]
        allowed = self.until * math.sqrt(len(task.calibration))
        every = weights_by_owner(task)
        waiting = {name: every[name] for name in owners}
        weights = every if self.loss == "labels" else waiting  # v is of all layers
        q: dict[str, list[float]] = {}
        with differentiable(task.model, weights):
            z = task.outputs(batch)
            residual = self._residual(task, batch, z, weights, index)
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
            for drawn in range(1, self.probes + 1):
                u = probe(
                    z, task.output, kind="rademacher", temperature=1.0, generator=generator,
                    scored=batch.counted,
                )  # fmt: skip
                part = next(residual)
                for name, g in gradients(z, u, waiting).items():
                    sample = float(sum(g[1:], g[0]).double().square().sum()) + part.get(name, 0.0)
                    q.setdefault(name, []).append(finite(name, sample))
                waiting = {n: weights[n] for n in q if drawn < LEAST or not _settled(q[n], allowed)}
                if not waiting:
                    break
            count = positions(batch, z)
        return {"count": np.array([count]), **{f"q/{name}": np.array(x) for name, x in q.items()}}

    def _residual(
        self, task: Task, batch: Batch, z: Tensor, weights: Weights, index: int
    ) -> Iterator[dict[str, float]]:
        """By owner, v_l · (R v)_l of one probe after another; nothing for ``kl``."""
        if self.loss == "kl":
            yield from repeat({})
        leaf = z.detach().requires_grad_()
        (r,) = torch.autograd.grad(loss_of(task, batch, self.loss, leaf), leaf)
        R = Products((r * wide(z)).sum(), weights)
        for v in steps(weights, self.seed, index):
            Rv = R.times(v)
            yield {name: v[name].numel() * rayleigh(v[name], Rv[name]) for name in v}


def _mean_curvature(
    owner: str, weights: int, parts: Sequence[Arrays], samples: int
) -> tuple[Estimate, Vectors]:
    """Tr(H) / n of one layer, and by batch: trace, its variance over probes, number of probes.

    The standard error is the larger of two: over batches, which holds the noise of probes and of
    the data but is rough for few batches, and over probes alone.
    """
    found = [part.get(f"q/{owner}") for part in parts]
    count = np.concatenate([part["count"] for part in parts]).astype(np.float64)
    trace = np.array([0.0 if q is None else q.mean() for q in found])
    noise = np.array([0.0 if q is None else _noise(q) for q in found])
    value, over_batches = ratio_estimate(trace, count)
    over_probes = math.sqrt(noise.sum()) / count.sum()
    stderr = float(np.fmax(over_batches, over_probes))
    probes = np.array([0 if q is None else len(q) for q in found])
    vectors = {"trace": trace, "noise": noise, "probes": probes, "count": count}
    return Estimate(value / weights, stderr / weights, samples), vectors


def _noise(q: Sequence[float] | NDArray[np.float64]) -> float:
    """Variance of the mean of q, from its spread."""
    return float(np.var(q, ddof=1)) / len(q)


def _settled(q: Sequence[float], allowed: float) -> bool:
    return math.sqrt(_noise(q)) <= allowed * abs(float(np.mean(q)))


def _relative(noise: NDArray[np.float64], trace: NDArray[np.float64]) -> float:
    """Standard error of Σ trace over its size; 0 for a layer without curvature or noise."""
    error, total = math.sqrt(noise.sum()), abs(float(trace.sum()))
    return error / total if total else 0.0 if not error else math.inf
