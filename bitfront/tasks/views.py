"""Other sights of a metric, less noisy ones, for choosing between near-equal candidates.

A network that is sure of its calibration data gives a KL of which a few samples hold nearly all.
The KL between the outputs at a higher temperature ranks candidates by what all samples say.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .base import Task
from .metrics import METRICS, Metric

TEMPERATURES = (2.0, 4.0)


def views(task: Task) -> dict[str, Metric]:
    """``kl@T`` for each temperature, where the outputs are logits and KL is measured."""
    if task.output != "categorical" or "kl" not in task.metrics:
        return {}
    return {f"kl@{T:g}": tempered(T) for T in TEMPERATURES}


def views_of(metric: str, names: Sequence[str]) -> list[str]:
    """Those of ``names`` that are ``metric`` or a view of it, the metric itself first."""
    return [metric, *(name for name in names if name.startswith(f"{metric}@"))]


def tempered(T: float) -> Metric:
    """KL between the outputs at temperature T, times T²: to second order in the nats of T = 1."""
    kl = METRICS["kl"].positions
    assert kl is not None

    def positions(z: Tensor, y: Tensor, t: Tensor | None, output: str) -> Tensor:
        return T * T * kl(z / T, y / T, t, output)

    return Metric(f"kl@{T:g}", positions, "nats", worsening="itself")
