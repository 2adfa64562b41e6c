"""Fronts against passes over the calibration data: solvers, refinement, evolution, Bayes.

    python -m benchmarks.explorers > benchmarks/results/explorers.json

JSON on standard output, tables on standard error. For each model and seed a study is profiled
(``fisher``) and its problems are made at each of the budgets; each method then proposes
allocations, which are built and measured on the calibration data, for ``--allowance`` passes over
it at most. Allocations that a method begins from are measured too, and count. Each method measures
in a study of its own, so that it finds nothing that another one had measured. Nothing is verified,
so all begin from the same unverified table.

    ilp                    the best allocation of each point by the table: no more than that
    top-k                  the best few of each point that differ in two groups (``several``)
    random                 by lot within each budget, in turn
    refine                 tempered starts and refinement from the ilp's allocations, as
                           ``bitfront.search`` has them: point after point by rising budget, each
                           with an equal part of the passes that are left, and one pool for all
    evolution, nothing     ``evolution`` without starts: no table
    evolution, front       ``evolution`` from the ilp's allocations
    bayes, bayes-gp        from the ilp's allocations; TPE, and a Gaussian process
    ..., pruned            the same; what is hopeless beside the best within the tightest budget
                           that it fits is given up (``pruning``), and then not on the front

An allocation that is measured is one pass; one that is given up is the part of the samples that it
saw, in ``BATCHES`` batches; an expansion of ``refine`` is as many as it has forward and backward
passes (``Around.passes``). A method that ends early keeps what it has. ``refine`` has looked at
all budgets at the end only, the others at any time.

A seed draws the calibration data, and is the method's own where it draws: so methods that do not
draw have a spread too, which is that of the data, and methods share the data of a seed. After each
of ``AT`` passes, and at the end, mean and standard deviation over the seeds of

    hypervolume   of average bits and ln KL, against the reference (greatest budget + half a bit,
                  ln of twice the KL of ilp at the least budget): in bits × nepers
    gain          hypervolume less that of ilp, with the same seed
    ratio         of the least KL within each budget over that of ilp with the same seed, geometric
                  mean over budgets

and, of what there is at the end, on data that nothing was chosen by, the ratio of the allocations
with the least calibration KL within each budget. A method is a function of a ``Run`` and a seed,
which measures by ``Run.look`` until that raises ``Spent``; ``METHODS`` names them.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
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
from bitfront.pool import Pool
from bitfront.problems import build_problem
from bitfront.pruning import Hopeless, begun, loss_of
from bitfront.recalibration import Predictor
from bitfront.refinement import refined
from bitfront.search import EXPLORERS, allocate, fitting, several
from bitfront.search.randomized import randomized
from bitfront.sensitivity.around import Around
from bitfront.storage import hypervolume
from bitfront.study import Progress, silent
from bitfront.tasks import Task
from bitfront.tempering import tempered
from bitfront.types import Allocation, Budget, Costs, Problem, Sensitivities, Trial

BUDGETS = (2.5, 3.0, 3.5, 4.0)
AT = (4, 10, 20, 40, 60, 80, 120, 160, 200)
METRIC = "kl"
BATCHES = 8  # of the calibration data, after each of which a candidate may be given up
TABLE = "fisher"  # what problems are made of
ROUNDING = 1e-9  # of passes that are parts of one

Schemes = Mapping[str, str]


class Spent(Exception):
    """There are not the passes left that this takes."""


@dataclass(frozen=True, eq=False)
class Setting:
    """One model with one seed's calibration data: by rising budget problems and ilp's answers.

    of_table: makes the problem of a table at the budget with an index. base, unseen: KL of ilp's
    answers on the calibration data, and on data that nothing is chosen by.
    """

    task: Task
    costs: Costs
    problems: tuple[Problem, ...]
    of_table: Callable[[Sensitivities, int], Problem]
    solved: tuple[Allocation, ...]
    base: tuple[float, ...]
    unseen: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Found:
    """A measured allocation. at: the passes that were spent when it was known."""

    schemes: Schemes
    bits: float
    loss: float
    at: float


class Run:
    """What one method measures in its study, and pays for in passes over the calibration data."""

    def __init__(self, of: Setting, study: Study, allowance: int) -> None:
        self.of, self.study = of, study
        self.limit, self.spent = float(allowance), 0.0
        self.found: list[Found] = []
        self.pool = Pool(study, METRIC)

    @property
    def left(self) -> int:
        """Whole passes."""
        return int(self.limit - self.spent + ROUNDING)

    def pay(self, passes: float) -> None:
        if self.spent + passes > self.limit + ROUNDING:
            raise Spent
        self.spent += passes

    @contextmanager
    def part(self, of: int) -> Iterator[None]:
        """One of so many parts of the passes that are left; ends what spends them."""
        whole, self.limit = self.limit, self.spent + (self.limit - self.spent) / of
        try:
            yield
        except Spent:
            pass
        finally:
            self.limit = whole

    def look(self, schemes: Schemes, hopeless: Hopeless | None = None) -> Trial:
        """Measured on the calibration data, and paid for."""
        if self.limit - self.spent < ROUNDING:
            raise Spent
        costs = self.of.costs.total(schemes)
        trial = measure(
            self.study, schemes, "benchmark", costs, evaluation=False, hopeless=hopeless
        )
        whole = trial.metrics.get(CALIBRATION + METRIC)
        self.pay(1.0 if whole else self._seen(trial))
        if whole:
            self.found.append(Found(schemes, costs["bits"], whole.value, self.spent))
            self.pool.add([trial])
        return trial

    def _seen(self, trial: Trial) -> float:
        """The part of the samples after which a trial was given up."""
        judge = self.study.calibration_judge
        part = begun(self.study.store.trial_vectors(self.study.record, trial.id), judge)
        assert part is not None
        return part.samples / judge.baseline.samples

    def loss(self, allocation: Allocation) -> float:
        return self.look(allocation.schemes).metrics[CALIBRATION + METRIC].value

    def pruned(self, allocation: Allocation) -> float:
        """As ``loss``; what is expected, where that is hopeless."""
        of = next(p for p in self.of.problems if fitting(p, [allocation.schemes], True)[0])
        best = min(self.pool.within(of), key=lambda at: at.value(METRIC))
        hopeless = Hopeless(METRIC, best.sums[METRIC])
        return loss_of(self.study, self.look(allocation.schemes, hopeless), hopeless)

    def starts(self) -> list[tuple[Allocation, float]]:
        """The ilp's allocations, measured."""
        return [(a, self.loss(a)) for a in self.of.solved]


