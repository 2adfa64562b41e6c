"""ResNet-20 on CIFAR-10: one-pass scores against measured ones, and what searches find.

    python -m benchmarks.resnet > benchmarks/results/resnet.json

JSON on standard output, tables on standard error; for each seed (which draws the calibration
images):

    scores    rank correlation of each table of ``fisher`` with ``perturb`` over all (layer, scheme)
              pairs, the chosen table first; how far single pairs are off; seconds of both, each
              with a new database (fisher: median of some)
    answers   for each budget what ``bitfront.search`` answers: KL and accuracy on the test images,
              the table it came from, evaluations beside profiling; ``exact`` is the best allocation
              by the full table of ``perturb``, unverified since it is measured
    uniform   all layers at 2, 3 and 4 bits

``--head-scale 2`` multiplies the last layer, for a more confident network of the same kind.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

import bitfront
from benchmarks.common import arguments, fresh_study, head, origin, parsed, show, write
from bitfront import Answer, Study
from bitfront.measuring import measure
from bitfront.pipeline import cost
from bitfront.tasks import Task, VisionTask
from bitfront.types import Sensitivities, Trial, parse_schemes

SCHEMES = "w2 w3 w4 w5 w6 w8"
UNIFORM = (2, 3, 4)
# KL of the project's starting points: other programs' allocations of the same kind of weights, one
# at a time being exact optimization over measured values (average bits -> nats)
EARLIER = {
    "uniform, earlier": {3.0: 1.388, 4.0: 0.106},
    "ModelOpt 0.47": {2.5: 1.61, 3.0: 0.502, 3.5: 0.149, 4.0: 0.041},
    "one at a time, earlier": {2.5: 2.46, 3.0: 0.299, 3.5: 0.104, 4.0: 0.035},
}


def resnet(
    assets: Path,
    *,
    samples: int = 512,
    batch: int = 128,
    seed: int = 0,
    head_scale: float = 1.0,
    held: int | None = None,
    hold_back: float = 0.0,
    fold_norms: bool = False,
) -> Task:
    """ResNet-20, calibrated on training images, judged on ``held`` of the test images, or all."""
    images = next((assets / "cifar10").glob("*.npz"))
    data: dict[str, Any] = {
        "calibration": f"{images}:x_train,y_train", "evaluation": f"{images}:x_test,y_test",
        "samples": samples, "eval_samples": held, "batch": batch, "seed": seed,
        "fold_norms": fold_norms, "hold_back": hold_back,  # 0 as the figures to compare with
        "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
    }  # fmt: skip
    task = VisionTask(
        f"{assets / 'archs.py'}:ResNetCIFAR",
        arguments={"depth": 20},
        weights=next((assets / "cifar10_resnet20").glob("*.safetensors")),
        **data,
    )
    if head_scale == 1:
        return task
    last = [m for m in task.model.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        for p in last.parameters():
            p.mul_(head_scale)
    return VisionTask(task.model, **data)


def agreement(tables: dict[str, Sensitivities], measured: Sensitivities) -> list[dict[str, Any]]:
    """Of each table with ``measured``: rank correlation, and measured over estimated values."""
    rows = []
    for name, table in tables.items():
        both = np.isfinite(table.values) & np.isfinite(measured.values)
        estimate, truth = table.values[both], measured.values[both]
        factors = np.quantile(truth / estimate, [0, 0.5, 1])
        rows.append(
            {
                "table": name,
                "spearman": float(spearmanr(estimate, truth).statistic),
                "split half": table.notes.get("split_half"),
                "least, median and greatest factor": factors.tolist(),
            }
        )
    return rows


def found(answer: Answer, seconds: float) -> dict[str, Any]:
    """What is reported of one answer."""
    return {
        "budget": " ".join(map(str, answer.budgets)),
        **judged(answer.trial),
        **origin(answer),
        "seconds": seconds,
        "bits": "".join(s.removeprefix("w") for s in answer.trial.schemes.values()),
    }


def judged(trial: Trial) -> dict[str, Any]:
    kl = trial.metrics["kl"]
    return {
        "kl": kl.value,
        "stderr": kl.stderr,
        "calibration kl": trial.metrics["calibration/kl"].value,
        "top1": trial.metrics["top1"].value,
    }


def searched(
    study: Study, budgets: list[float], profiler: str, verify: bool = True
) -> list[dict[str, Any]]:
    """One budget at a time, for the seconds of each: later ones profit from what is recorded."""
    rows = []
    for bits in budgets:
        began = time.perf_counter()
        (answer,) = bitfront.search(
            study, SCHEMES, [f"{bits:g}bpw"], profiler=profiler, verify=verify
        )
        rows.append(found(answer, time.perf_counter() - began))
    return rows


def run(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    task = resnet(options.assets, samples=options.samples, seed=seed, head_scale=options.head_scale)
    seconds: dict[str, list[float]] = {"fisher": [], "perturb": []}

    def profiled(study: Study, profiler: str) -> dict[str, Sensitivities]:
        began = time.perf_counter()
        tables = bitfront.profile(study, SCHEMES, profiler)
        seconds[profiler].append(time.perf_counter() - began)
        return tables

    assert task.layers  # found before anything is timed
    for _ in range(options.repeats - 1):
        with fresh_study(task) as study:
            profiled(study, "fisher")
    with fresh_study(task) as study:
        tables = profiled(study, "fisher")
        answers = searched(study, options.budgets, "fisher")
        full = study.judge.baseline.estimates()["top1"].value
        uniform = []
        for bits in UNIFORM:
            schemes = {layer.name: f"w{bits}" for layer in task.layers}
            costs = cost(study, parse_schemes(f"w{bits}")).total(schemes)
            uniform.append({"bits": bits, **judged(measure(study, schemes, "uniform", costs))})
    with fresh_study(task) as study:
        measured = profiled(study, "perturb")["kl"]
        exact = searched(study, options.budgets, "perturb", verify=False)
    spent = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "seed": seed,
        "full top1": full,
        "scores": agreement(tables, measured),
        "fisher seconds": spent["fisher"],
        "perturb seconds": spent["perturb"],
        "perturb / fisher": spent["perturb"] / spent["fisher"],
        "answers": answers,
        "exact": exact,
        "uniform": uniform,
    }


def report(result: dict[str, Any], earlier: dict[str, dict[float, float]]) -> None:
    show(
        f"Seed {result['seed']}: scores against {result['perturb seconds']:.1f} s of one at a time "
        f"({result['perturb / fisher']:.1f} times as long)",
        ["table", "Spearman", "split half", "least, median, greatest measured / estimated"],
        [
            [r["table"], f"{r['spearman']:.4f}", r["split half"],
             " ".join(f"{f:.3g}" for f in r["least, median and greatest factor"])]
            for r in result["scores"]
        ],
    )  # fmt: skip
    uniform = {f"{u['bits']}bpw": u for u in result["uniform"]}
    rows = []
    for a, e in zip(result["answers"], result["exact"], strict=True):
        u = uniform.get(a["budget"], {})
        published = [c.get(float(a["budget"].removesuffix("bpw"))) for c in earlier.values()]
        rows.append(
            [a["budget"], f"{a['kl']:.3g} ± {a['stderr']:.1g}", f"{a['top1']:.1%}", a["table"],
             a["evaluations"], e["kl"], u.get("kl"), f"{u['top1']:.1%}" if u else None, *published]
        )  # fmt: skip
    show(
        f"Seed {result['seed']}: answers on test images (full model {result['full top1']:.1%})",
        ["budget", "KL", "top-1", "table", "evaluations", "one at a time", "uniform",
         "its top-1", *earlier],
        rows,
    )  # fmt: skip


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--budgets", type=float, nargs="+", default=[2.5, 3, 3.5, 4])
    parser.add_argument("--samples", type=int, default=512, help="calibration images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--repeats", type=int, default=3, help="runs of fisher that are timed")
    parser.add_argument("--head-scale", type=float, default=1.0)
    options = parsed(parser)
    earlier = EARLIER if options.head_scale == 1 else {}
    results = []
    for seed in options.seeds:
        results.append(run(options, seed))
        report(results[-1], earlier)
    write({**head(), "samples": options.samples, "head scale": options.head_scale, "runs": results})


if __name__ == "__main__":
    main()
