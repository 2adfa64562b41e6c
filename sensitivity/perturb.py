"""One layer, one scheme at a time: the real metrics, measured. Slow, and what others are judged by.

The forward pass up to the first changed block is reused where the model allows it (prefix.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from bitfront.quant.surgery import applied
from bitfront.types import Estimate, Measurement, Sensitivities

from .base import PROFILERS, Checkpoints, Pair, Profiler, Subject, assemble
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
                values = {**evaluator.worsening(evaluator.measure(prefix.outputs)), **more()}
            seconds = time.perf_counter() - began
            yield Measurement(profiler, settings, layer.name, str(scheme), values, seconds=seconds)


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
