"""Trials as rows of tables and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bitfront.errors import Infeasible
from bitfront.figures import amount, figure

if TYPE_CHECKING:
    from bitfront.answering import Answer
    from bitfront.types import Budget, Costs, Trial


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
        "predicted": f"{answer.predicted:.4g}",
        "by": answer.table,
        "measured": answer.evaluations,
    }


def trial_document(trial: Trial) -> dict[str, Any]:
    """A trial in JSON's types."""
    return {
        "id": trial.id,
        "created": trial.created,
        "solver": trial.solver,
        "settings": dict(trial.settings),
        "predicted": trial.predicted,
        "bound": trial.bound,
        "costs": dict(trial.costs),
        "metrics": {
            name: {"value": e.value, "stderr": e.stderr, "samples": e.samples}
            for name, e in trial.metrics.items()
        },
        "seconds": trial.seconds,
        "schemes": dict(trial.schemes),
    }


def in_units(error: Infeasible, sweep: Sequence[Sequence[Budget]], costs: Costs) -> Infeasible:
    """``error`` in the units of the budgets that cannot be met, where each is at fault alone."""
    least: dict[Budget, Budget] = {}
    for resource, (limit, total) in error.binding.items():
        for budget in dict.fromkeys(b for point in sweep for b in point):
            same = budget.resource == resource
            if same and budget.limit(costs.full, costs.weights) == limit:
                least[budget] = replace(budget, amount=_upwards(budget.amount * total / limit))
                break
    if len(least) < max(len(error.binding), 1):
        return error
    what = (f"budget {a} cannot be met, the least possible is {b}" for a, b in least.items())
    it, remedy = "it" if len(least) == 1 else "them", " and ".join(map(str, least.values()))
    return Infeasible(
        "; ".join(what), f"raise {it} to {remedy}, or allow smaller schemes", error.binding
    )


def _upwards(amount: float) -> float:
    """The next number of four digits, so that it is not below ``amount``."""
    digits = 3 - math.floor(math.log10(amount))
    return math.ceil(amount * 10.0**digits * (1 - 1e-12)) / 10.0**digits
