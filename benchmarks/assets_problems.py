"""The problems that Bitfront makes of the assets' models, for ``benchmarks.solvers``.

Losses are ``fisher``'s best table, costs are counted as safetensors stores them. ``few`` are six
schemes, per channel; ``many`` are twenty, with groups, asymmetric ones, and 8-bit activations (of
the Llama caches of 4 and 8 bits instead). Fused layers share a scheme, but in the Llama, where then
none could round its cache. Other solvers know neither this nor schemes that a layer cannot take:
fused layers are one layer here, and such schemes are dearer and worse than all others.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

import bitfront
from benchmarks.language import char_gpt, llama
from benchmarks.profilers import vit
from benchmarks.resnet import resnet
from bitfront import Choices
from bitfront.errors import BitfrontWarning
from bitfront.pipeline import cost, selected
from bitfront.problems import build_problem
from bitfront.search import write_arrays
from bitfront.search.items import merge
from bitfront.tasks import Task
from bitfront.types import Problem

FEW = "w2 w3 w4 w5 w6 w8"
MANY = f"{FEW} w3z w4z w2g32 w3g32 w4g32 w5g32 w6g32 w2g16 w3g16 w4g16"
WITH_ACTIVATIONS = f"{MANY} w4a8 w8a8 w4g32a8 w8g32"
WITH_CACHE = f"{MANY} w4kv8 w4kv4 w8kv8 w8g32"


@dataclass(frozen=True)
class Model:
    """make: assets folder -> task. resources: what is limited, the first alone, then two, …"""

    make: Callable[[Path], Task]
    many: str = WITH_ACTIVATIONS
    resources: tuple[str, ...] = ("bytes", "bops")
    groups: str = "auto"


MODELS = {
    "ResNet-20": Model(partial(resnet, samples=128)),
    "ViT": Model(partial(vit, samples=128)),
    "Llama-260K": Model(partial(llama, samples=32), WITH_CACHE, ("bytes", "bops", "kv"), "off"),
    "character-GPT": Model(partial(char_gpt, samples=64)),
}


def write_problems(folder: Path, assets: Path) -> list[tuple[Path, int]]:
    """Profile each model once, into problem files in ``folder``; each with a number of limits."""
    written = []
    for name, model in MODELS.items():
        for size, schemes in {"few": FEW, "many": model.many}.items():
            path = folder / f"{name}-{size}.npz"
            problem = plain(profiled(model, schemes, assets), model.resources)
            write_arrays(problem, path)
            varied = sum(bool(np.ptp(table, axis=1).any()) for table in problem.costs.values())
            written += [(path, count) for count in range(1, varied + 1)]
    return written


def profiled(model: Model, schemes: str, assets: Path) -> Problem:
    """Without limits."""
    task, choices = model.make(assets), Choices(groups=model.groups, container="safetensors")
    with (
        tempfile.TemporaryDirectory(prefix="bitfront-") as folder,
        bitfront.open_study("benchmark", task, Path(folder) / "study.db") as study,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", BitfrontWarning)  # few samples will do to time solvers
        selection = selected(study, choices)
        tables = bitfront.profile(study, schemes, layers=selection.layers)
        costs = cost(study, schemes, choices)
        best = next(iter(tables.values()))
        return build_problem(best, costs, [], groups=selection.groups, pins=selection.pins)


def plain(problem: Problem, resources: tuple[str, ...]) -> Problem:
    """The same without groups, bars and fixed costs, which move limits only."""
    most = {name: float(np.nanmax(problem.costs[name], axis=1).sum()) for name in resources}
    items = merge(replace(problem, limits=most, fixed={}))
    layers = tuple(problem.layers[members[0]] for members in items.members)
    barred = ~items.allowed
    high = np.where(barred, -np.inf, items.loss).max(axis=1, keepdims=True)
    loss = np.where(barred, 2 * np.abs(high) + 1, items.loss)
    costs = {}
    for name, table in zip(items.resources, items.cost, strict=True):
        highest = np.where(barred, -np.inf, table).max(axis=1, keepdims=True)
        costs[name] = np.where(barred, highest, table)
    return Problem(layers, problem.schemes, loss, costs, {})
