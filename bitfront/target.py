"""A bound on a metric, as a bound on how much worse than the full model an allocation may be.

    m_0   mean of the metric of the full model, before ``Metric.finish``, over all samples
    w     what an allocation's samples add to its worsening, on average (``Looked.overall``)
    ±     plus where lower is better

The metric is ``finish(w)`` where it is relative to the full model already, else
``finish(m_0 ± w)``. All samples are those of the calibration data and those held back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bitfront.errors import InvalidInput, UnknownName
from bitfront.heldout import CALIBRATION, HELD_BACK
from bitfront.pool import Looked, Pool
from bitfront.study import Study
from bitfront.tasks.metrics import Metric
from bitfront.tasks.ratios import finished
from bitfront.types import Estimate
from bitfront.within import Bound


@dataclass(frozen=True, eq=False)
class Target:
    """full: m_0, or 0 where the metric is relative to the full model."""

    bound: Bound
    metric: Metric
    full: float

    @property
    def most(self) -> float:
        """The greatest w that the bound allows."""
        return self._sign * (_unfinished(self.bound.amount, self.metric.finish) - self.full)

    def holds(self, looked: Looked) -> bool:
        """Whether the bound holds of ``looked``, over all samples."""
        return looked.overall(self.metric.name) <= self.most

    def value(self, looked: Looked) -> float:
        """The metric of ``looked`` over all samples."""
        mean = self.full + self._sign * looked.overall(self.metric.name)
        return finished(Estimate(mean, math.nan, 0), self.metric.finish).value

    @property
    def _sign(self) -> float:
        relative = self.metric.worsening == "itself"
        return -1.0 if self.metric.better == "higher" and not relative else 1.0


def target(study: Study, bound: Bound, full: Looked) -> Target:
    """What ``bound`` asks of allocations. full: the full model, measured."""
    metric = study.task.metric(bound.name)
    if metric.worsening == "itself":
        return Target(bound, metric, 0.0)
    parts = [
        (len(full.sums[vector]), full.trial.metrics[prefix + metric.name].value)
        for prefix, vector in ((CALIBRATION, metric.name), (HELD_BACK, HELD_BACK + metric.name))
        if vector in full.sums
    ]
    samples = sum(n for n, _ in parts)
    mean = sum(n * _unfinished(value, metric.finish) for n, value in parts) / samples
    return Target(bound, metric, mean)


def require_target(study: Study, bound: Bound) -> None:
    """Refuse a bound that no search can work towards.

    Raises ``UnknownName`` for a metric that the task does not have, and ``InvalidInput`` for a
    bound on the wrong side, or beyond what the metric can be.
    """
    if bound.name not in study.task.metrics:
        known = ", ".join(study.task.metrics)
        raise UnknownName(f"the task has no metric {bound.name!r} to hold", f"it has {known}")
    metric = study.task.metric(bound.name)
    sign = ">=" if metric.better == "higher" else "<="
    if bound.sign != sign:
        raise InvalidInput(
            f"{bound} holds of bad models: {metric.better} {bound.name} is better",
            f"write {bound.name}{sign}{bound.amount:g}",
        )
    if not math.isfinite(bound.amount) or (metric.finish == "exp" and bound.amount <= 0):
        raise InvalidInput(f"cannot hold {bound}", f"give a number that {bound.name} can have")


def looked_at(pool: Pool, trial: int, metric: str) -> Looked:
    """The full model in ``pool``. Raises ``InvalidInput`` where ``metric`` was not measured."""
    if trial not in pool.ids():
        raise InvalidInput(
            f"metric {metric!r} cannot be measured on the calibration data",
            "give calibration data with labels, or hold another metric, such as kl",
        )
    return pool[trial]


def _unfinished(value: float, finish: str) -> float:
    """The mean that ``Metric.finish`` makes ``value`` of."""
    if finish == "exp":
        return math.log(value)
    if finish == "db":
        return 10.0 ** (-value / 10)
    return value
