"""Every profiler against measuring one at a time: ranks, allocations, time, memory.

    python -m benchmarks.profilers > benchmarks/results/profilers.json

JSON on standard output, tables on standard error. For each model, and each registered profiler with
its defaults, over the same calibration data:

    spearman   rank correlation of its best table with measured KL, over all (layer, scheme) pairs
    within     the mean of those among the layers under one scheme
    kl         on data that calibration never saw, of the allocations at 3 and 4 bits that its best
               table gives by itself: nothing verified, nothing refined
    time       in forward and backward passes (loss on labels, gradients of all parameters)
    memory     peak above the loaded model, as a multiple of that of forward and backward

``perturb`` is what the others are compared with, and its row is exact optimization over what was
measured on the calibration data. Every profiler runs in a process of its own; seconds are the
processor's, of one thread, and hold the sweep of quantizing the weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import bitfront
from benchmarks.common import ROOT, arguments, head, memory_above, parsed, show, write
from benchmarks.language import llama
from benchmarks.profiling import forward_backward, seconds
from benchmarks.resnet import resnet
from bitfront import Choices, Study
from bitfront.agreement import agreement
from bitfront.measuring import measure
from bitfront.problems import build_problem
from bitfront.search import allocate
from bitfront.sensitivity import PROFILERS
from bitfront.tasks import Task, VisionTask, select
from bitfront.types import Budget, Sensitivities, Trial

BITS = (3, 4)
BASE = "forward and backward"


@dataclass(frozen=True)
class Model:
    """make: assets folder -> task. exclude: layers that cannot take the schemes."""

    make: Callable[[Path], Task]
    schemes: str
    exclude: tuple[str, ...] = ()


def vit(
    assets: Path, samples: int = 128, seed: int = 0, *, batch: int = 128, hold_back: float = 0.0
) -> Task:
    images = next((assets / "cifar10").glob("*.npz"))
    return VisionTask(
        f"{assets / 'archs.py'}:TinyViT",
        weights=next((assets / "cifar10_vit").glob("*.safetensors")),
        calibration=f"{images}:x_train,y_train", evaluation=f"{images}:x_test,y_test",
        samples=samples, seed=seed, batch=batch, hold_back=hold_back,
        mean=[0.4914, 0.4822, 0.4465], std=[0.2023, 0.1994, 0.2010],
    )  # fmt: skip


MODELS = {
    "ResNet-20, 128 images": Model(partial(resnet, samples=128), "w2 w3 w4 w5 w6 w8"),
    "ViT, 128 images": Model(vit, "w2g32 w3g32 w4g32 w5g32 w6g32 w8g32", ("patch",)),
    "Llama 260K, 32 x 128 tokens": Model(partial(llama, samples=32), "w2 w3 w4 w5 w6 w8"),
}


def work(name: str, what: str, db: Path, assets: Path) -> dict[str, float]:
    """Do one thing; its seconds, and how far memory rose above the loaded model's, in bytes."""
    model = MODELS[name]
    task = model.make(assets)
    layers = select(task, exclude=model.exclude).layers  # found by a forward pass
    if what == BASE:
        forward_backward(task)
        spent, peak = memory_above(lambda: seconds(partial(forward_backward, task)))
    else:
        with bitfront.open_study(name, task, db) as study:
            profiling = partial(bitfront.profile, study, model.schemes, what, layers=layers)
            spent, peak = memory_above(lambda: seconds(profiling))
    return {"seconds": spent, "peak": peak}


def alone(name: str, what: str, db: Path, assets: Path) -> dict[str, float]:
    """``work`` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.profilers", "--work", name, what, str(db)]
    options = ["--assets", str(assets)]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def ranks(table: Sensitivities, measured: Sensitivities) -> tuple[float, float]:
    """Rank correlation over all pairs, and the mean of those under one scheme."""

    def correlation(of: Sensitivities) -> float:
        return float(agreement([of, measured])[0][1, 0])

    columns = [
        replace(
            table,
            schemes=(scheme,),
            values=table.values[:, j : j + 1],
            stderr=table.stderr[:, j : j + 1],
        )
        for j, scheme in enumerate(table.schemes)
    ]
    return correlation(table), float(np.mean([correlation(column) for column in columns]))


def allocated(
    study: Study, table: Sensitivities, schemes: str, bits: int, exclude: tuple[str, ...] = ()
) -> Trial:
    """What a table gives at an average of ``bits``, measured."""
    selection = select(study.task, exclude=exclude)
    costs = bitfront.cost(study, schemes, Choices(exclude=exclude))
    problem = build_problem(
        table, costs, [Budget(float(bits), "bpw")], groups=selection.groups, pins=selection.pins
    )
    chosen = allocate(problem).schemes
    return measure(study, chosen, "ilp", costs.total(chosen))


def run(name: str, assets: Path) -> list[dict[str, Any]]:
    model = MODELS[name]
    profilers = sorted(
        (n for n, p in PROFILERS.items() if p.measures), key=lambda p: p != "perturb"
    )
    with tempfile.TemporaryDirectory(prefix="bitfront-") as folder:
        db = Path(folder) / "study.db"
        cost = {what: alone(name, what, db, assets) for what in (BASE, *profilers)}
        task = model.make(assets)
        layers = select(task, exclude=model.exclude).layers
        rows = []
        with bitfront.open_study(name, task, db) as study:
            found = {
                p: next(iter(bitfront.profile(study, model.schemes, p, layers=layers).values()))
                for p in profilers
            }
            for profiler, table in found.items():
                spearman, within = ranks(table, found["perturb"])
                trials = [
                    allocated(study, table, model.schemes, bits, model.exclude) for bits in BITS
                ]
                kl = [trial.metrics["kl"].value for trial in trials]
                rows.append(
                    {
                        "profiler": profiler, "spearman": spearman, "within": within,
                        **{f"kl at {bits}": v for bits, v in zip(BITS, kl, strict=True)},
                        "time": cost[profiler]["seconds"] / cost[BASE]["seconds"],
                        "memory": cost[profiler]["peak"] / cost[BASE]["peak"],
                        "bytes": cost[profiler]["peak"],
                    }
                )  # fmt: skip
    show(name, list(rows[0]), [list(row.values()) for row in rows])
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--work", nargs=3, metavar=("MODEL", "WHAT", "DB"), help=argparse.SUPPRESS)
    options = parsed(parser, threads=1)
    if options.work:
        name, what, db = options.work
        print(json.dumps(work(name, what, Path(db), options.assets)))
        return
    write({**head(), "models": {name: run(name, options.assets) for name in options.models}})


if __name__ == "__main__":
    main()
