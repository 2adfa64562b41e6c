"""Trials as rows of tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bitfront.figures import amount, figure
from bitfront.fromdocuments import known, trial_of
from bitfront.heldout import CALIBRATION

if TYPE_CHECKING:
    from bitfront.types import Trial


def trial_row(trial: Trial, metrics: tuple[str, ...] = ()) -> dict[str, Any]:
    """Column -> cell: the trial's number, size, average bits and metrics on evaluation data."""
    row: dict[str, Any] = {"trial": trial.id}
    if "bytes" in trial.costs:
        row["size"] = amount("bytes", trial.costs["bytes"])
    weights = trial.settings.get("weights")
    if weights and "bits" in trial.costs:
        row["bits/weight"] = f"{trial.costs['bits'] / weights:.3f}"
    row |= latency_row(trial)
    shown = metrics or tuple(name for name in trial.metrics if "/" not in name)
    row |= {name: figure(trial.metrics[name]) for name in shown if name in trial.metrics}
    return row


def latency_row(trial: Trial) -> dict[str, Any]:
    """Column -> cell: what the model takes on each target, predicted and measured."""
    row: dict[str, Any] = {}
    for resource, value in trial.costs.items():
        kind, at, target = resource.partition("@")
        if at and kind in ("seconds", "latency"):
            name = target if kind == "seconds" else f"measured {target}"
            row[name] = amount(resource, value)
    return row


def answer_row(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Column -> cell of a search's answer, given its document; of the smallest that holds, too."""
    trial = trial_of(answer["trial"])
    held = [answer["hold"]] if "hold" in answer else []
    return {
        "budget": " & ".join([*held, *answer["budgets"]]),
        **trial_row(trial),
        **predicted_row(trial, answer["judged"], known(answer["predicted"])),
        "by": answer["table"],
        "evaluations": answer["evaluations"],
    }


def smallest_lines(found: Mapping[str, Any]) -> list[str]:
    """What was judged, in words; and whether it holds on the evaluation data."""
    trial, name, resource = trial_of(found["trial"]), found["judged"], found["minimize"]
    cost = amount(resource, trial.costs[resource])
    lines = [
        f"{found['hold']} holds on the calibration data: {name} {found['value']:.4g}, {resource} "
        f"{cost}, allocations measured: {found['allocations']}"
    ]
    if found["failed"] is not None and found["failed_cost"] is not None:
        lines.append(
            f"the dearest one below that fails: trial {found['failed']}, {resource} "
            f"{amount(resource, found['failed_cost'])}"
        )
    evaluated = trial.metrics.get(name)
    if evaluated is None:
        lines.append(f"{name} is not measured on the evaluation data")
    elif not found["holds_on_evaluation"]:
        lines.append(
            f"it does not hold on the evaluation data: {name} {figure(evaluated)}; hold a tighter "
            "bound, or calibrate on more, or more like, data"
        )
    return lines


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
