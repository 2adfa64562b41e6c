"""Models in ONNX Runtime on this machine: bytes, quality and latency, predicted and measured.

    python -m benchmarks.latency --keep FOLDER > benchmarks/results/latency.json

JSON on standard output, tables on standard error; one thread, the machine should have nothing else
to do. For each model:

1. Full precision, all layers in 8 bits, and what ``bitfront search`` answers within shares of the
   full model's seconds at the first shape: the exported file's bytes, quality on evaluation data,
   seconds at each shape, over the full model's. A share that no allocation reaches is answered
   with the least there is, and says so.
2. 30 allocations drawn at random, which the fit did not see: predicted and measured seconds.
3. The front of loss, seconds and bytes: answers within several limits on both; and for each limit
   on bytes alone, what it takes, and the fastest answer that is no larger.

Models called "wide" have random weights (benchmarks/wide.py).
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import bitfront
from benchmarks.common import arguments, head, parsed, show, write
from benchmarks.diffusion import unet
from benchmarks.language import llama
from benchmarks.profilers import vit
from benchmarks.resnet import resnet
from benchmarks.wide import wide_llama, wide_resnet, wide_unet, wide_vit
from bitfront import Choices, Study
from bitfront.errors import Infeasible
from bitfront.latency import Latency, latency, timed
from bitfront.measuring import measure
from bitfront.pipeline import cost, selected
from bitfront.storage import front
from bitfront.targeting import targeted
from bitfront.targets import Aimed, aimed
from bitfront.tasks import DiffusionTask, Task
from bitfront.timingbench import Bench
from bitfront.types import Scheme, Trial

SHARES = (60, 45, 35)  # per cent of the full model's seconds
BYTES = (30, 25, 20, 15)  # per cent of the full model's
SECONDS = (90, 75, 60, 45)
RANDOM = 30


@dataclass(frozen=True)
class Model:
    """make: assets -> task. shapes: the first is searched for. eight: all layers in 8 bits, the
    first that a layer can take. metric: of quality. excluded: layers left in full precision."""

    make: Callable[[Path], Task]
    shapes: tuple[str, ...]
    eight: tuple[str, ...]
    metric: str = "kl"
    quality: str = "top1"
    head: bool | None = None
    random: bool = False


def diffusion(assets: Path) -> Task:
    return DiffusionTask(lambda: unet(assets), batch=16)


CONV = ("w8a8szo", "w8a8s")
LINEAR = ("w8a8s", "w8")
MODELS = {
    "ResNet-20": Model(
        partial(resnet, hold_back=0.125, fold_norms=True), ("b1t1", "b32t1"), CONV
    ),
    "ViT": Model(partial(vit, samples=512, batch=64, hold_back=0.125), ("b1t1", "b32t1"),
                 (*LINEAR[:1], "w8a8szo")),
    "Llama 260K": Model(
        partial(llama, samples=128, hold_back=0.125), ("b1s128t1", "b8s128t1"), ("w8a8",),
        quality="perplexity",
    ),
    "U-Net": Model(diffusion, ("b1t1", "b16t1"), CONV, "mse", "psnr"),
    "wide ResNet": Model(wide_resnet, ("b1t1", "b8t1"), CONV, quality="", random=True),
    "wide ViT": Model(wide_vit, ("b1t1", "b8t1"), ("w8a8s", "w8a8szo"), quality="", random=True),
    "wide U-Net": Model(wide_unet, ("b1t1", "b8t1"), CONV, quality="", random=True),
    "wide Llama": Model(
        wide_llama, ("b1s128t1", "b8s128t1", "b1s1p127t1"), ("w8a8",), quality="", random=True
    ),
}  # fmt: skip


def run(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    model = MODELS[name]
    aims = tuple(aimed(f"ort-cpu:{shape}") for shape in model.shapes)
    with bitfront.open_study(name, model.make(options.assets), folder / "latency.db") as study:
        choices = Choices(targets=(str(aims[0]),), head=model.head)
        schemes, ready = targeted(study, None, choices)
        found = latency(study, schemes, aims[0])
        rows = deployed(study, model, aims, schemes, ready)
        return {
            "model": name, "random weights": model.random,
            "schemes": [str(s) for s in schemes],
            "no layer": found.given.fixed,
            "left out": dict(zip(("median", "worst"), found.errors, strict=True)),
            "deployed": rows,
            "random mixes": mixes(study, aims[0], schemes, found),
            "front": fronts(study, model, aims, schemes, ready) if options.fronts else None,
        }  # fmt: skip


def deployed(
    study: Study, model: Model, aims: Sequence[Aimed], schemes: Sequence[Scheme],
    choices: Choices,
) -> list[dict[str, Any]]:  # fmt: skip
    """Of the full model, 8 bits, and each share of its seconds."""
    layers = selected(study, choices).layers
    costs = cost(study, schemes, choices)
    eight = {
        la.name: next((w for w in model.eight if np.isfinite(_cost(costs, la.name, w))), "keep")
        for la in layers
    }
    keep = dict.fromkeys(eight, "keep")
    trials = [("full precision", measure(study, keep, "full", costs.total(keep)))]
    trials.append(("8 bits", measure(study, eight, "uniform", costs.total(eight))))
    for share in SHARES:
        text = f"{share}%@{aims[0]}"
        try:
            (answer,) = bitfront.search(study, schemes, [text], choices=choices)
            trials.append((f"{share} %", answer.trial))
        except Infeasible as error:
            print(error, file=sys.stderr)
            trials.append((f"{share} %: least", _least(study, costs, aims[0])))
    measured = timed(study, aims, [trial for _, trial in trials])
    return [
        row(study, model, aims, label, trial, measured[0])
        for (label, _), trial in zip(trials, measured, strict=True)
    ]


def _cost(costs: Any, layer: str, scheme: str) -> float:
    if scheme not in costs.schemes:
        return math.nan
    table = next(iter(costs.tables.values()))
    return float(table[costs.layers.index(layer), costs.schemes.index(scheme)])


def _least(study: Study, costs: Any, aim: Aimed) -> Trial:
    """Each layer's fastest scheme; groups may differ."""
    table = costs.tables[aim.resource]
    picks = np.nanargmin(table, axis=1)
    fastest = {la: costs.schemes[j] for la, j in zip(costs.layers, picks, strict=True)}
    return measure(study, fastest, "least", costs.total(fastest))


