"""Every class of layers by a metric of its own, measured one layer at a time.

    s_m[l, c]   worsening of metric m when layer l alone takes scheme c
    k, m_k      a class of layers, its metric             t    the target, a metric all layers have
    r_k         Σ s_t[l, c] / Σ s_{m_k}[l, c], both over the layers l of class k and all schemes c

    decoupled[l, c] = r_k · s_{m_k}[l, c]                 for l of class k, in units of t

Layers that make an image's content and layers that make its quality do not show in one metric
(MixDQ, Zhao et al., arXiv:2405.17873, section 3.3: SSIM for cross-attention and feed-forward,
SQNR for the rest), nor do all timesteps alike (ViDiT-Q, arXiv:2406.02540). The rate r_k makes the
classes commensurable: a class's total over all its pairs is what it is in the target, and its own
metric says how it is shared out. How much of a budget each class is then best given is searched
for (``bitfront.shares``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar

from bitfront.errors import InvalidInput, ModelError, UnknownName
from bitfront.tasks.base import Task
from bitfront.tasks.evaluation import judge_wholes, worsening
from bitfront.tasks.globs import matching
from bitfront.tasks.roles import classes
from bitfront.types import Estimate, Measurement, Sensitivities

from .base import PROFILERS, Checkpoints, Float, Pair, Profiler, Subject, assemble
from .perturb import by_metric, one_after_another, one_at_a_time, redrawn
from .taps import evaluating

NAME = "name:"
AUTO = "auto"
DIFFUSION = "cross-attention=ssim, feed-forward=ssim, *=sqnr"
OTHERS = "*=kl"

_SPELLED = re.compile(r"(?P<cls>.+): (?P<metric>\S+) as (?P<target>\S+)")


@dataclass(frozen=True)
class Own:
    """The class of a layer, its metric (a glob: the worst of those it fits), and the target."""

    cls: str
    metric: str
    target: str

    def __str__(self) -> str:
        return f"{self.cls}: {self.metric} as {self.target}"


@PROFILERS.register("decoupled")
@dataclass(frozen=True)
class Decoupled(Profiler):
    """Worsening of each class's own metric, in units of ``target``; and of every metric.

    metrics: ``WHERE=METRIC`` entries with commas between them, the first that fits a layer
        deciding. WHERE is a class of ``tasks.roles`` or a glob of them, each class remaining one of
        its own, or ``name:`` and a glob of layer names, which makes a class. METRIC is one of the
        task's, or a glob (``sqnr_t*``): the one that worsens most counts. ``auto`` is
        ``cross-attention=ssim, feed-forward=ssim, *=sqnr`` for diffusion, ``*=kl`` for others.
    target: the metric in whose units classes are compared, and by which a search judges.
    images: of the calibration data, that metrics of whole images are measured on.
    """

    metrics: str = AUTO
    target: str = "kl"
    images: int = 8
    name: ClassVar[str] = "decoupled"
    one_pass: ClassVar[bool] = False
    by_class: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.images < 1:
            raise InvalidInput(f"images {self.images}", "give 1 or more")

    def measure(
        self, subject: Subject, pairs: Sequence[Pair], checkpoints: Checkpoints
    ) -> Iterator[list[Measurement]]:
        del checkpoints  # every pair is a unit of its own
        with evaluating(subject.task.model):  # the full model runs, if it did not yet
            own = self._assigned(subject)
            wanted = {self.target, *(of.metric for of in own.values())}
            wholes = _Wholes(subject.task, wanted, self.images)
        for m in one_at_a_time(subject, pairs, self.name, self.settings_key, wholes):
            yield [_with_own(m, own[m.layer])]

    def tables(
        self, measurements: Iterable[Measurement], layers: Sequence[str], schemes: Sequence[str]
    ) -> dict[str, Sensitivities]:
        """``decoupled``, of classes by their own metrics, then one table of each metric."""
        recorded = [m for m in measurements if m.layer in layers and m.scheme in schemes]
        if not recorded:
            return {}
        own = {m.layer: of for m in recorded for of in _owns(m.values)}
        rates = _rates(recorded, own)
        scaled = [
            replace(m, values={self.name: _times(m.values[str(of)], rates[of])})
            for m in recorded
            for of in (own[m.layer],)
        ]
        notes = {f"rate of {of.cls} ({of.metric})": rate for of, rate in rates.items()}
        table = assemble(
            scaled, layers, schemes, self.name, metric=self.name, profiler=self.name, notes=notes
        )
        table = replace(
            table,
            classes=tuple(own[layer].cls if layer in own else "" for layer in layers),
            target=next(iter(own.values())).target,
        )
        metrics = dict.fromkeys(n for m in recorded for n in m.values if not _SPELLED.fullmatch(n))
        return {self.name: table, **by_metric(recorded, layers, schemes, metrics, self.name)}

    def resampled(self, measurement: Measurement, table: str, W: Float) -> Float | None:
        """Of metrics of batches; a class's own is at a rate that all pairs together give."""
        return redrawn(measurement, table, W)

    def joined(self, parts: Sequence[Measurement]) -> Measurement:
        """One after the other; metrics of whole images are of the same ones in each part."""
        joined = one_after_another(parts)
        (of,) = _owns(parts[0].values)
        return _with_own(replace(joined, values={**parts[0].values, **joined.values}), of)

    def _assigned(self, subject: Subject) -> dict[str, Own]:
        """Layer -> its class and metric. Raises ``InvalidInput`` and ``UnknownName``."""
        task = subject.task
        wholes = [n for n in task.metrics if task.metric(n).whole is not None]
        known = [*subject.evaluator.metrics, *wholes]
        if self.target not in known:
            raise UnknownName(f"no metric {self.target!r}", f"choose from {', '.join(known)}")
        entries = _entries(self.metrics, task, known)
        of = classes(task)
        found = {}
        for layer in task.layers:
            role = of[layer.name]
            for where, metric in entries:
                by_name = where.startswith(NAME)
                if fnmatchcase(layer.name if by_name else role, where.removeprefix(NAME)):
                    found[layer.name] = Own(where if by_name else role, metric, self.target)
                    break
            else:
                raise InvalidInput(
                    f"no metric for layer {layer.name!r} of class {role!r}", "end with *=METRIC"
                )
        return found