Method = Callable[[Run, int], None]


def only_ilp(run: Run, seed: int) -> None:
    del seed
    run.starts()


def top_k(run: Run, seed: int) -> None:
    """In turn over the points."""
    del seed
    problems = run.of.problems
    each = -(-run.left // len(problems))
    lists = [several(problem, each, 2, time_limit=5) for problem in problems]
    for turn in zip(*lists, strict=False):
        for allocation in turn:
            run.look(allocation.schemes)


def by_lot(run: Run, seed: int) -> None:
    for i in count():
        problem = run.of.problems[i % len(run.of.problems)]
        run.look(randomized(problem, seed=seed * 100_000 + i).schemes)


def refine(run: Run, seed: int) -> None:
    """As ``answering.Point`` does, from one table."""
    del seed
    starts = [run.look(allocation.schemes) for allocation in run.of.solved]
    for point, start in enumerate(starts):
        with run.part(len(starts) - point):
            _refine(run, point, start)


def _refine(run: Run, point: int, start: Trial) -> None:
    problem = run.of.problems[point]

    def temper(allocation: Allocation, table: str, power: float) -> Trial:
        return run.look(allocation.schemes)

    def moves(every: Sequence[Schemes], progress: Progress) -> list[Trial]:
        del progress
        return [run.look(schemes) for schemes in every]

    def expanded(table: Sensitivities) -> Problem:
        run.pay(Around().passes)
        return run.of.of_table(table, point)

    tempered(run.pool, {TABLE: problem}, {TABLE: start}, "ilp", temper, run.left)
    expected = Predictor(run.pool, problem).expected
    refined(run.study, run.pool, expanded, problem, moves, expected, run.left, silent)


def exploring(name: str, *, nothing: bool = False, pruned: bool = False) -> Method:
    """A registered explorer, from the ilp's allocations unless from ``nothing``."""

    def method(run: Run, seed: int) -> None:
        starts = [] if nothing else run.starts()
        explorer = EXPLORERS[name](run.of.problems, starts, seed=seed)
        explore(explorer, run.pruned if pruned else run.loss, run.left * BATCHES)

    return method


METHODS: dict[str, Method] = {
    "ilp": only_ilp,
    "top-k": top_k,
    "random": by_lot,
    "refine": refine,
    "evolution, nothing": exploring("evolution", nothing=True),
    "evolution, front": exploring("evolution"),
    "evolution, front, pruned": exploring("evolution", pruned=True),
    "bayes": exploring("bayes"),
    "bayes, pruned": exploring("bayes", pruned=True),
    "bayes-gp": exploring("bayes-gp"),
}


def resnet20(assets: Path, samples: int, batch: int, seed: int) -> Task:
    return resnet(assets, samples=samples, batch=batch, seed=seed)


def llama260k(assets: Path, samples: int, batch: int, seed: int) -> Task:
    return llama(assets, samples, batch=batch, seed=seed)


MODELS: dict[str, tuple[Callable[[Path, int, int, int], Task], bool | None, str | None]] = {
    "resnet20": (resnet20, None, None),
    "llama": (llama260k, True, "safetensors"),
}


def prepared(name: str, seed: int, options: argparse.Namespace, db: Path) -> Setting:
    """A model, profiled on the data of a seed."""
    make, with_head, container = MODELS[name]
    task = make(options.assets, options.samples, -(-options.samples // BATCHES), seed)
    choices = Choices(head=with_head, groups="off", container=container)
    with bitfront.open_study(f"{name}, seed {seed}", task, db) as study:
        selection = selected(study, choices)
        schemes = SCHEMES if name == "resnet20" else setting(selection.layers, "rtn")
        tables = bitfront.profile(study, schemes, TABLE, layers=selection.layers)
        costs = cost(study, schemes, choices)
        budgets = [Budget.parse(f"{bits:g}bpw") for bits in sorted(options.budgets)]

        def of_table(table: Sensitivities, point: int) -> Problem:
            return build_problem(table, costs, [budgets[point]], groups=selection.groups)

        table = next(iter(tables.values()))
        problems = tuple(of_table(table, point) for point in range(len(budgets)))
        solved = tuple(map(allocate, problems))
        trials = [measure(study, a.schemes, a.solver, a.costs) for a in solved]
        return Setting(
            task, costs, problems, of_table, solved,
            base=tuple(t.metrics[CALIBRATION + METRIC].value for t in trials),
            unseen=tuple(t.metrics[METRIC].value for t in trials),
        )  # fmt: skip


def within(found: Sequence[Found], problem: Problem) -> Found | None:
    """The least loss within the limits of ``problem``."""
    limit = problem.limits["bits"] * (1 + 1e-12)
    return min((f for f in found if f.bits <= limit), key=lambda f: f.loss, default=None)


def volume(of: Setting, points: Sequence[tuple[float, float]]) -> float:
    """Of (bits, loss)."""
    weights = of.costs.weights
    most = max(p.limits["bits"] for p in of.problems) / weights + 0.5
    worst = math.log(2 * of.base[0])
    return hypervolume([(bits / weights, math.log(loss)) for bits, loss in points], (most, worst))


def ratio(of: Setting, found: Sequence[Found]) -> float | None:
    """Geometric mean over the points; None while one of them has nothing."""
    best = [within(found, problem) for problem in of.problems]
    if any(b is None for b in best):
        return None
    logs = [math.log(b.loss / ilp) for b, ilp in zip(best, of.base, strict=True) if b]
    return math.exp(sum(logs) / len(logs))


def counts(allowance: int) -> list[int]:
    """Of passes, at which figures are given."""
    return [*(n for n in AT if n < allowance), allowance]


def curve(of: Setting, found: Sequence[Found], at: Sequence[int]) -> dict[str, Any]:
    known = [[f for f in found if f.at <= n + ROUNDING] for n in at]
    volumes = [volume(of, [(f.bits, f.loss) for f in fs]) for fs in known]
    ilp = volume(of, [(a.costs["bits"], b) for a, b in zip(of.solved, of.base, strict=True)])
    return {
        "allocations": [len(fs) for fs in known],
        "hypervolume": volumes,
        "gain": [v - ilp for v in volumes],
        "ratio": [ratio(of, fs) for fs in known],
    }


def unseen(run: Run) -> float | None:
    """``ratio`` on evaluation data, of what answers each point."""
    logs = []
    for problem, ilp in zip(run.of.problems, run.of.unseen, strict=True):
        best = within(run.found, problem)
        if best is None:
            return None
        trial = measure(run.study, best.schemes, "benchmark", run.of.costs.total(best.schemes))
        logs.append(math.log(trial.metrics[METRIC].value / ilp))
    return math.exp(sum(logs) / len(logs))


def run_of(of: Setting, study: Study, method: str, seed: int, allowance: int) -> dict[str, Any]:
    run = Run(of, study, allowance)
    began = time.perf_counter()
    with run.part(1):
        METHODS[method](run, seed)
    seconds = time.perf_counter() - began
    return {
        "seed": seed,
        **curve(of, run.found, counts(allowance)),
        "passes": run.spent,
        "unseen ratio": unseen(run),
        "seconds": seconds,
    }


def results_of(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    methods: dict[str, list[dict[str, Any]]] = {method: [] for method in options.methods}
    db, base, layers = folder / f"{name}.db", [], 0
    for seed in options.seeds:
        of = prepared(name, seed, options, db)
        base.append(of.base)
        layers = len(of.problems[0].layers)
        for method, rows in methods.items():
            with bitfront.open_study(f"{name}, seed {seed}: {method}", of.task, db) as study:
                row = run_of(of, study, method, seed, options.allowance)
            rows.append(row)
            print(name, seed, method, row["ratio"], row["unseen ratio"], file=sys.stderr)
    return {
        "model": name, "budgets": sorted(options.budgets), "layers": layers,
        "passes": counts(options.allowance), "ilp kl": base, "methods": methods,
    }  # fmt: skip


def report(result: dict[str, Any]) -> None:
    for figure in ("hypervolume", "gain", "ratio"):
        rows = []
        for method, runs in result["methods"].items():
            columns = zip(*(run[figure] for run in runs), strict=True)
            cells = [_spread(values) for values in columns]
            ends = [_spread([run["unseen ratio"] for run in runs])] if figure == "ratio" else []
            rows.append([method, *cells, *ends])
        names = ["method", *map(str, result["passes"]), *(["unseen"] if figure == "ratio" else [])]
        show(f"{result['model']}: {figure} after so many passes", names, rows)


def _spread(values: Sequence[Any]) -> str | None:
    if None in values:
        return None
    mean = float(np.mean(values))
    return f"{mean:.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--budgets", type=float, nargs="+", default=list(BUDGETS))
    parser.add_argument("--samples", type=int, default=128, help="calibration samples")
    parser.add_argument(
        "--allowance", type=int, default=60, help="passes over the calibration data"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--keep", type=Path, help="a folder for the databases, to go on from")
    options = parsed(parser)
    results = []
    with tempfile.TemporaryDirectory(prefix="bitfront-") as folder:
        for name in options.models:
            results.append(results_of(name, options, options.keep or Path(folder)))
            report(results[-1])
    write({**head(), "samples": options.samples, "allowance": options.allowance, "runs": results})


if __name__ == "__main__":
    main()
