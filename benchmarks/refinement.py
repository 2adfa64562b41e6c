"""What exploring is worth: refinement, evolution, Bayesian optimization; 60 and 200 measurements.

    python -m benchmarks.refinement --keep FOLDER > benchmarks/results/refinement.json

JSON on standard output, tables on standard error. For each model, draw of calibration data, budget
and method, on data that nothing was chosen by, what ``bitfront.search`` answers when it is given
that one budget and a database of its own, in which are the tables of ``fisher`` and what ``ilp``
had measured, but none of its answers:

    ilp               the verified allocation, or another candidate that measures better: no
                      exploration (``explore=0``)
    refine, evolution, bayes
                      from the same candidates, by at most so many measurements (``explorer``)
    together          ``refine``, all budgets in one search, with as many measurements for each:
                      what one measures serves the others

``trials`` are all allocations that a cell built, the candidates and those that were given up early
too; ``evaluations`` the answer's, beside profiling. ``seconds`` are those of the search, without
profiling and verifying (those of ``ilp``). ``/ ilp`` and ``/ prototype`` are KL over that of
``ilp`` and of ``EARLIER``, geometric means over the budgets.

    --weights clipped   the weights of the figures in ``EARLIER`` (``clipped``), so that allocations
                        are compared and nothing else
    --weights own       Bitfront's own scales

Schemes have groups of 32, and are per channel where 32 does not divide a layer's inputs and in
ResNet-20; where any layer needs those they are open to the others too (``per channel`` says how
many took one). Cells that are done are found again in ``--keep``, and one that was stopped goes on:
``seconds`` are then those of its last run. Each says which commit it ran at.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitfront
from benchmarks.clipped import clipped
from benchmarks.common import arguments, commit, head, origin, parsed, plain, show, write
from benchmarks.language import char_gpt, divided, llama, setting, spelled
from benchmarks.profilers import vit
from benchmarks.resnet import SCHEMES, resnet
from bitfront import Choices, Study
from bitfront.measuring import measure
from bitfront.pipeline import cost, selected
from bitfront.tasks import Task
from bitfront.types import Layer, Scheme, Trial

BUDGETS = (2.5, 3.0, 3.5, 4.0)
EXPLORE = (60, 200)
METHODS = ("ilp", "refine", "together", "evolution", "bayes")
EXPLORERS = {"ilp": "refine", "together": "refine"}  # of a method; else its name
UNIFORM = (3, 4)
STUDY = "refinement"


@dataclass(frozen=True)
class Model:
    """make: assets, calibration samples and seed -> task. choices: the layers that take part, each
    on its own. grouped: whether schemes have groups. samples: of calibration."""

    make: Callable[[Path, int, int], Task]
    choices: Choices
    grouped: bool
    samples: int

    def schemes(self, layers: tuple[Layer, ...]) -> str:
        return setting(layers, "rtn") if self.grouped else SCHEMES

    def uniform(self, layers: tuple[Layer, ...], bits: int) -> dict[str, str]:
        return {la.name: spelled(la, bits, "rtn") if self.grouped else f"w{bits}" for la in layers}


ALONE = Choices(groups="off")
MODELS = {
    "resnet20": Model(lambda a, n, seed: resnet(a, samples=n, seed=seed), ALONE, False, 512),
    "vit": Model(lambda a, n, seed: vit(a, n, seed), ALONE, True, 512),
    "llama": Model(
        lambda a, n, seed: llama(a, n, seed=seed),
        Choices(head=True, groups="off", container="safetensors"), True, 128,
    ),
    "chargpt": Model(lambda a, n, seed: char_gpt(a, n, seed), ALONE, True, 128),
}  # fmt: skip

# KL measured before this project, by average bits: all layers alike, and a crude prototype of
# refinement with 60 measurements. The same models and amounts of data, weights as ``clipped``, and
# for ResNet-20 and the ViT the same test images; of texts, other windows
EARLIER: dict[str, dict[str, dict[float, float]]] = {
    "resnet20": {
        "uniform": {3.0: 1.388, 4.0: 0.106},
        "prototype": {2.5: 1.278, 3.0: 0.303, 3.5: 0.100, 4.0: 0.041},
    },
    "vit": {
        "uniform": {3.0: 0.175, 4.0: 0.0371},
        "prototype": {2.5: 0.131, 3.0: 0.048, 3.5: 0.0184, 4.0: 0.0080},
    },
    "llama": {
        "uniform": {3.0: 0.824, 4.0: 0.135},
        "prototype": {2.5: 1.885, 3.0: 0.688, 3.5: 0.292, 4.0: 0.119},
    },
    "chargpt": {
        "uniform": {3.0: 0.091, 4.0: 0.0186},
        "prototype": {2.5: 0.169, 3.0: 0.069, 3.5: 0.029, 4.0: 0.0146},
    },
}


def judged(trial: Trial) -> dict[str, float]:
    kl = trial.metrics["kl"]
    return {
        "kl": kl.value,
        "stderr": kl.stderr,
        "calibration kl": trial.metrics["calibration/kl"].value,
    }


@dataclass(frozen=True, eq=False)
class Bench:
    """One model with one draw of calibration data, and the folder of its databases."""

    model: Model
    task: Task
    folder: Path

    def open(self, name: str, begun: str = "") -> Study:
        """A study in a database of its own, which begins as a copy of the profiled one.

        Or as a copy of ``begun``, if that is there: what it measured is found again, and counts
        all the same; its answers are not.
        """
        path, source = self.folder / f"{name}.db", self.folder / f"{begun}.db"
        if not path.exists():
            if not source.exists():
                source = self.folder / "profiled.db"
            part = path.with_suffix(".part")
            shutil.copy(source, part)
            arrays = Path(f"{source}.artifacts")
            if arrays.exists():  # its files are never changed: links do
                shutil.rmtree(f"{path}.artifacts", ignore_errors=True)
                shutil.copytree(arrays, f"{path}.artifacts", copy_function=os.link)
            with closing(sqlite3.connect(part, isolation_level=None)) as copied:
                copied.execute("DELETE FROM selection")
            part.rename(path)
        return bitfront.open_study(STUDY, self.task, path)

    def profile(self) -> float:
        """Fills the database that all others begin from; the seconds."""
        began = time.perf_counter()
        with bitfront.open_study(STUDY, self.task, self.folder / "profiled.db") as study:
            layers = selected(study, self.model.choices).layers
            bitfront.profile(study, self.model.schemes(layers), layers=layers)
        return time.perf_counter() - began

    def uniform(self) -> list[dict[str, Any]]:
        with self.open("uniform") as study:
            layers = selected(study, self.model.choices).layers
            costs = cost(study, self.model.schemes(layers), self.model.choices)
            rows = []
            for bits in UNIFORM:
                schemes = self.model.uniform(layers, bits)
                trial = measure(study, schemes, "uniform", costs.total(schemes))
                rows.append({"bits": bits, **judged(trial)})
        return rows

    def cells(self, method: str, allowance: int, budgets: Sequence[float]) -> list[dict[str, Any]]:
        """Answers within ``budgets``, each by itself or together; found again if they are there."""
        if method == "together":
            return self._kept(f"{method}-{allowance}", "", method, allowance, budgets)
        rows = []
        for bits in budgets:
            name, begun = f"{method}-{allowance}-{bits:g}", f"ilp-0-{bits:g}"
            rows += self._kept(name, begun, method, allowance, [bits])
        return rows

    def _kept(
        self, name: str, begun: str, method: str, allowance: int, budgets: Sequence[float]
    ) -> list[dict[str, Any]]:
        kept = self.folder / f"{name}.json"
        if not kept.exists():
            with self.open(name, begun) as study:
                rows = self._searched(study, method, allowance, budgets)
            kept.write_text(json.dumps(plain(rows)))
        found: list[dict[str, Any]] = json.loads(kept.read_text())
        return found

    def _searched(
        self, study: Study, method: str, allowance: int, budgets: Sequence[float]
    ) -> list[dict[str, Any]]:
        choices = self.model.choices
        layers = selected(study, choices).layers
        began = time.perf_counter()
        answers = bitfront.search(
            study, self.model.schemes(layers), [f"{bits:g}bpw" for bits in budgets],
            choices=choices, explore=allowance, explorer=EXPLORERS.get(method, method),
        )  # fmt: skip
        seconds = (time.perf_counter() - began) / len(answers)
        made = Counter(tuple(trial.settings.get("budgets", ())) for trial in study.trials())
        rows = []
        for bits, answer in zip(budgets, answers, strict=True):
            chosen = answer.trial.schemes
            rows.append({
                "method": method, "explore": allowance, "bits": bits,
                **judged(answer.trial),
                **origin(answer),
                "trials": made[f"{bits:g}bpw",],
                "seconds": seconds,
                "allocation": "".join(str(Scheme.parse(chosen[la.name]).bits) for la in layers),
                "per channel": sum(
                    self.model.grouped and divided(la) and "g" not in chosen[la.name]
                    for la in layers
                ),
                "commit": commit(),
            })  # fmt: skip
        return rows


def mean_ratio(kl: dict[float, float], base: dict[float, float]) -> float | None:
    """Geometric mean over the budgets that both have; None where there is none."""
    logs = [math.log(kl[bits] / base[bits]) for bits in kl if bits in base]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def ratios(cells: Sequence[dict[str, Any]], earlier: dict[float, float]) -> list[dict[str, Any]]:
    """Of each method and allowance, in order."""
    by_method: dict[tuple[str, int], dict[float, float]] = {}
    for cell in cells:
        by_method.setdefault((cell["method"], cell["explore"]), {})[cell["bits"]] = cell["kl"]
    base = by_method.get(("ilp", 0), {})
    return [
        {
            "method": method, "explore": allowance,
            "/ ilp": mean_ratio(kl, base), "/ prototype": mean_ratio(kl, earlier),
        }
        for (method, allowance), kl in by_method.items()
    ]  # fmt: skip


def run(name: str, seed: int, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    model = MODELS[name]
    samples = options.samples or model.samples
    place = folder / f"{options.weights}-{name}-{samples}-{seed}"
    place.mkdir(parents=True, exist_ok=True)
    bench = Bench(model, model.make(options.assets, samples, seed), place)
    result: dict[str, Any] = {
        "model": name, "weights": options.weights, "samples": samples, "seed": seed,
        "profiling seconds": bench.profile(), "uniform": bench.uniform(), "cells": [],
    }  # fmt: skip
    for method in options.methods:
        for allowance in [0] if method == "ilp" else options.explore:
            for cell in bench.cells(method, allowance, sorted(options.budgets)):
                result["cells"].append(cell)
                print(name, seed, method, allowance, cell["bits"], cell["kl"],
                      f"{cell['seconds']:.0f} s", file=sys.stderr)  # fmt: skip
    return {**result, "ratios": ratios(result["cells"], EARLIER[name]["prototype"])}


def report(result: dict[str, Any]) -> None:
    earlier = EARLIER[result["model"]]
    title = f"{result['model']}, {result['samples']} samples, seed {result['seed']}"
    show(
        f"{title}: all layers alike, {result['weights']} weights",
        ["bits", "KL", "earlier"],
        [[u["bits"], spread(u), earlier["uniform"].get(u["bits"])] for u in result["uniform"]],
    )
    budgets = sorted({cell["bits"] for cell in result["cells"]})
    rows: list[list[Any]] = []
    for ratio in result["ratios"]:
        of = {
            cell["bits"]: cell
            for cell in result["cells"]
            if (cell["method"], cell["explore"]) == (ratio["method"], ratio["explore"])
        }
        sums = [sum(of[b][name] for b in budgets) for name in ("evaluations", "trials")]
        seconds = f"{sum(of[b]['seconds'] for b in budgets):.0f}"
        rows.append(
            [f"{ratio['method']}, {ratio['explore']}", *(spread(of[b]) for b in budgets),
             ratio["/ ilp"], ratio["/ prototype"], *sums, seconds]
        )  # fmt: skip
    rows.append(["prototype, 60", *(earlier["prototype"].get(b) for b in budgets), *[None] * 5])
    show(
        f"{title}: KL on unseen data, {result['weights']} weights",
        ["method, measurements", *(f"{bits:g}" for bits in budgets), "/ ilp", "/ prototype",
         "evaluations", "trials", "seconds"],
        rows,
    )  # fmt: skip


def spread(row: dict[str, Any]) -> str:
    return f"{row['kl']:.3g} ± {row['stderr']:.1g}"


def overall(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """``ratios`` of all models and seeds together."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for result in results:
        for ratio in result["ratios"]:
            found.setdefault((ratio["method"], ratio["explore"]), []).append(ratio)
    return [
        {"method": method, "explore": allowance,
         **{name: geometric([r[name] for r in rows]) for name in ("/ ilp", "/ prototype")}}
        for (method, allowance), rows in found.items()
    ]  # fmt: skip


def geometric(values: Sequence[float | None]) -> float | None:
    logs = [math.log(v) for v in values if v is not None]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--budgets", type=float, nargs="+", default=list(BUDGETS))
    parser.add_argument("--explore", type=int, nargs="+", default=list(EXPLORE))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of calibration data")
    parser.add_argument("--weights", choices=["clipped", "own"], default="clipped")
    parser.add_argument("--samples", type=int, help="of calibration (default: 512 images or 128)")
    parser.add_argument("--keep", type=Path, help="a folder for the databases, to go on from")
    options = parsed(parser, threads=1)
    results = []
    with (
        tempfile.TemporaryDirectory(prefix="bitfront-") as folder,
        clipped(options.weights == "clipped"),
    ):
        for name in options.models:
            for seed in options.seeds:
                results.append(run(name, seed, options.keep or Path(folder), options))
                report(results[-1])
    together = overall(results)
    show("All models and seeds", list(together[0]), [list(row.values()) for row in together])
    write({**head(), "earlier": EARLIER, "runs": results, "overall": together})


if __name__ == "__main__":
    main()
