"""One layer, one scheme at a time: the real metrics, measured. Slow, and what others are judged by.

The forward pass up to the first changed block is reused where the model allows it (prefix.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from bitfront.quant.surgery import applied
from bitfront.tasks.evaluation import increases
from bitfront.tasks.ratios import ratio
from bitfront.types import Estimate, Measurement, Sensitivities

from .base import PROFILERS, Checkpoints, Float, Pair, Profiler, Subject, assemble
from .bootstrap import ratios
from .taps import evaluating


@PROFILERS.register("perturb")
@dataclass(frozen=True)
class Perturb(Profiler):
    """Worsening of every metric of the task on the calibration data (KL in nats)."""

    name: ClassVar[str] = "perturb"
    one_pass: ClassVar[bool] = False

    def measure(
        self, subject: Subject, pairs: Sequence[Pair], checkpoints: Checkpoints
    ) -> Iterator[list[Measurement]]:
        del checkpoints  # every pair is a unit of its own
        for m in one_at_a_time(subject, pairs, self.name, self.settings_key):
            yield [m]

    def tables(
        self, measurements: Iterable[Measurement], layers: Sequence[str], schemes: Sequence[str]
    ) -> dict[str, Sensitivities]:
        """One table per metric, ``kl`` first."""
        recorded = list(measurements)
        metrics = dict.fromkeys(name for m in recorded for name in m.values)
        return by_metric(recorded, layers, schemes, metrics, self.name)

    def resampled(self, measurement: Measurement, table: str, W: Float) -> Float | None:
        """From the increases of samples; None for what an older Bitfront recorded without them."""
        return redrawn(measurement, table, W)

    def joined(self, parts: Sequence[Measurement]) -> Measurement:
        """One after the other."""
        return one_after_another(parts)


def one_at_a_time(
    subject: Subject,
    pairs: Sequence[Pair],
    profiler: str,
    settings: str,
    more: Callable[[], Mapping[str, Estimate]] = dict,
) -> Iterator[Measurement]:
    """Worsening of every metric of batches when one layer takes one scheme, pair after pair.

    more: further values of the model as it is while the layer is quantized.
    """
    model = subject.task.model
    with evaluating(model), torch.no_grad():
        subject.builder.prepare([(layer.name, scheme) for layer, scheme in pairs])
        evaluator, prefix = subject.evaluator, subject.prefix
        for depth, layer, scheme in sorted(
            ((prefix.depth(layer.name), layer, scheme) for layer, scheme in pairs),
            key=lambda unit: unit[0],
        ):
            began = time.perf_counter()
            quantized = subject.builder.quantized(layer.name, scheme)
            prefix.advance(depth)
            with applied(model, {layer.name: quantized}):
                measured, further = evaluator.measure(prefix.outputs), more()
            vectors = _vectors(increases(measured, evaluator.baseline), measured.counts)
            values = {**_values(vectors), **further}
            yield Measurement(
                profiler, settings, layer.name, str(scheme), values, vectors,
                time.perf_counter() - began,
            )  # fmt: skip


def by_metric(
    recorded: Sequence[Measurement],
    layers: Sequence[str],
    schemes: Sequence[str],
    metrics: Iterable[str],
    profiler: str,
) -> dict[str, Sensitivities]:
    """One table for each of ``metrics``, ``kl`` first."""
    return {
        name: assemble(recorded, layers, schemes, name, metric=name, profiler=profiler)
        for name in sorted(metrics, key=lambda name: name != "kl")
    }


def redrawn(measurement: Measurement, metric: str, W: Float) -> Float | None:
    """``Profiler.resampled`` of a metric of batches; None for what has no increases of samples."""
    vectors = measurement.vectors
    return ratios(W, *_of(vectors, metric)) if f"{_SUM}{metric}" in vectors else None


def one_after_another(parts: Sequence[Measurement]) -> Measurement:
    """``Profiler.joined``: of metrics of batches alone."""
    names = dict.fromkeys(name for m in parts for name in m.vectors)
    vectors = {n: np.concatenate([_vector(m.vectors, n) for m in parts]) for n in names}
    seconds = sum(m.seconds for m in parts)
    return replace(parts[0], values=_values(vectors), vectors=vectors, seconds=seconds)


_SUM, _COUNT = "sum/", "count/"
Vectors = Mapping[str, Float]


def _vectors(sums: Mapping[str, Float], counts: Mapping[str, Float]) -> Vectors:
    """What to record: increases of samples by metric, and their counts, those alike only once."""
    common = next(iter(counts.values()))
    found = {_SUM + name: values for name, values in sums.items()}
    own = {n: c for n, c in counts.items() if not np.array_equal(c, common)}
    return {"count": common, **found, **{_COUNT + name: values for name, values in own.items()}}


def _vector(vectors: Vectors, name: str) -> Float:
    """A recorded vector; counts that are not recorded are the common ones."""
    return vectors["count"] if name.startswith(_COUNT) and name not in vectors else vectors[name]


def _of(vectors: Vectors, metric: str) -> tuple[Float, Float]:
    """Increases and counts of a metric, (N,) each."""
    return vectors[_SUM + metric], _vector(vectors, _COUNT + metric)


def _values(vectors: Vectors) -> dict[str, Estimate]:
    metrics = [name.removeprefix(_SUM) for name in vectors if name.startswith(_SUM)]
    return {name: ratio(*_of(vectors, name)) for name in metrics}
