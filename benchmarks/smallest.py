"""The smallest model whose measured KL holds: measurements that it takes, against bisection.

    python -m benchmarks.smallest > benchmarks/results/smallest.json

JSON on standard output, a table on standard error; ResNet-20 for kl<=0.05 and the Llama for
kl<=0.3, both on 128 calibration samples, in bytes:

    smallest    ``bitfront.smallest``, refining included
    narrowing   its part before refining
    bisection   bytes between the least and the most that any allocation has are halved; each time
                the ``ilp`` answer of the profiler's table, unverified, is measured

``measured`` counts allocations on the calibration data, ``passes`` those and verified pairs; the
curve has the least bytes that held after each allocation.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import bitfront
from benchmarks.common import arguments, fresh_study, head, parsed, show, write
from benchmarks.language import llama, setting
from benchmarks.resnet import SCHEMES, resnet
from bitfront import Choices, Study
from bitfront.measuring import measure
from bitfront.pipeline import cost, selected
from bitfront.problems import build_problem
from bitfront.search import allocate
from bitfront.tasks import Task
from bitfront.tasks.selection import select
from bitfront.types import Trial
from bitfront.within import Bound

SAMPLES, MEASURED = 128, 20
RESOLVED = 0.005  # of the bytes, where bisection ends
LLAMA = Choices(head=True, groups="off", container="safetensors")


def bisected(study: Study, schemes: str, hold: Bound, choices: Choices) -> dict[str, Any]:
    costs, selection = cost(study, schemes, choices), selected(study, choices)
    table = next(iter(bitfront.profile(study, schemes, layers=selection.layers).values()))
    problem = build_problem(table, costs, (), groups=selection.groups, pins=selection.pins)

    def extreme(sign: float) -> float:
        found = allocate(replace(problem, loss=sign * problem.costs["bytes"]))
        return found.costs["bytes"]

    low, high = extreme(1.0), extreme(-1.0)
    curve: list[float] = []
    last: Trial | None = None
    while len(curve) < MEASURED and high - low > RESOLVED * high:
        limit = (low + high) / 2
        found = allocate(replace(problem, limits={"bytes": limit}))
        trial = measure(study, found.schemes, "ilp", found.costs)
        if trial.metrics[f"calibration/{hold.name}"].value <= hold.amount:
            high, last = trial.costs["bytes"], trial
        else:
            low = limit
        curve.append(math.nan if last is None else last.costs["bytes"])
    assert last is not None
    return {"measured": len(curve), "passes": len(curve), "curve": curve, **judged(last, hold)}


def judged(trial: Trial, hold: Bound) -> dict[str, Any]:
    return {
        "bytes": trial.costs["bytes"],
        f"calibration {hold.name}": trial.metrics[f"calibration/{hold.name}"].value,
        f"evaluation {hold.name}": trial.metrics[hold.name].value,
        "expected over measured": trial.expected / trial.metrics[f"calibration/{hold.name}"].value,
    }


def searched(study: Study, schemes: str, hold: Bound, choices: Choices) -> list[dict[str, Any]]:
    found = bitfront.smallest(study, schemes, hold, choices=choices, explore=MEASURED)
    curve: list[float] = []
    trials = sorted((study.trial(id) for id in found.measured), key=lambda t: t.id)
    looked = [t for t in trials if t.solver != "full"]
    best = math.nan
    for trial in looked:
        if trial.metrics[f"calibration/{hold.name}"].value <= hold.amount:
            best = min(trial.costs["bytes"], best) if best == best else trial.costs["bytes"]
        curve.append(best)
    narrow = sum(t.solver == "cheapest" for t in looked)
    holds = [t for t in looked[:narrow] if t.costs["bytes"] == curve[narrow - 1]]
    first = measure(study, holds[0].schemes, "cheapest", holds[0].costs)
    return [
        {"search": "narrowing", "measured": narrow, "passes": narrow + len(found.verified),
         **judged(first, hold)},
        {"search": "smallest", "measured": len(looked), "passes": found.evaluations,
         "curve": curve, **judged(found.trial, hold)},
    ]  # fmt: skip


def run(
    name: str, make: Callable[[], Task], schemes: Callable[[Task], str], hold: str, choices: Choices
) -> dict[str, Any]:
    task, bound = make(), Bound.parse(hold)
    words = schemes(task)
    with fresh_study(task) as study:
        rows = searched(study, words, bound, choices)
    with fresh_study(task) as study:
        rows.append({"search": "bisection", **bisected(study, words, bound, choices)})
    return {"model": name, "hold": hold, "searches": rows}


def main(options: argparse.Namespace) -> None:
    def llama_schemes(task: Task) -> str:
        return setting(select(task, head=True, groups="off").layers, "rtn")

    found = [
        run("resnet20", lambda: resnet(options.assets, samples=SAMPLES), lambda _: SCHEMES,
            "kl<=0.05", Choices()),
        run("llama", lambda: llama(options.assets, SAMPLES), llama_schemes, "kl<=0.3", LLAMA),
    ]  # fmt: skip
    columns = ["search", "measured", "passes", "bytes", "calibration kl", "evaluation kl"]
    for report in found:
        rows = [[row[c] for c in columns] for row in report["searches"]]
        show(f"{report['model']}, {report['hold']}", columns, rows)
    write({**head(), "models": found})


if __name__ == "__main__":
    main(parsed(arguments(__doc__)))
