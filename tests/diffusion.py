"""Small diffusion tasks of every kind, for the tests of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from bitfront.tasks import DiffusionTask
from tests import pipelines

SMALL: dict[str, Any] = {
    "steps": 4, "samples": 3, "eval_samples": 2, "batch": 2, "timesteps": 2, "timestep_groups": 2,
    "device": "cpu",
}  # fmt: skip
MADE: dict[str, tuple[Any, dict[str, Any]]] = {
    "unconditional": (pipelines.unconditional, {}),
    "by class": (pipelines.by_class, {"classes": [3, 7]}),
    "by prompt": (pipelines.by_prompt, {"calibration": ["a cat", "two dogs"]}),
}

BROUGHT = """
import torch
from torch import nn


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Conv2d(1, 4, 3, 1, 1)
        self.time, self.label = nn.Linear(1, 4), nn.Linear(1, 4)
        self.out = nn.Conv2d(4, 1, 3, 1, 1)

    def forward(self, x, t, y=None):
        h = self.image(x) + self.time(t[:, None])[..., None, None]
        if y is not None:
            h = h + self.label(y[:, None])[..., None, None]
        return self.out(torch.tanh(h))


def flow(steps=4):
    torch.manual_seed(0)
    net = Denoiser()

    def sample(generators, conditions):
        y = None if conditions is None else torch.tensor(conditions).float()
        x = torch.stack([torch.randn(1, 12, 12, generator=g) for g in generators])
        for i in range(steps):
            x = x + net(x, torch.full((len(x),), i / steps), y) / steps
        return x / 4 + 0.5

    return net, sample


def alone():
    return Denoiser()


def silent():
    return Denoiser(), lambda generators, conditions: torch.zeros(len(generators), 1, 4, 4)


def flat():
    net = Denoiser()
    return net, lambda g, c: net(torch.zeros(len(g), 1, 4, 4), torch.zeros(len(g))).flatten(1)


def distance(images, references):
    return (images - references).abs().amax((1, 2, 3))


def ssim(images, references):
    return torch.zeros(len(images))


def scalar(images, references):
    return 0.0
"""


def written(folder: Path) -> Path:
    """``folder``, with the users' functions in ``mine.py``."""
    (folder / "mine.py").write_text(BROUGHT)
    return folder


def task(folder: Path, kind: str = "unconditional", **changes: Any) -> DiffusionTask:
    make, given = MADE[kind]
    return DiffusionTask(make(folder / kind), **{**SMALL, **given, **changes})


def brought(folder: Path, name: str = "flow", **changes: Any) -> DiffusionTask:
    given = {k: v for k, v in SMALL.items() if k != "steps"}
    return DiffusionTask(f"{folder / 'mine.py'}:{name}", **{**given, **changes})


def disturb(model: nn.Module, by: float = 0.02) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(by * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