class _Wholes:
    """Worsening of metrics of whole images, from the first seeds of the calibration data."""

    def __init__(self, task: Task, wanted: Iterable[str], images: int) -> None:
        self._task, self._images = task, images
        self._metrics = {
            n: task.metric(n)
            for n in task.metrics
            if task.metric(n).whole is not None and any(fnmatchcase(n, glob) for glob in wanted)
        }
        if self._metrics:
            self._full = task.generated(reference=True, calibration=True, first=images)
            self._baseline = judge_wholes(self._metrics, self._full, self._full)

    def __call__(self) -> dict[str, Estimate]:
        if not self._metrics:
            return {}
        made = self._task.generated(calibration=True, first=self._images)
        return worsening(judge_wholes(self._metrics, self._full, made), self._baseline)


def _entries(text: str, task: Task, metrics: Sequence[str]) -> list[tuple[str, str]]:
    """(where, metric) of each entry, checked."""
    if text == AUTO:
        text = DIFFUSION if task.kind == "diffusion" else OTHERS
    found = []
    for entry in text.split(","):
        where, sign, metric = entry.strip().rpartition("=")
        if not sign or not where:
            raise InvalidInput(f"metrics entry {entry.strip()!r}", "write CLASS=METRIC, as *=kl")
        if not any(fnmatchcase(name, metric) for name in metrics):
            raise UnknownName(f"no metric {metric!r}", f"choose from {', '.join(metrics)}")
        if where.startswith(NAME):
            matching(where.removeprefix(NAME), [layer.name for layer in task.layers])
        found.append((where, metric))
    return found


def _with_own(m: Measurement, of: Own) -> Measurement:
    """``m`` with the value of the metric that its layer's class goes by."""
    return replace(m, values={**m.values, str(of): _worst(m.values, of.metric)})


def _worst(values: Mapping[str, Estimate], glob: str) -> Estimate:
    return max((e for n, e in values.items() if fnmatchcase(n, glob)), key=lambda e: e.value)


def _owns(names: Iterable[str]) -> Iterator[Own]:
    for name in names:
        match = _SPELLED.fullmatch(name)
        if match:
            yield Own(match["cls"], match["metric"], match["target"])


def _rates(recorded: Sequence[Measurement], own: Mapping[str, Own]) -> dict[Own, float]:
    """Class -> units of the target for one of its own metric. Raises ``ModelError``."""
    sums: dict[Own, tuple[float, float]] = {}
    for m in recorded:
        of = own[m.layer]
        target, metric = sums.get(of, (0.0, 0.0))
        sums[of] = target + m.values[of.target].value, metric + m.values[str(of)].value
    for of, (target, metric) in sums.items():
        for name, total in ((of.target, target), (of.metric, metric)):
            if not total > 0:
                raise ModelError(
                    f"{name} of {of.cls} does not worsen: its sum over all pairs is {total:.3g}",
                    "take another metric for these layers, or more samples",
                )
    return {of: target / metric for of, (target, metric) in sums.items()}


def _times(estimate: Estimate, rate: float) -> Estimate:
    return Estimate(estimate.value * rate, estimate.stderr * rate, estimate.samples)
