"""Predicted over measured KL, before and after correction by what was measured.

    python -m benchmarks.prediction > benchmarks/results/prediction.json

JSON on standard output, tables on standard error. Each model (as in ``benchmarks.interactions``) is
searched once, all ``--budgets`` in one call with the defaults of ``bitfront.search``. For each
point of the front of average bits and calibration KL over all measured allocations, several
predictions over the KL that was measured of it, on the calibration data and on unseen data:

    additive   the sum of the one-pass table (``fisher``), which knows no allocation
    verified   the same with the values that the search measured one at a time in their place
    before     what was expected of it before it was measured, as recorded
    monotone   the monotone map of ``bitfront.recalibration`` from verified sums, fitted to all
               other measured allocations
    after      ``Predictor`` given all other measured allocations (leave one out)

``between`` are the best allocations by the one-pass table within budgets between those that were
searched, none of them measured before: expected first, all of them, then measured; ``after`` and
``monotone`` know all of the search. Reported are the median, the geometrically farthest from 1, and
the share within 0.8 to 1.25. The correction takes no pass of its own; ``evaluations`` are those of
the search beyond profiling, and ``verified`` pairs are among them.

``--keep`` has the databases, so that a run which was stopped goes on.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import bitfront
from benchmarks.common import arguments, head, parsed, show, write
from benchmarks.interactions import MODELS, Model
from benchmarks.language import setting
from bitfront import Choices, Study
from bitfront.answering import known_pairs
from bitfront.heldout import CALIBRATION
from bitfront.measuring import measure
from bitfront.pipeline import FULL, cost, selected
from bitfront.pool import Pool
from bitfront.problems import build_problem
from bitfront.recalibration import Predictor, recalibration
from bitfront.search import allocate
from bitfront.searching import earlier
from bitfront.sensitivity.perturb import Perturb
from bitfront.storage import front
from bitfront.types import Budget, Costs, Problem, Trial
from bitfront.verification import replaced

BUDGETS = (2.5, 2.75, 3.0, 3.25, 3.5, 4.0, 4.5, 5.0)
BETWEEN = (2.6, 2.9, 3.2, 3.4, 3.7, 4.2, 4.7)
WITHIN = 0.8, 1.25
METRIC = "kl"
DATA = {"calibration": CALIBRATION + METRIC, "unseen": METRIC}


@dataclass(frozen=True, eq=False)
class Searched:
    """A searched study. additive, verified: problems without limits, by the table of that name.

    trials: all allocations that answers were chosen among, but the full model.
    """

    study: Study
    costs: Costs
    additive: Problem
    verified: Problem
    trials: tuple[Trial, ...]

    def bits(self, trial: Trial) -> float:
        """Average bits."""
        return trial.costs["bits"] / self.costs.weights

    def complete(self, trial: Trial) -> Trial:
        """``trial``, measured on the evaluation data too."""
        return measure(self.study, trial.schemes, trial.solver, trial.costs)

    def expected(self, others: Sequence[Trial]) -> dict[str, Callable[[Mapping[str, str]], float]]:
        """Predictions of a loss that are corrected by ``others``."""
        predictor = Predictor(Pool(self.study, METRIC), self.verified)
        predictor.learn(others)
        monotone = recalibration(
            [self.verified.objective(t.schemes) for t in others],
            [t.metrics[CALIBRATION + METRIC].value for t in others],
        )
        return {
            "monotone": lambda schemes: monotone.measured(self.verified.objective(schemes)),
            "after": predictor.expected,
        }

    def front(self) -> list[Trial]:
        """The trials that no other is better than, by rising bits."""
        points = np.array(
            [[self.bits(t), t.metrics[CALIBRATION + METRIC].value] for t in self.trials]
        )
        best = front(points, ["min", "min"])
        return sorted((self.trials[i] for i in best), key=self.bits)


def row(of: Searched, trial: Trial, predictions: Mapping[str, float]) -> dict[str, Any]:
    """Each prediction over what was measured on each kind of data."""
    measured = {data: trial.metrics[name].value for data, name in DATA.items()}
    return {
        "bits": of.bits(trial),
        "solver": trial.solver,
        **measured,
        "over": {
            data: {name: value / truth for name, value in predictions.items()}
            for data, truth in measured.items()
        },
    }


def sums(of: Searched, schemes: Mapping[str, str]) -> dict[str, float]:
    return {"additive": of.additive.objective(schemes), "verified": of.verified.objective(schemes)}


def front_rows(of: Searched) -> list[dict[str, Any]]:
    rows = []
    for trial in map(of.complete, of.front()):
        others = [t for t in of.trials if t.id != trial.id]
        after = {name: say(trial.schemes) for name, say in of.expected(others).items()}
        predictions = {**sums(of, trial.schemes), "before": trial.expected, **after}
        rows.append(row(of, trial, predictions))
    return rows


def between_rows(of: Searched, budgets: Sequence[float]) -> list[dict[str, Any]]:
    """Of allocations that the search did not measure; all predicted before any is measured."""
    seen = {tuple(sorted(t.schemes.items())) for t in of.trials}
    fresh: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    says = of.expected(of.trials)
    for bits in budgets:
        limits = {"bits": Budget(bits, "bpw").limit(of.costs.full, of.costs.weights)}
        schemes = allocate(replace(of.additive, limits=limits)).schemes
        key = tuple(sorted(schemes.items()))
        if key not in seen:
            after = {name: say(schemes) for name, say in says.items()}
            fresh[key] = {**sums(of, schemes), **after}
    rows = []
    for key, predictions in fresh.items():
        schemes = dict(key)
        trial = measure(of.study, schemes, "benchmark", of.costs.total(schemes))
        rows.append(row(of, trial, predictions))
    return rows


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Data -> prediction -> median, worst, share within ``WITHIN``."""
    found: dict[str, Any] = {}
    for data in DATA:
        names = rows[0]["over"][data] if rows else ()
        found[data] = {name: judged([r["over"][data][name] for r in rows]) for name in names}
    return found


