"""One pass, every candidate: second-order KL from per-sample gradients (docs/profilers.md).

    KL(p_full ‖ p_quantized) ≈ ½ E[(g_i · ΔW)²],     g_i the gradient of the output's Fisher probe

One forward and, per temperature and draw, one backward pass over the calibration data score all
layers under all schemes. Two estimators come from the same pass: per sample,
½ Σ_i s_i², unbiased to second order and heavy-tailed for confident networks; and elementwise,
½ Σ_i Σ_o (δ_io ΔY_io)², which drops the cross terms between output elements: biased, less noisy.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfront.errors import InvalidInput
from bitfront.quant.weights import QuantizedLayer
from bitfront.types import Estimate, Interactions, Measurement, Sensitivities

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
from .bootstrap import ratios
from .interactions import interactions
from .passes import scored
from .probes import PROBES, labels_of, probe
from .scores import LayerScores
from .stability import effective_samples, ratio_estimate, split_half, top_share
from .store import keep_quantized

STABLE = 0.98  # split-half rank correlation from which an estimator is trusted
HEAVY = 0.3  # a score of which 1 % of the samples hold more than this is warned about


@PROFILERS.register("fisher")
@dataclass(frozen=True)
class Fisher(Profiler):
    """Fisher sensitivities of KL, in nats.

    temperatures: divisors of the logits, each scored by its own backward passes. draws: probes per
    temperature. probe: ``rademacher``, ``labels`` or ``empirical`` (probes.py). elementwise: share
    of each sample's positions that the elementwise score is taken on. seed: of probes and
    positions.
    """

    temperatures: tuple[float, ...] = (1.0, 2.0)
    draws: int = 1
    probe: str = "rademacher"
    elementwise: float = 0.25
    seed: int = 0

    name: ClassVar[str] = "fisher"
    one_pass: ClassVar[bool] = True
    interacts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.probe not in PROBES:
            raise InvalidInput(f"probe {self.probe!r}", f"choose from {', '.join(PROBES)}")
        if self.draws < 1:
            raise InvalidInput(f"{self.draws} draws", "draw at least once")
        if self.probe == "empirical" and self.draws > 1:
            raise InvalidInput(
                f"{self.draws} draws of the empirical probe", "use 1: it takes the labels there are"
            )
        if not self.temperatures or min(self.temperatures) <= 0:
            raise InvalidInput(f"temperatures {self.temperatures}", "give positive numbers")
        if not 0 < self.elementwise <= 1:
            raise InvalidInput(
                f"elementwise share {self.elementwise}", "give a share above 0, up to 1"
            )

    @classmethod
    def reader(cls, measurements: Iterable[Measurement]) -> Fisher:
        """One with the temperatures that were scored, ascending."""
        names = {name for m in measurements for name in m.values}
        return cls(temperatures=tuple(sorted({float(name.partition("@")[2]) for name in names})))

    def measure(
        self, subject: Subject, pairs: Sequence[Pair], checkpoints: Checkpoints
    ) -> Iterator[list[Measurement]]:
        candidates = keep_quantized(subject, pairs)
        parts = by_batch(subject, checkpoints, partial(self._batch, subject, candidates))
        yield self._measurements(pairs, candidates, parts)

    def tables(
        self, measurements: Iterable[Measurement], layers: Sequence[str], schemes: Sequence[str]
    ) -> dict[str, Sensitivities]:
        """One table per estimator and temperature, the most trustworthy first.

        The first is the least biased one (per sample before elementwise, low temperature before
        high) whose split-half rank correlation is at least ``STABLE``, else the most stable one.
        """
        recorded = [m for m in measurements if m.layer in layers and m.scheme in schemes]
        found = []
        for kind in ("sample", "element"):
            for T in self.temperatures:
                name = f"{kind}@{T:g}"
                notes = self._notes(recorded, kind, T)
                table = assemble(
                    recorded, layers, schemes, name, metric="kl", profiler=self.name, notes=notes
                )
                found.append((name, table))
        chosen = next((n for n, t in found if t.notes["split_half"] >= STABLE), None)
        if chosen is None:
            chosen = max(found, key=lambda f: np.nan_to_num(f[1].notes["split_half"], nan=-1.0))[0]
        return dict(sorted(found, key=lambda f: f[0] != chosen))

    def interactions(
        self,
        measurements: Iterable[Measurement],
        layers: Sequence[str],
        schemes: Sequence[str],
        table: Sensitivities,
    ) -> Interactions | None:
        """Of the per-sample scores at the table's temperature, for either estimator."""
        return interactions(measurements, layers, schemes, table.notes["temperature"])

    def resampled(self, measurement: Measurement, table: str, W: Float) -> Float | None:
        """From the scores of samples, draws of probes included."""
        kind, _, T = table.partition("@")
        return ratios(W, *_scores(measurement.vectors, kind, float(T)))

    def finer(self) -> Fisher | None:
        """Twice the draws; none of the task's own labels, which are not drawn."""
        return None if self.probe == "empirical" else replace(self, draws=2 * self.draws)

    def _batch(
        self, subject: Subject, candidates: Mapping[str, list[QuantizedLayer]], index: int
    ) -> Arrays:
        task, batch = subject.task, subject.batches[index]
        probes = [T for T in self.temperatures for _ in range(self.draws)]
        labels = labels_of(batch, task.output) if self.probe == "empirical" else None

        def begin() -> dict[str, LayerScores]:
            scores = {}
            for name, quantized in candidates.items():
                seed = zlib.crc32(f"{self.seed} {index} {name}".encode())
                generator = torch.Generator().manual_seed(seed)
                scores[name] = LayerScores(
                    name, task.module(name), quantized, batch.samples, len(probes),
                    self.elementwise, generator,
                )  # fmt: skip
            return scores

        def drawn(z: Tensor) -> Iterator[Tensor]:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
            for T in probes:
                yield probe(
                    z, task.output, kind=self.probe, temperature=T, generator=generator,
                    scored=batch.counted, labels=labels,
                )  # fmt: skip

        scores, count = scored(task, batch, begin, drawn)
        arrays: Arrays = {"count": count}
        for name, score in scores.items():
            arrays[f"s/{name}"] = score.s.numpy()
            arrays[f"e/{name}"] = score.e.numpy()
        return arrays

    def _measurements(
        self,
        pairs: Sequence[Pair],
        candidates: Mapping[str, list[QuantizedLayer]],
        parts: Sequence[Arrays],
    ) -> list[Measurement]:
        count = np.concatenate([part["count"] for part in parts])
        found = []
        for layer, scheme in pairs:
            column = [q.weight.scheme for q in candidates[layer.name]].index(scheme)
            s = np.concatenate([p[f"s/{layer.name}"][:, column] for p in parts], axis=-1)
            e = np.concatenate([p[f"e/{layer.name}"][:, column] for p in parts], axis=-1)
            vectors, values = {"count": count}, {}
            for t, T in enumerate(self.temperatures):
                draws = slice(t * self.draws, (t + 1) * self.draws)
                vectors[f"s@{T:g}"] = s[draws].astype(np.float32)  # (draws, N)
                vectors[f"e@{T:g}"] = e[draws].mean(0).astype(np.float32)  # (N,)
                for kind in ("sample", "element"):
                    scores, weights = _scores(vectors, kind, T)
                    value, stderr = ratio_estimate(scores, weights)
                    values[f"{kind}@{T:g}"] = Estimate(value, stderr, len(scores))
            found.append(
                Measurement(self.name, self.settings_key, layer.name, str(scheme), values, vectors)
            )
        return found

    def _notes(self, recorded: Sequence[Measurement], kind: str, T: float) -> dict[str, Any]:
        both = [_scores(m.vectors, kind, T) for m in recorded if m.vectors]
        if not both:
            return {"estimator": kind, "temperature": T, "split_half": float("nan")}
        scores, weights = np.stack([s for s, _ in both]), both[0][1]
        return {
            "estimator": kind,
            "temperature": T,
            "split_half": split_half(scores, weights),
            "effective_samples": effective_samples(scores),
            "top_share": top_share(scores),
            "samples": scores.shape[1],
        }


def _scores(vectors: Mapping[str, NDArray[Any]], kind: str, T: float) -> tuple[Float, Float]:
    """Per-sample scores ½ s² (mean over draws) or ½ e, and what its positions count for: (N,)."""
    count = vectors["count"].astype(np.float64)
    if kind == "sample":
        return 0.5 * np.square(vectors[f"s@{T:g}"].astype(np.float64)).mean(0), count
    return 0.5 * vectors[f"e@{T:g}"].astype(np.float64), count


def heavy_tail_warning(table: Sensitivities) -> str | None:
    """One line when 1 % of at least a hundred samples hold much of the score, else None."""
    share = table.notes.get("top_share", 0.0)
    if share <= HEAVY or table.notes["samples"] < 100:
        return None
    return (
        f"1 % of the {table.notes['samples']} calibration samples hold {share:.0%} of the score "
        f"({table.notes['effective_samples']:.0f} effective samples): estimates are noisy; more "
        "samples, or samples that the model is less sure of, make them better"
    )
