"""Whether predicting what layers add to each other's loss helps: ranks and answers.

    python -m benchmarks.interactions > benchmarks/results/interactions.json

JSON on standard output, tables on standard error. For each model, Spearman's rank correlation of
predicted with measured KL, on the calibration data and on data that calibration never saw, over

    random  allocations: bits by lot, stepped down by lot to a budget drawn from 2.5 to 6 bits
    near    allocations: at each of four budgets the best by measured values, those of the best that
            differ from it, and changes of one to four groups of it by lot, of the same bits (1 %)
            and at most half as much again of predicted loss; the mean over the budgets of the rank
            correlations at each

and four sums: of ``fisher``'s scores at the temperature, and of values measured one at a time
(``perturb``), each alone (additive), with interactions as they are (raw), and with these shrunk by
their reliability (shrunk). ``sweep`` has the measured sum with interactions times 0 to 1.

``answers`` are the solvers' own, on the measured values: ``ilp``, and ``quadratic`` with shrunk and
with raw interactions. Nothing is refined. Measurements are kept in ``--db``, so that a run which
was stopped goes on.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

import bitfront
from benchmarks.common import ROOT, arguments, head, parsed, show, write
from benchmarks.language import BITS, llama, setting, spelled
from benchmarks.resnet import resnet
from bitfront import Choices, Study
from bitfront.measuring import measure
from bitfront.pipeline import interactions_of
from bitfront.problems import build_problem
from bitfront.search import allocate, several
from bitfront.search.randomized import randomized
from bitfront.sensitivity.fisher import Fisher
from bitfront.tasks import ModuleTask, Task, VisionTask, select
from bitfront.types import (
    Allocation,
    Budget,
    Costs,
    Interactions,
    Problem,
    Trial,
)

BUDGETS = (2.5, 3.0, 3.5, 4.0)
TEMPERATURES = (1.0, 2.0)
SWEEP = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
LIKE = 0.01  # share by which the bits of near allocations differ from the best one's
WORSE = 1.5  # times the best one's predicted loss, at most
BEST = 8  # of each budget that are best but unlike

Choice = tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """How a model is brought, which of its layers take part, and as what."""

    make: Callable[[Path], Task]
    head: bool | None = None
    exclude: tuple[str, ...] = ()
    grouped: bool = True  # in groups of 32 where these divide a layer's inputs


def vit(assets: Path) -> Task:
    images = next((assets / "cifar10").glob("*.npz"))
    return VisionTask(
        f"{assets / 'archs.py'}:TinyViT",
        weights=next((assets / "cifar10_vit").glob("*.safetensors")),
        calibration=f"{images}:x_train,y_train", evaluation=f"{images}:x_test,y_test",
        samples=128, eval_samples=128, hold_back=0,
        mean=[0.4914, 0.4822, 0.4465], std=[0.2023, 0.1994, 0.2010],
    )  # fmt: skip


def char_gpt(assets: Path) -> Task:
    function = ROOT / "benchmarks" / "char_gpt.py"
    arguments = {"assets": str(assets), "samples": 64, "held": 64}
    return ModuleTask(f"{function}:char_gpt", arguments, hold_back=0)


MODELS = {
    "ResNet-20": Model(partial(resnet, samples=256, held=256), grouped=False),
    "ViT": Model(vit, exclude=("patch",)),
    "Llama 260K": Model(partial(llama, samples=64, held=64), head=True),
    "character GPT": Model(char_gpt),
}


@dataclass(frozen=True, eq=False)
class Profiled:
    """A model's measured values as a problem without limits; by temperature, its scores.

    Those have its interactions.
    """

    study: Study
    base: Problem
    scores: Mapping[float, Problem]
    costs: Costs

    @property
    def interactions(self) -> dict[float, Interactions]:
        """By temperature."""
        return {T: p.interactions for T, p in self.scores.items() if p.interactions is not None}

    def problem(self, bits: float, **changes: Any) -> Problem:
        """Within an average of ``bits``."""
        limits = {"bits": Budget(bits, "bpw").limit(self.costs.full, self.costs.weights)}
        return replace(self.base, limits=limits, **changes)

    def measure(self, choice: Choice) -> Trial:
        names = (self.base.schemes[c] for c in choice)
        schemes = dict(zip(self.base.layers, names, strict=True))
        return measure(self.study, schemes, "benchmark", self.costs.total(schemes))


def profiled(study: Study, model: Model) -> Profiled:
    selection = select(study.task, head=model.head, exclude=model.exclude, groups="off")
    layers = selection.layers
    schemes = setting(layers, "rtn") if model.grouped else "w2 w3 w4 w5 w6 w8"
    choices = Choices(head=model.head, exclude=model.exclude, groups="off", container="safetensors")
    costs = bitfront.cost(study, schemes, choices)
    profiler = Fisher(temperatures=TEMPERATURES)
    tables = bitfront.profile(study, schemes, profiler, layers=layers)
    scores = {T: tables[f"sample@{T:g}"] for T in TEMPERATURES}
    found = {
        T: interactions_of(study, schemes, profiler, layers, table) for T, table in scores.items()
    }
    measured = bitfront.profile(study, schemes, "perturb", layers=layers)["kl"]
    build = partial(build_problem, costs=costs, budgets=[], groups=selection.groups)
    by_scores = {T: build(table, interactions=found[T]) for T, table in scores.items()}
    base = build(measured)
    if model.grouped:  # of each width one scheme for each layer
        fitting = [{spelled(layer, bits, "rtn") for bits in BITS} for layer in layers]
        bars = np.array([[s in own for s in base.schemes] for own in fitting])
        base = replace(base, allowed=base.allowed & bars)
    return Profiled(study, base, by_scores, costs)


def random_allocations(of: Profiled, count: int) -> list[Choice]:
    rng = np.random.default_rng(0)
    budgets = rng.uniform(2.5, 6.0, count)
    return [
        chosen(of.base, randomized(of.problem(bits), seed=seed))
        for seed, bits in enumerate(budgets)
    ]


def near_allocations(of: Profiled, bits: float, count: int) -> list[Choice]:
    """The best of a budget and others near it, the best first."""
    problem = of.problem(bits)
    found = [chosen(problem, a) for a in several(problem, BEST, distance=2)]
    best = np.array(found[0])
    most = WORSE * problem.loss[np.arange(len(best)), best].sum()
    size = problem.totals(found[0])["bits"]
    tied = {layer for group in problem.groups for layer in group}
    groups = sorted([*problem.groups, *((i,) for i in range(len(best)) if i not in tied)])
    rng = np.random.default_rng(int(10 * bits))
    seen = set(found)
    while len(found) < count:
        choice = best.copy()
        for g in rng.choice(len(groups), size=rng.integers(1, 5), replace=False):
            members = list(groups[g])
            choice[members] = rng.choice(np.flatnonzero(problem.allowed[members].all(axis=0)))
        like = abs(problem.totals(choice.tolist())["bits"] - size) <= LIKE * size
        good = problem.loss[np.arange(len(best)), choice].sum() <= most
        if like and good and tuple(choice.tolist()) not in seen:
            found.append(tuple(choice.tolist()))
            seen.add(found[-1])
    return found


def chosen(problem: Problem, allocation: Allocation) -> Choice:
    return tuple(problem.schemes.index(s) for s in allocation.choice)


Sums = dict[str, NDArray[np.float64]]


def predicted(of: Profiled, choices: Sequence[Choice]) -> Sums:
    """What each sum says of each allocation."""

    def alone(loss: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([loss[np.arange(len(c)), c].sum() for c in choices])

    sums: Sums = {"measured": alone(of.base.loss)}
    for T, found in of.interactions.items():
        sums[f"scores@{T:g}"] = alone(of.scores[T].loss)
        raw = replace(found, shrink=1.0)
        pulls = np.array([raw.of(c) for c in choices])
        for name in ("measured", f"scores@{T:g}"):
            stem = f"{name} + interactions@{T:g}"
            sums[f"{stem}, raw"] = sums[name] + pulls
            sums[f"{stem}, shrunk"] = sums[name] + found.shrink * pulls
            if name == "measured":
                for factor in SWEEP:
                    sums[f"sweep@{T:g} {factor:g}"] = sums[name] + factor * pulls
    return sums


KL = {"calibration": "calibration/kl", "unseen": "kl"}


def ranks(sums: Sums, trials: Sequence[Trial]) -> dict[str, dict[str, float]]:
    """Data -> sum -> Spearman with what was measured there."""
    found = {}
    for data, metric in KL.items():
        truth = [t.metrics[metric].value for t in trials]
        found[data] = {name: float(spearmanr(s, truth).statistic) for name, s in sums.items()}
    return found


def averaged(parts: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        data: {name: float(np.mean([p[data][name] for p in parts])) for name in parts[0][data]}
        for data in KL
    }


def answers(of: Profiled, bits: float) -> dict[str, Any]:
    """What the solvers give on the measured values, measured."""
    rows: dict[str, Any] = {}
    problems = {"ilp": of.problem(bits)}
    for T, found in of.interactions.items():
        problems[f"quadratic@{T:g}, shrunk"] = of.problem(bits, interactions=found)
        raw = replace(found, shrink=1.0)
        problems[f"quadratic@{T:g}, raw"] = of.problem(bits, interactions=raw)
    for name, problem in problems.items():
        allocation = allocate(problem, name.partition("@")[0])
        trial = of.measure(chosen(problem, allocation))
        rows[name] = {
            **{data: trial.metrics[metric].value for data, metric in KL.items()},
            "predicted": allocation.loss, "bound": allocation.bound,
            "seconds": allocation.seconds,
        }  # fmt: skip
    return rows


def run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    model = MODELS[name]
    with bitfront.open_study(name, model.make(options.assets), options.db) as study:
        of = profiled(study, model)
        result: dict[str, Any] = {
            "model": name,
            "layers": len(of.base.layers),
            "allocations": {"random": options.random, "near": options.near},
            "reliability": {f"{T:g}": i.shrink for T, i in of.interactions.items()},
        }
        choices = random_allocations(of, options.random)
        trials = [of.measure(c) for c in choices]
        result["random"] = ranks(predicted(of, choices), trials)
        print(name, "random done", file=sys.stderr)
        parts = []
        for bits in BUDGETS:
            choices = near_allocations(of, bits, options.near // len(BUDGETS))
            parts.append(ranks(predicted(of, choices), [of.measure(c) for c in choices]))
        print(name, "near done", file=sys.stderr)
        result["near"] = averaged(parts)
        result["near by budget"] = dict(zip(map(str, BUDGETS), parts, strict=True))
        result["answers"] = {f"{bits:g}": answers(of, bits) for bits in BUDGETS}
    return result


def report(result: dict[str, Any]) -> None:
    reliable = ", ".join(f"{v:.2f} at {T}" for T, v in result["reliability"].items())
    names = [n for n in result["random"]["calibration"] if not n.startswith("sweep")]
    sets = [(kind, data) for kind in ("random", "near") for data in KL]
    show(
        f"{result['model']}: rank correlations (reliability of interactions {reliable})",
        ["sum", *(f"{kind}, {data}" for kind, data in sets)],
        [[n, *(f"{result[kind][data][n]:.3f}" for kind, data in sets)] for n in names],
    )
    rows = [
        [bits, name, row["calibration"], row["unseen"], row["predicted"], row["bound"]]
        for bits, found in result["answers"].items()
        for name, row in found.items()
    ]
    show(
        f"{result['model']}: KL of the solvers' answers",
        ["bits", "solver", *KL, "predicted", "bound"],
        rows,
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--random", type=int, default=200, help="random allocations")
    parser.add_argument("--near", type=int, default=200, help="near ones, of all budgets together")
    parser.add_argument("--db", type=Path, help="where measurements are kept (default: nowhere)")
    options = parsed(parser, threads=1)
    results = []
    with tempfile.TemporaryDirectory(prefix="bitfront-") as folder:
        options.db = options.db or Path(folder) / "studies.db"
        for name in options.models:
            results.append(run(name, options))
            report(results[-1])
    write({**head(), "models": results})


if __name__ == "__main__":
    main()
