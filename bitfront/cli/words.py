"""Trials as rows of tables and as JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bitfront.figures import amount, figure
from bitfront.heldout import CALIBRATION

if TYPE_CHECKING:
    from bitfront.answering import Answer
    from bitfront.types import Trial


def trial_row(trial: Trial, metrics: tuple[str, ...] = ()) -> dict[str, Any]:
    """Column -> cell: the trial's number, size, average bits and metrics on evaluation data."""
    row: dict[str, Any] = {"trial": trial.id}
    if "bytes" in trial.costs:
        row["size"] = amount("bytes", trial.costs["bytes"])
    weights = trial.settings.get("weights")
    if weights and "bits" in trial.costs:
        row["bits/weight"] = f"{trial.costs['bits'] / weights:.3f}"
    shown = metrics or tuple(name for name in trial.metrics if "/" not in name)
    row |= {name: figure(trial.metrics[name]) for name in shown if name in trial.metrics}
    return row


def answer_row(answer: Answer) -> dict[str, Any]:
    """Column -> cell of a search's answer."""
    return {
        "budget": " & ".join(map(str, answer.budgets)),
        **trial_row(answer.trial),
        **predicted_row(answer.trial, answer.judged, answer.predicted),
        "by": answer.table,
        "evaluations": answer.evaluations,
    }


def predicted_row(trial: Trial, metric: str, predicted: float) -> dict[str, str | None]:
    """Column -> cell: the loss predicted, expected, and measured on the calibration data."""
    measured = trial.metrics.get(CALIBRATION + metric)
    return {
        "predicted": _number(predicted),
        "expected": _number(trial.expected),
        f"calibration {metric}": None if measured is None else figure(measured),
    }


def _number(value: float) -> str | None:
    return None if math.isnan(value) else f"{value:.4g}"


def trial_document(trial: Trial) -> dict[str, Any]:
    """A trial in JSON's types."""
    return {
        "id": trial.id,
        "created": trial.created,
        "solver": trial.solver,
        "settings": dict(trial.settings),
        "predicted": trial.predicted,
        "expected": trial.expected,
        "bound": trial.bound,
        "costs": dict(trial.costs),
        "metrics": {
            name: {"value": e.value, "stderr": e.stderr, "samples": e.samples}
            for name, e in trial.metrics.items()
        },
        "seconds": trial.seconds,
        "schemes": dict(trial.schemes),
    }
