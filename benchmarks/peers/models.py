"""The models, layers, weights and data that are the same for all sides."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.language import char_gpt, llama
from benchmarks.profilers import vit
from benchmarks.resnet import resnet
from bitfront.tasks import Batch, Task, select
from bitfront.types import Layer

BITS = (2, 3, 4, 5, 6, 8)
BUDGETS = (2.5, 3.0, 3.5, 4.0)  # average bits, what the goal is about
HIGHER = (5.0,)  # shown too: what ratios of 4 and 8 bits can meet
GROUP = 32
IMAGES, SEQUENCES = 512, 128
BATCH = 64  # images; one batch of eight is held back by default


@dataclass(frozen=True)
class Model:
    """title: as the table has it. grouped: whether weights have groups.

    make: assets folder and share of the calibration data held back -> task.
    """

    title: str
    make: Callable[[Path, float], Task]
    language: bool = False
    grouped: bool = True

    def layers(self, task: Task) -> tuple[Layer, ...]:
        """All linear and convolutional weights, but a head that shares an embedding's tensor."""
        chosen = select(task, groups="off").layers
        return tuple(layer for layer in chosen if layer.kind != "embedding")

    def group(self, layer: Layer) -> int | None:
        return GROUP if self.grouped and layer.cols % GROUP == 0 else None

    def scheme(self, layer: Layer, bits: int) -> str:
        group = self.group(layer)
        return f"w{bits}" if group is None else f"w{bits}g{group}"


def _resnet(assets: Path, hold_back: float) -> Task:
    return resnet(assets, samples=IMAGES, batch=BATCH, hold_back=hold_back)


def _vit(assets: Path, hold_back: float) -> Task:
    return vit(assets, IMAGES, batch=BATCH, hold_back=hold_back)


def _llama(assets: Path, hold_back: float) -> Task:
    return llama(assets, SEQUENCES, hold_back=hold_back)


def _char_gpt(assets: Path, hold_back: float) -> Task:
    return char_gpt(assets, SEQUENCES, hold_back=hold_back)


MODELS = {
    "resnet20": Model("ResNet-20", _resnet, grouped=False),
    "vit": Model("ViT", _vit),
    "llama": Model("Llama 260K", _llama, language=True),
    "char_gpt": Model("character GPT", _char_gpt, language=True),
}


def write_job(
    folder: Path, name: str, assets: Path, budgets: list[float], settings: Mapping[str, Any]
) -> None:
    """The folder that a peer's script works on (``job``)."""
    model = MODELS[name]
    task = model.make(assets, 0)
    layers = {
        la.name: {"weights": la.rows * la.cols, "group": model.group(la)}
        for la in model.layers(task)
    }
    content = {
        "model": name, "assets": str(assets.resolve()), "settings": dict(settings),
        "bits": BITS, "budgets": budgets, "layers": layers,
    }  # fmt: skip
    (folder / "job.json").write_text(json.dumps(content))
    batches = task.calibration
    labels = torch.cat([b.labels for b in batches if b.labels is not None])
    np.savez(
        folder / "data.npz",
        inputs=torch.cat([_input(b) for b in batches]).numpy(),
        labels=labels.numpy(),
    )


def _input(batch: Batch) -> torch.Tensor:
    (only,) = (*batch.args, *batch.kwargs.values())
    assert isinstance(only, torch.Tensor)
    return only
