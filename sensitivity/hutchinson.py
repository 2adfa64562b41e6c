"""Trace of each layer's Hessian block by random probes: HAWQ-V2 (arXiv:1911.03852).

    H        Hessian of the mean loss per scored position (curvature.py)     n_l  weights of layer l
    v        independent signs, E[v vᵀ] = 1        q_l = v_l · (H v)_l       E[q_l] = Tr(H_ll)
    s[l, c]  = ½ Tr(H_ll) / n_l · ‖ΔW_lc‖²                                  nats per scored position

HAWQ-V2 ranks by Tr(H_ll) / n_l · ‖ΔW_lc‖². The half makes it the second-order Taylor term of a
change in random direction, so that it is comparable with KL. Here one product H v with signs in all
layers together gives a q for each of them: terms between layers vanish in expectation and add
noise, at a cost that does not grow with the number of layers. The signs of each layer are scaled by
the size of its weights, so that no layer's share drowns in another's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import InvalidInput, ModelError
from bitfront.types import Estimate, Measurement, Sensitivities

from .base import PROFILERS, Arrays, Checkpoints, Pair, Profiler, Subject, assemble, by_batch
from .curvature import METRICS, curvature, rayleigh
from .quadratic import Vectors, scaled, squared_changes
from .stability import ratio_estimate

LEAST = 4  # probes of a batch before their spread is believed


@PROFILERS.register("hutchinson")
@dataclass(frozen=True)
class Hutchinson(Profiler):
    """Mean curvature times squared change of the weights, in nats; rounded inputs are not seen.

    loss: ``kl`` to the full model, or ``labels``, the cross-entropy of the task's own. until: of
    each layer's trace, the relative standard error over probes at which no more are drawn. probes:
    the most for each batch. seed: of their signs.
    """

    loss: str = "kl"
    until: float = 0.05
    probes: int = 64
    seed: int = 0

    name: ClassVar[str] = "hutchinson"
    one_pass: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.loss not in METRICS:
            raise InvalidInput(f"loss {self.loss!r}", f"choose from {', '.join(METRICS)}")
        if not self.until > 0:
            raise InvalidInput(f"until {self.until}", "give a relative error above 0, like 0.05")
        if self.probes < 2:
            raise InvalidInput(f"{self.probes} probes", "allow 2 at least: one has no spread")

    def measure(
        self, subject: Subject, pairs: Sequence[Pair], checkpoints: Checkpoints
    ) -> Iterator[list[Measurement]]:
        changes = squared_changes(subject, pairs)
        parts = by_batch(subject, checkpoints, partial(self._batch, subject))
        samples = sum(batch.samples for batch in subject.batches)
        traces: dict[str, tuple[Estimate, Vectors]] = {}
        for layer, _ in pairs:
            owner = layer.shares or layer.name
            if owner not in traces:
                traces[owner] = _mean_curvature(owner, layer.weights, parts, samples)
        yield scaled(self, METRICS[self.loss], pairs, changes, traces)

    def tables(
        self, measurements: Iterable[Measurement], layers: Sequence[str], schemes: Sequence[str]
    ) -> dict[str, Sensitivities]:
        """The one table, of the loss's metric: ``kl`` or ``nll``.

        Its notes have the most ``probes`` that a batch took, and the worst layer's ``probe_error``:
        the relative standard error of its trace over probes.
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

    def _batch(self, subject: Subject, index: int) -> Arrays:
        """``q/OWNER`` (probes,) of the batch's summed loss; none of owners it does not depend on.

        The relative error allowed to one of B batches is √B times that of their sum.
        """
        allowed = self.until * math.sqrt(len(subject.batches))
        with curvature(subject.task, subject.batches[index], self.loss) as H:
            drawn = {name: H.direction(name, self.seed, index) for name in H.weights}
            q: dict[str, list[float]] = {name: [] for name in H.weights}
            for probe in range(1, self.probes + 1):
                v = {name: next(signs) for name, signs in drawn.items()}
                for name, Hv in H.times(v).items():
                    q[name].append(v[name].numel() * rayleigh(v[name], Hv))
                if probe >= LEAST and all(_settled(x, allowed) for x in q.values()):
                    break
        return {"count": np.array([H.count]), **{f"q/{n}": np.array(x) for n, x in q.items()}}


def _mean_curvature(
    owner: str, weights: int, parts: Sequence[Arrays], samples: int
) -> tuple[Estimate, Vectors]:
    """Tr(H) / n of one layer, and by batch: trace, its variance over probes, number of probes.

    The standard error is the larger of two: over batches, which holds the noise of probes and of
    the data but is rough for few batches, and over probes alone. Raises ``ModelError`` when the
    loss depends on the layer in no batch.
    """
    found = [part.get(f"q/{owner}") for part in parts]
    if all(q is None for q in found):
        raise ModelError(
            f"no gradient reached layer {owner!r}",
            "leave out layers that the outputs do not depend on",
        )
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