def row(
    study: Study, model: Model, aims: Sequence[Aimed], label: str, trial: Trial, full: Trial
) -> dict[str, Any]:  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="bitfront-") as place:
        audit = bitfront.export(study, trial, Path(place) / "out", format="onnx")
        size = sum(f.stat().st_size for f in (Path(place) / "out").glob("model.onnx*"))
    names = [model.metric, *([model.quality] if model.quality else [])]
    figures = {n: trial.metrics[n].value for n in names if n in trial.metrics}
    return {
        "label": label, "file bytes": size, **figures,
        "predicted": trial.costs.get(aims[0].resource, math.nan),
        **{str(aim): trial.costs[aim.measured] for aim in aims},
        **{
            f"{aim} / full": trial.costs[aim.measured] / full.costs[aim.measured] for aim in aims
        },
        "greatest difference of outputs": audit.max_difference, "spread": audit.spread,
        "schemes": _counts(trial),
    }  # fmt: skip


def _counts(trial: Trial) -> dict[str, int]:
    words = list(trial.schemes.values())
    return {word: words.count(word) for word in dict.fromkeys(words)}


def mixes(study: Study, aim: Aimed, schemes: Sequence[Scheme], found: Latency) -> dict[str, Any]:
    """Predicted and measured seconds of allocations that nothing was fitted to."""
    rng = np.random.default_rng(7)
    given = found.given
    allocations = []
    for _ in range(RANDOM):
        shares = dict(zip(map(str, schemes), rng.dirichlet(np.ones(len(schemes))), strict=True))
        chosen = {}
        for name, of in given.layers.items():
            p = np.array([shares.get(word, 0.0) for word in of]) + 1e-12
            chosen[name] = str(rng.choice(list(of), p=p / p.sum()))
        for layer in study.task.layers:  # a tied layer as the one whose weight it uses
            if layer.shares is not None and chosen[layer.shares] in given.layers[layer.name]:
                chosen[layer.name] = chosen[layer.shares]
        allocations.append(chosen)
    predicted = np.array([given.total(allocation) for allocation in allocations])
    measured = np.array([t.seconds for t in Bench(study, aim).wholes(allocations)])
    off = np.abs(predicted / measured - 1)
    return {
        "median error": float(np.median(off)), "worst error": float(off.max()),
        "rank correlation": float(spearmanr(predicted, measured).statistic),
        "predicted": predicted.tolist(), "measured": measured.tolist(),
    }  # fmt: skip