def judged(ratios: Sequence[float]) -> dict[str, float]:
    low, high = WITHIN
    values = np.array(ratios)
    return {
        "median": float(np.median(values)),
        "worst": float(values[np.abs(np.log(values)).argmax()]),
        "within": float(np.mean((values >= low) & (values <= high))),
    }


def searched(study: Study, model: Model, budgets: Sequence[float]) -> tuple[Searched, Any]:
    choices = Choices(head=model.head, exclude=model.exclude, groups="off", container="safetensors")
    selection = selected(study, choices)
    layers = selection.layers
    schemes = setting(layers, "rtn") if model.grouped else "w2 w3 w4 w5 w6 w8"
    answers = bitfront.search(study, schemes, [f"{b:g}bpw" for b in budgets], choices=choices)
    costs = cost(study, schemes, choices)
    table = next(iter(bitfront.profile(study, schemes, layers=layers).values()))
    recorded = study.measurements("perturb", Perturb().settings_key)
    measured = {pair: recorded[pair] for pair in known_pairs(study)}
    additive, verified = (
        build_problem(t, costs, (), groups=selection.groups)
        for t in (table, replaced(table, measured))
    )
    trials = tuple(t for t in earlier(study) if t.solver != FULL)
    spent = {
        "allocations": len(trials),
        "verified": len(measured),
        "evaluations": sum(answer.evaluations for answer in answers),
    }
    return Searched(study, costs, additive, verified, trials), spent


def milliseconds(of: Searched) -> dict[str, float]:
    """Of taking in all trials, and of one more expectation."""
    predictor = Predictor(Pool(of.study, METRIC), of.verified)
    predictor.learn(of.trials)
    spent = []
    for trial in of.trials[:2]:
        began = time.perf_counter()
        predictor.expected(trial.schemes)
        spent.append(1000 * (time.perf_counter() - began))
    return {"first": spent[0], "further": spent[1]}


def run(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    model = MODELS[name]
    task = model.make(options.assets)
    with bitfront.open_study(name, task, folder / f"{name}.db") as study:
        of, spent = searched(study, model, options.budgets)
        points, between = front_rows(of), between_rows(of, options.between)
        return {
            "model": name,
            **spent,
            "milliseconds": milliseconds(of),
            "front": {"summary": summary(points), "points": points},
            "between": {"summary": summary(between), "points": between},
        }


def report(result: Mapping[str, Any]) -> None:
    rows = []
    for kind in ("front", "between"):
        count = len(result[kind]["points"])
        for data, by_name in result[kind]["summary"].items():
            for name, s in by_name.items():
                rows.append([kind, count, data, name, s["median"], s["worst"], s["within"]])
    show(
        f"{result['model']}: predicted over measured KL ({result['allocations']} allocations, "
        f"{result['evaluations']} evaluations)",
        ["", "points", "data", "prediction", "median", "worst", "within 0.8 to 1.25"],
        rows,
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS)
    parser.add_argument("--between", type=float, nargs="*", default=BETWEEN)
    parser.add_argument("--keep", type=Path, help="a folder for the databases, to go on from")
    options = parsed(parser, threads=1)
    results = []
    with tempfile.TemporaryDirectory(prefix="bitfront-") as folder:
        for name in options.models:
            began = time.perf_counter()
            results.append(run(name, options.keep or Path(folder), options))
            print(name, f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
            report(results[-1])
    write({**head(), "models": results})


if __name__ == "__main__":
    main()
