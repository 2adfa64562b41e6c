"""Fronts against the number of measured allocations: solvers, evolution, Bayesian optimization.

    python -m benchmarks.explorers > benchmarks/results/explorers.json

JSON on standard output, tables on standard error. For each model a study is profiled once
(``fisher``) and its problems are made at each of the budgets; each method then proposes
allocations, which are built and measured on the calibration data, ``--allowance`` of them at most.
Allocations that a method begins from are measured too, and count. What one method had measured
another one finds in the study's database, but pays for as well. Nothing is verified or refined
beforehand, so all begin from the same unverified table.

    ilp                    the best allocation of each point by the table: no more than that
    top-k                  the best few of each point that differ in two groups (``several``)
    random                 by lot within each budget, in turn
    evolution, nothing     ``evolution`` without starts: no table
    evolution, front       ``evolution`` from the ilp's allocations
    bayes, bayes-gp        from the ilp's allocations; TPE, and a Gaussian process

After each of ``AT`` measurements, mean and standard deviation over the seeds of

    hypervolume   of average bits and ln KL, against the reference (greatest budget + half a bit,
                  ln of twice the KL of ilp at the least budget): in bits × nepers
    ratio         of the least KL within each budget over that of ilp, geometric mean over budgets

and at the end, on data that nothing was chosen by, the ratio of the allocations with the least
calibration KL within each budget. A method is a function of a ``Setting``, an allowance and a seed
that yields measured allocations; ``METHODS`` names them.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import bitfront
from benchmarks.common import arguments, head, parsed, show, write
from benchmarks.language import llama, setting
from benchmarks.resnet import SCHEMES, resnet
from bitfront import Choices, Study
from bitfront.exploring import explore
from bitfront.heldout import CALIBRATION
from bitfront.measuring import measure
from bitfront.pipeline import cost, selected
from bitfront.problems import build_problem
from bitfront.search import EXPLORERS, allocate, several
from bitfront.search.randomized import randomized
from bitfront.storage import hypervolume
from bitfront.types import Allocation, Budget, Problem

BUDGETS = (2.5, 3.0, 3.5, 4.0)
AT = (4, 10, 20, 40, 60, 80, 100, 150, 200)
METRIC = "kl"

Measured = tuple[Allocation, float]


@dataclass(frozen=True, eq=False)
class Setting:
    """One model's study, its problems by rising budget, and how an allocation is measured."""

    study: Study
    problems: tuple[Problem, ...]
    weights: int
    loss: Callable[[Allocation], float]

    def bits(self, allocation: Allocation) -> float:
        """Average bits."""
        return allocation.costs["bits"] / self.weights

    def solved(self) -> list[Measured]:
        """The ilp's allocation of each point, measured."""
        return [(a, self.loss(a)) for a in map(allocate, self.problems)]


Method = Callable[[Setting, int, int], list[Measured]]


def only_ilp(of: Setting, allowance: int, seed: int) -> list[Measured]:
    del seed
    return of.solved()[:allowance]


