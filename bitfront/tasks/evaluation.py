"""Judges the model in its present state against the full model, sample by sample.

    N  samples      s_i  sum of a metric over scored positions of sample i      c_i  their number

A metric's value is the ratio r = Σ s_i / Σ c_i; its standard error is that of a ratio estimator,
sqrt(N/(N−1) Σ (s_i − r c_i)²) / Σ c_i (Cochran, Sampling Techniques, 3rd ed., eq. 6.9).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfront.errors import DataError
from bitfront.scratch import Scratch
from bitfront.types import Estimate, frozen

from .base import Batch, Task
from .metrics import Metric

Float = NDArray[np.float64]
Outputs = Callable[[Batch, int], Tensor]

_CHUNK = 1 << 23  # elements of outputs judged at once


@dataclass(frozen=True, eq=False)
class Measured:
    """Per-sample sums of metrics over some batches: float64 arrays (N,), in the batches' order.

    batches: indices of the batches. sizes: their numbers of samples.
    """

    sums: Mapping[str, Float]
    counts: Mapping[str, Float]
    batches: tuple[int, ...]
    sizes: tuple[int, ...]
    metrics: Mapping[str, Metric] = field(repr=False)

    def __post_init__(self) -> None:
        for name in ("sums", "counts"):
            arrays = {k: frozen(v) for k, v in getattr(self, name).items()}
            object.__setattr__(self, name, MappingProxyType(arrays))

    @property
    def samples(self) -> int:
        """N."""
        return sum(self.sizes)

    def estimates(self) -> dict[str, Estimate]:
        """Metric -> value with its standard error (perplexity's by the delta method)."""
        found = {}
        for name, metric in self.metrics.items():
            mean = ratio(self.sums[name], self.counts[name])
            if metric.finish == "exp":
                value = _exp(mean.value)
                mean = Estimate(value, value * mean.stderr, mean.samples)
            found[name] = mean
        return found

    def take(self, batches: Iterable[int]) -> Measured:
        """The part that belongs to ``batches``, which must be among this one's."""
        starts = np.cumsum([0, *self.sizes])
        places = [self.batches.index(b) for b in batches]
        parts = [np.arange(starts[i], starts[i + 1]) for i in places]
        rows = np.concatenate(parts) if parts else np.arange(0)
        return Measured(
            {k: v[rows] for k, v in self.sums.items()},
            {k: v[rows] for k, v in self.counts.items()},
            tuple(self.batches[i] for i in places),
            tuple(self.sizes[i] for i in places),
            self.metrics,
        )


def worsening(measured: Measured, baseline: Measured) -> dict[str, Estimate]:
    """Metric -> how much worse ``measured`` is than the full model, from paired samples.

    KL and flips are that already; negative log-likelihood (perplexity's too, in nats) is an
    increase, accuracies are a drop.
    """
    per_sample = increases(measured, baseline)
    return {n: ratio(values, measured.counts[n]) for n, values in per_sample.items()}


def increases(measured: Measured, baseline: Measured) -> dict[str, Float]:
    """Metric -> per-sample sums of its worsening (N,), whose ratio to the counts is the mean."""
    if measured.batches != baseline.batches:
        baseline = baseline.take(measured.batches)
    found = {}
    for name, metric in measured.metrics.items():
        if metric.worsening == "itself":
            found[name] = measured.sums[name]
        else:
            sign = -1.0 if metric.better == "higher" else 1.0
            found[name] = sign * (measured.sums[name] - baseline.sums[name])
    return found


def ratio(sums: Float, counts: Float) -> Estimate:
    """Σ sums / Σ counts with its standard error: nan for one sample, everything nan for none."""
    n, total = len(sums), float(counts.sum())
    if total == 0:
        return Estimate(math.nan, math.nan, n)
    mean = float(sums.sum()) / total
    if n < 2:
        return Estimate(mean, math.nan, n)
    spread = float(np.square(sums - mean * counts).sum())
    return Estimate(mean, math.sqrt(spread * n / (n - 1)) / total, n)


class Evaluator:
    """The full model's outputs on ``batches``, and everything else measured against them.

    Made while the model is in full precision: it runs once, and its outputs are kept in
    ``scratch`` (whose owner closes it), in their own dtype. ``metrics`` are the task's, but for
    those that need labels where the batches have none.
    """

    def __init__(
        self, task: Task, batches: Sequence[Batch], scratch: Scratch | None = None
    ) -> None:
        self.task = task
        self.batches = batches
        self._scratch = Scratch() if scratch is None else scratch
        labelled = all(batch.labels is not None for batch in batches)
        metrics = {name: task.metric(name) for name in task.metrics}
        self.metrics = {n: m for n, m in metrics.items() if labelled or not m.needs_labels}
        with torch.no_grad():
            self._references = [self._scratch.keep(task.outputs(b)) for b in batches]

    def viewing(self, views: Mapping[str, Metric]) -> Evaluator:
        """One that measures ``views`` too, on the same outputs of the full model."""
        other = copy(self)
        other.__dict__.pop("baseline", None)
        other.metrics = {**self.metrics, **views}
        return other

    def reference(self, index: int) -> Tensor:
        """The full model's outputs on a batch, (N, P, K) on the CPU."""
        return self._references[index]

    @cached_property
    def baseline(self) -> Measured:
        """The full model, measured against itself."""
        return self.measure(lambda batch, index: self._references[index])

    def measure(
        self, outputs: Outputs | None = None, batches: Iterable[int] | None = None
    ) -> Measured:
        """The model in its present state, on all batches or on those with the given indices.

        outputs: (batch, index) -> (N, P, K), in place of the task's own (a resumed prefix, say).
        """
        indices = tuple(range(len(self.batches)) if batches is None else batches)
        sums: dict[str, list[Float]] = {name: [] for name in self.metrics}
        counts: dict[str, list[Float]] = {name: [] for name in self.metrics}
        sizes = []
        with torch.no_grad():
            for index in indices:
                batch = self.batches[index]
                y = self.task.outputs(batch) if outputs is None else outputs(batch, index)
                found = judge(self.metrics, self._references[index], y, batch, self.task.output)
                for name, (s, c) in found.items():
                    sums[name].append(s)
                    counts[name].append(c)
                sizes.append(batch.samples)
        return Measured(
            {name: _joined(parts) for name, parts in sums.items()},
            {name: _joined(parts) for name, parts in counts.items()},
            indices,
            tuple(sizes),
            self.metrics,
        )

    def worsening(self, measured: Measured) -> dict[str, Estimate]:
        """``worsening`` against the full model on the same batches."""
        return worsening(measured, self.baseline)


def judge(
    metrics: Mapping[str, Metric], reference: Tensor, outputs: Tensor, batch: Batch, output: str
) -> dict[str, tuple[Float, Float]]:
    """Metric -> per-sample sums and counts (N,) of one batch, a few positions at a time."""
    N, P, K = outputs.shape
    scored = torch.ones(N, P, dtype=torch.bool) if batch.scored is None else batch.scored
    rows = scored.flatten().nonzero().squeeze(1)  # positions that count, of N·P
    sample = (rows // P).numpy()
    found: dict[str, tuple[Float, Float]] = {}
    values: dict[str, list[Float]] = {n: [] for n, m in metrics.items() if m.positions is not None}
    z, y = reference.reshape(N * P, K), outputs.reshape(N * P, K)
    labels = None if batch.labels is None else batch.labels.flatten()
    for part in rows.split(max(1, _CHUNK // K)):
        zs, ys = z[part].to(y.device), y[part.to(y.device)]
        t = None if labels is None else labels[part].to(y.device)
        for name, metric in metrics.items():
            if metric.needs_labels and t is None:
                raise DataError(f"metric {name!r} needs labels", "give labels, or drop the metric")
            if metric.positions is not None:
                values[name].append(metric.positions(zs, ys, t, output).cpu().double().numpy())
    count = np.bincount(sample, minlength=N).astype(np.float64)
    for name, parts in values.items():
        sums = np.bincount(sample, _joined(parts), minlength=N).astype(np.float64)
        found[name] = (sums, count)
    for name, metric in metrics.items():
        if metric.samples is not None:
            found[name] = (metric.samples(outputs, batch), np.ones(N))
    return found


def _joined(parts: list[Float]) -> Float:
    return np.concatenate(parts) if parts else np.zeros(0)


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf
