"""Trials in words for the pages: the same figures in hovers and in tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bitfront.figures import amount, figure
from bitfront.heldout import sides
from bitfront.page import markup
from bitfront.types import Estimate, Trial

AVERAGED = ("bits", "stored_bits")  # given per weight, where the number of weights is known


def plottable(trials: Sequence[Trial], x: str, y: str) -> list[Trial]:
    """The trials with finite cost ``x`` and metric ``y``, by rising ``x``, then ``y``."""
    nothing = Estimate(math.nan, math.nan, 0)
    points = [(t.costs.get(x, math.nan), t.metrics.get(y, nothing).value, t) for t in trials]
    found = [p for p in points if math.isfinite(p[0]) and math.isfinite(p[1])]
    return [trial for *_, trial in sorted(found, key=lambda p: p[:2])]


def trial_words(trial: Trial, y: str, y_unit: str, better: str = "lower") -> dict[str, str]:
    """Name -> figure in words, for people; the prediction stands next to what was measured.

    better: which way ``y`` is, for the ``warning`` where it parts from calibration.
    """
    words = origin_words(trial)
    words[y] = f"{figure(trial.metrics[y])} {y_unit}".strip()
    if math.isfinite(trial.predicted):
        words["predicted"] = f"{trial.predicted:.4g}"
    if math.isfinite(trial.expected):
        words["expected"] = f"{trial.expected:.4g}"
    for name, estimate in trial.metrics.items():
        if name != y and math.isfinite(estimate.value):
            words[name] = figure(estimate)
    words["warning"] = sides(trial, y, better).mark
    return {name: word for name, word in words.items() if word}


def origin_words(trial: Trial) -> dict[str, str]:
    """Name -> words: number, budgets, solver and costs of a trial."""
    table = trial.settings.get("table")
    words = {
        "trial": str(trial.id),
        "budgets": ", ".join(map(str, trial.settings.get("budgets", ()))),
        "solver": f"{trial.solver} ({table})" if table else trial.solver,
    }
    weights = trial.settings.get("weights")
    for resource, value in trial.costs.items():
        if not math.isfinite(value):
            continue
        if resource in AVERAGED and weights:
            words[f"{resource} per weight"] = f"{value / weights:.4g}"
        else:
            words[resource] = amount(resource, value)
    return words


def trial_hover(words: Mapping[str, str]) -> str:
    """``words`` of a trial, in plotly's markup."""
    lines = [f"{markup(name)}: {markup(word)}" for name, word in words.items() if name != "trial"]
    return "<br>".join([f"<b>trial {words['trial']}</b>", *lines])