def fronts(
    study: Study, model: Model, aims: Sequence[Aimed], schemes: Sequence[Scheme], choices: Choices
) -> dict[str, Any]:
    """Answers within limits on bytes and on seconds."""
    asked = [[f"{b}%"] for b in BYTES]
    asked += [[f"{b}%", f"{s}%@{aims[0]}"] for b in BYTES for s in SECONDS]
    trials: dict[int, Trial] = {}
    by_bytes: list[Trial] = []
    for budgets in asked:
        try:
            (answer,) = bitfront.search(study, schemes, budgets, choices=choices, explore=0)
        except Infeasible as error:
            print(error, file=sys.stderr)
            continue
        trials[answer.trial.id] = answer.trial
        if len(budgets) == 1:
            by_bytes.append(answer.trial)
    every = list(trials.values())
    points = [
        (t.metrics[model.metric].value, t.costs[aims[0].measured], t.costs["bytes"]) for t in every
    ]
    kept = front(np.array(points))
    pairs = []
    for alone in by_bytes:
        fits = [t for t in every if t.costs["bytes"] <= alone.costs["bytes"]]
        faster = min(fits, key=lambda t: t.costs[aims[0].measured])
        pairs.append({
            "bytes alone": _pair(alone, model, aims[0]), "fastest": _pair(faster, model, aims[0])
        })  # fmt: skip
    return {"points": len(every), "front": [points[i] for i in kept], "pairs": pairs}


def _pair(trial: Trial, model: Model, aim: Aimed) -> dict[str, float]:
    return {
        "bytes": trial.costs["bytes"], "seconds": trial.costs[aim.measured],
        model.metric: trial.metrics[model.metric].value,
    }  # fmt: skip


def report(result: dict[str, Any]) -> None:
    rows = result["deployed"]
    columns = [c for c in rows[0] if c not in ("schemes",)]
    show(result["model"], columns, [[row.get(c) for c in columns] for row in rows])
    mixed = result["random mixes"]
    names = ("median error", "worst error", "rank correlation")
    show(f"{result['model']}: {RANDOM} random mixes", names, [[mixed[n] for n in names]])
    if result["front"]:
        pairs = result["front"]["pairs"]
        columns = list(pairs[0]["fastest"]) if pairs else []
        show(
            f"{result['model']}: by bytes alone, and the fastest no larger",
            [*columns, *columns],
            [[*p["bytes alone"].values(), *p["fastest"].values()] for p in pairs],
        )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--fronts", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--keep", type=Path, help="a folder for the database, to go on from")
    options = parsed(parser, threads=1)
    results = []
    with tempfile.TemporaryDirectory(prefix="bitfront-") as folder:
        place = options.keep or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        for name in options.models:
            results.append(run(name, place, options))
            report(results[-1])
    write({**head(), "models": results})


if __name__ == "__main__":
    main()
