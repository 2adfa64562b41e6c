"""Small networks as module tasks: a convolutional one and one with attention, for profilers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitfront.tasks import ModuleTask
from bitfront.tasks.base import Batch


class Conv(nn.Module):
    """Blocks that can be skipped, a depthwise layer, and a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 1, groups=4)
        )
        self.twice = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.blocks(F.relu(self.stem(x))).mean((2, 3))
        return self.head(torch.tanh(self.twice(torch.tanh(self.twice(h)))))


class Attention(nn.Module):
    """Token classification: an embedding, q/k/v and a gated MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.gate, self.up, self.down = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 11)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = x + F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x), is_causal=True)
        x = x + self.down(F.silu(self.gate(x)) * self.up(x))
        return self.head(x)


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return make().eval()


def convolutional(dtype: str = "auto") -> ModuleTask:
    """12 images in batches of 5, 5 and 2; 6 others to judge by."""
    x = _images(18)

    def make() -> dict[str, Any]:
        return {
            "model": _seeded(Conv),
            "calibration": [x[:5], x[5:10], x[10:12]],
            "evaluation": [x[12:]],
        }

    return ModuleTask(make, dtype=dtype)


def many_images() -> ModuleTask:
    """96 images in batches of 12, enough to give up on allocations; 8 others to judge by."""
    x = _images(104)

    def make() -> dict[str, Any]:
        return {
            "model": _seeded(Conv),
            "calibration": list(x[:96].split(12)),
            "evaluation": [x[96:]],
        }

    return ModuleTask(make)


def _images(count: int) -> Tensor:
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def attentive(dtype: str = "auto") -> ModuleTask:
    """8 sequences of 6 tokens in two batches; 4 others to judge by."""
    ids = torch.randint(0, 11, (12, 6), generator=torch.Generator().manual_seed(0))

    def make() -> dict[str, Any]:
        return {
            "model": _seeded(Attention),
            "calibration": [ids[:4], ids[4:8]],
            "evaluation": [ids[8:]],
        }

    return ModuleTask(make, dtype=dtype)


def with_weights(task: ModuleTask, weigh: Callable[[int, int], Tensor]) -> ModuleTask:
    """The task, its batches with weights ``weigh(samples, positions)``."""

    def weighted(batch: Batch) -> Batch:
        return replace(batch, weights=weigh(batch.samples, task.outputs(batch).shape[1]))

    task.calibration = [weighted(batch) for batch in task.calibration]
    task.evaluation = [weighted(batch) for batch in task.evaluation]
    return task


def uneven(samples: int, positions: int) -> Tensor:
    """Weights from 0.3 to 3.5, and a zero wherever there are two samples."""
    w = torch.rand(samples, positions, generator=torch.Generator().manual_seed(7)) * 3.2 + 0.3
    w[1:, 0] *= torch.arange(samples - 1) % 3 > 0
    return w


TASKS = {"convolutional": convolutional, "attentive": attentive}