def top_k(of: Setting, allowance: int, seed: int) -> list[Measured]:
    """In turn over the points."""
    del seed
    each = -(-allowance // len(of.problems))
    lists = [several(problem, each, 2, time_limit=5) for problem in of.problems]
    turns = [a for turn in zip(*lists, strict=False) for a in turn]
    return [(a, of.loss(a)) for a in turns[:allowance]]


def by_lot(of: Setting, allowance: int, seed: int) -> list[Measured]:
    found = []
    for i in range(allowance):
        problem = of.problems[i % len(of.problems)]
        allocation = randomized(problem, seed=seed * 100_000 + i)
        found.append((allocation, of.loss(allocation)))
    return found


def exploring(name: str, *, nothing: bool = False) -> Method:
    """A registered explorer, from the ilp's allocations unless from ``nothing``."""

    def method(of: Setting, allowance: int, seed: int) -> list[Measured]:
        starts = [] if nothing else of.solved()
        explorer = EXPLORERS[name](of.problems, starts, seed=seed)
        return starts + explore(explorer, of.loss, allowance - len(starts))

    return method


METHODS: dict[str, Method] = {
    "ilp": only_ilp,
    "top-k": top_k,
    "random": by_lot,
    "evolution, nothing": exploring("evolution", nothing=True),
    "evolution, front": exploring("evolution"),
    "bayes": exploring("bayes"),
    "bayes-gp": exploring("bayes-gp"),
}
SEEDLESS = ("ilp", "top-k")
MODELS: dict[str, tuple[Callable[[Path, int], Any], bool | None, str | None]] = {
    "resnet20": (lambda assets, samples: resnet(assets, samples=samples), None, None),
    "llama": (llama, True, "safetensors"),
}


@contextmanager
def prepared(name: str, options: argparse.Namespace) -> Iterator[Setting]:
    """A model's study, profiled."""
    make, with_head, container = MODELS[name]
    task = make(options.assets, options.samples)
    choices = Choices(head=with_head, groups="off", container=container)
    with (
        tempfile.TemporaryDirectory(prefix="bitfront-") as folder,
        bitfront.open_study(name, task, (options.keep or Path(folder)) / f"{name}.db") as study,
    ):
        selection = selected(study, choices)
        schemes = SCHEMES if name == "resnet20" else setting(selection.layers, "rtn")
        tables = bitfront.profile(study, schemes, layers=selection.layers)
        costs = cost(study, schemes, choices)
        table = next(iter(tables.values()))
        problems = tuple(
            build_problem(table, costs, [Budget.parse(f"{bits:g}bpw")], groups=selection.groups)
            for bits in sorted(options.budgets)
        )

        def loss(allocation: Allocation) -> float:
            trial = measure(
                study, allocation.schemes, allocation.solver, allocation.costs, evaluation=False
            )
            return trial.metrics[CALIBRATION + METRIC].value

        yield Setting(study, problems, costs.weights, loss)


def within(of: Setting, found: list[Measured], problem: Problem) -> Measured | None:
    """The least loss within the limits of ``problem``."""
    limit = problem.limits["bits"] * (1 + 1e-12)
    inside = [m for m in found if m[0].costs["bits"] <= limit]
    return min(inside, key=lambda m: m[1]) if inside else None


def volume(of: Setting, found: list[Measured], worst: float) -> float:
    reference = (max(p.limits["bits"] for p in of.problems) / of.weights + 0.5, math.log(worst))
    return hypervolume([(of.bits(a), math.log(loss)) for a, loss in found], reference)


def ratio(of: Setting, found: list[Measured], base: list[float]) -> float | None:
    """Geometric mean over the points; None while one of them has nothing."""
    best = [within(of, found, problem) for problem in of.problems]
    if any(b is None for b in best):
        return None
    logs = [math.log(b[1] / of_ilp) for b, of_ilp in zip(best, base, strict=True) if b]
    return math.exp(sum(logs) / len(logs))


def curve(of: Setting, found: list[Measured], base: list[float], at: list[int]) -> dict[str, Any]:
    worst = 2 * base[0]
    counts = [n for n in at if n <= len(found)]
    return {
        "measured": counts,
        "hypervolume": [volume(of, found[:n], worst) for n in counts],
        "ratio": [ratio(of, found[:n], base) for n in counts],
    }


def unseen(of: Setting, found: list[Measured]) -> list[float]:
    """KL on evaluation data of what answers each point."""
    values = []
    for problem in of.problems:
        best = within(of, found, problem)
        assert best is not None
        a = best[0]
        trial = measure(of.study, a.schemes, a.solver, a.costs)
        values.append(trial.metrics[METRIC].value)
    return values


def run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {"model": name, "budgets": sorted(options.budgets), "methods": {}}
    with prepared(name, options) as of:
        base = [loss for _, loss in of.solved()]
        result |= {"ilp kl": base, "layers": len(of.problems[0].layers)}
        unseen_base = unseen(of, of.solved())
        at = [n for n in AT if n <= options.allowance]
        for method in options.methods:
            seeds = options.seeds[:1] if method in SEEDLESS else options.seeds
            rows = []
            for seed in seeds:
                began = time.perf_counter()
                found = METHODS[method](of, options.allowance, seed)
                row = curve(of, found, base, at)
                logs = np.log(unseen(of, found)) - np.log(unseen_base)
                row |= {"seed": seed, "unseen ratio": float(np.exp(logs.mean()))}
                rows.append({**row, "seconds": time.perf_counter() - began})
                print(name, method, seed, row["ratio"], row["unseen ratio"], file=sys.stderr)
            result["methods"][method] = rows
    return result


def report(result: dict[str, Any]) -> None:
    for figure in ("hypervolume", "ratio"):
        at = [
            n for n in AT if any(n in r["measured"] for m in result["methods"].values() for r in m)
        ]
        rows = []
        for method, runs in result["methods"].items():
            cells = []
            for n in at:
                values = [r[figure][r["measured"].index(n)] for r in runs if n in r["measured"]]
                known = [v for v in values if v is not None]
                cells.append(_spread(known) if known and len(known) == len(values) else None)
            end = [r["unseen ratio"] for r in runs]
            rows.append([method, *cells, *([_spread(end)] if figure == "ratio" else [])])
        columns = ["method", *map(str, at), *(["unseen"] if figure == "ratio" else [])]
        show(f"{result['model']}: {figure} after so many measurements", columns, rows)


def _spread(values: list[float]) -> str:
    mean = float(np.mean(values))
    return f"{mean:.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--budgets", type=float, nargs="+", default=list(BUDGETS))
    parser.add_argument("--samples", type=int, default=128, help="calibration samples")
    parser.add_argument("--allowance", type=int, default=60, help="measured allocations")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--keep", type=Path, help="a folder for the databases, to go on from")
    options = parsed(parser)
    results = []
    for name in options.models:
        results.append(run(name, options))
        report(results[-1])
    write({**head(), "samples": options.samples, "allowance": options.allowance, "runs": results})


if __name__ == "__main__":
    main()
