"""Judges the model in its present state against the full model, sample by sample.

    N  samples      s_i  sum of a metric over scored positions of sample i      c_i  their number

Where positions have weights (``Batch.weights``), s_i is a weighted sum and c_i the sum of weights.
A metric's value is the ratio r = Σ s_i / Σ c_i (``ratios``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
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
from .metrics import Metric, Positions
from .ratios import finished, ratio

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
        """Metric -> finished value with its standard error (by the delta method)."""
        return {
            name: finished(ratio(self.sums[name], self.counts[name]), metric.finish)
            for name, metric in self.metrics.items()
        }

    def take(self, batches: Iterable[int]) -> Measured:
        """The part that belongs to ``batches``, which must be among this one's.

        Without metrics of wholes, which have no such part.
        """
        metrics = by_batches(self.metrics)
        starts = np.cumsum([0, *self.sizes])
        places = [self.batches.index(b) for b in batches]
        parts = [np.arange(starts[i], starts[i + 1]) for i in places]
        rows = np.concatenate(parts) if parts else np.arange(0)
        return Measured(
            {name: self.sums[name][rows] for name in metrics},
            {name: self.counts[name][rows] for name in metrics},
            tuple(self.batches[i] for i in places),
            tuple(self.sizes[i] for i in places),
            metrics,
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


def by_batches(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """Those that batches add up to: all but metrics of wholes."""
    return {name: metric for name, metric in metrics.items() if metric.whole is None}


class Evaluator:
    """The full model's outputs on ``batches``, and everything else measured against them.

    Made while the model is in full precision: it runs once, and its outputs are kept in
    ``scratch`` (whose owner closes it), in their own dtype. ``metrics`` are the task's, but for
    those that need labels where the batches have none, those of a part of the data where the
    batches do not say theirs, and those of wholes unless the batches are the task's evaluation
    data.
    """

    def __init__(
        self, task: Task, batches: Sequence[Batch], scratch: Scratch | None = None
    ) -> None:
        self.task = task
        self.batches = batches
        self._scratch = Scratch() if scratch is None else scratch
        labelled = all(batch.labels is not None for batch in batches)
        metrics = {name: task.metric(name) for name in task.metrics}
        parted = all(batch.part is not None for batch in batches)
        self.metrics = {
            name: metric
            for name, metric in metrics.items()
            if (labelled or not metric.needs_labels) and (parted or metric.part is None)
        }
        self._calibrating = batches is not task.evaluation
        if self._calibrating:
            self.metrics = by_batches(self.metrics)
        with torch.no_grad():
            self._references = [self._scratch.keep(task.outputs(b)) for b in batches]

    def viewing(self, views: Mapping[str, Metric]) -> Evaluator:
        """One that measures ``views`` too, on the same outputs of the full model.

        Metrics of wholes among them are of what the calibration data lead to, unless the batches
        are the task's evaluation data.
        """
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
        found = self.measure(lambda batch, index: self._references[index])
        return self._with_wholes(found, reference=True)

    def measure(
        self, outputs: Outputs | None = None, batches: Iterable[int] | None = None
    ) -> Measured:
        """The model in its present state, on all batches or on those with the given indices.

        outputs: (batch, index) -> (N, P, K), in place of the task's own (a resumed prefix, say).
        Metrics of wholes are measured with neither argument only.
        """
        if outputs is None and batches is None:
            return self._with_wholes(self.measure(lambda batch, _: self.task.outputs(batch)))
        metrics = by_batches(self.metrics)
        indices = tuple(range(len(self.batches)) if batches is None else batches)
        sums: dict[str, list[Float]] = {name: [] for name in metrics}
        counts: dict[str, list[Float]] = {name: [] for name in metrics}
        sizes = []
        with torch.no_grad():
            for index in indices:
                batch = self.batches[index]
                y = self.task.outputs(batch) if outputs is None else outputs(batch, index)
                found = judge(metrics, self._references[index], y, batch, self.task.output)
                for name, (s, c) in found.items():
                    sums[name].append(s)
                    counts[name].append(c)
                sizes.append(batch.samples)
        return Measured(
            {name: _joined(parts) for name, parts in sums.items()},
            {name: _joined(parts) for name, parts in counts.items()},
            indices,
            tuple(sizes),
            metrics,
        )

    def _with_wholes(self, measured: Measured, *, reference: bool = False) -> Measured:
        wholes = {n: m for n, m in self.metrics.items() if m.whole is not None}
        if not wholes:
            return measured
        with torch.no_grad():
            of = self._calibrating
            full = self.task.generated(reference=True, calibration=of)
            made = full if reference else self.task.generated(calibration=of)
            found = judge_wholes(wholes, full, made)
        return replace(
            measured,
            sums={**measured.sums, **found.sums},
            counts={**measured.counts, **found.counts},
            metrics=self.metrics,
        )

    def worsening(self, measured: Measured) -> dict[str, Estimate]:
        """``worsening`` against the full model on the same batches."""
        return worsening(measured, self.baseline)


def judge(
    metrics: Mapping[str, Metric], reference: Tensor, outputs: Tensor, batch: Batch, output: str
) -> dict[str, tuple[Float, Float]]:
    """Metric -> per-sample sums and counts (N,) of one batch, a few positions at a time."""
    N, P, K = outputs.shape
    counts = batch.counts(P).flatten()
    rows = counts.nonzero().squeeze(1)  # positions that count, of N·P
    sample = (rows // P).numpy()
    w = counts[rows].numpy()
    functions = {f for m in metrics.values() for f in (m.positions, m.weights) if f is not None}
    values: dict[Positions, list[Float]] = {f: [] for f in functions}  # metrics of parts share one
    z, y = reference.reshape(N * P, K), outputs.reshape(N * P, K)
    labels = None if batch.labels is None else batch.labels.flatten()
    for name, metric in metrics.items():
        if metric.needs_labels and labels is None:
            raise DataError(f"metric {name!r} needs labels", "give labels, or drop the metric")
    for part in rows.split(max(1, _CHUNK // K)):
        zs, ys = z[part].to(y.device), y[part.to(y.device)]
        t = None if labels is None else labels[part].to(y.device)
        for f in functions:
            values[f].append(f(zs, ys, t, output).cpu().double().numpy())
    sums = {
        f: np.bincount(sample, w * _joined(parts), minlength=N).astype(np.float64)
        for f, parts in values.items()
    }
    count = np.bincount(sample, w, minlength=N).astype(np.float64)
    found: dict[str, tuple[Float, Float]] = {}
    for name, metric in metrics.items():
        if metric.positions is not None:
            weight = count if metric.weights is None else sums[metric.weights]
            found[name] = (sums[metric.positions], weight)
        if metric.samples is not None:
            found[name] = (metric.samples(outputs, batch), np.ones(N))
        if metric.part is not None:
            inside = _inside(batch, name, metric.part)
            found[name] = (found[name][0] * inside, found[name][1] * inside)
    return found


def judge_wholes(metrics: Mapping[str, Metric], full: Tensor, made: Tensor) -> Measured:
    """Metrics of wholes, of what the full model generated and what another one did: (M, ...)."""
    sums = {n: m.whole(full, made) for n, m in metrics.items() if m.whole is not None}
    counts = {name: np.ones(len(full)) for name in sums}
    return Measured(sums, counts, (0,), (len(full),), metrics)


def _inside(batch: Batch, metric: str, part: int) -> NDArray[np.bool_]:
    if batch.part is None:
        raise DataError(f"metric {metric!r} is of part {part}", "give batches their parts")
    return np.equal(batch.part.numpy(), part)


def _joined(parts: list[Float]) -> Float:
    return np.concatenate(parts) if parts else np.zeros(0)
