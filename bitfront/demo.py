"""The demonstration: a small residual network that learns handwritten digits in seconds.

``task`` is an ordinary function for a module task (docs/tasks.md), and its file an ordinary file
of a user: nothing here is known to the rest of Bitfront.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TRAIN, CALIBRATION = 1000, 512  # of 1797 images; calibration images are training images


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        same = stride == 1 and width == out
        self.shortcut = nn.Identity() if same else nn.Conv2d(width, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(h)) + self.shortcut(x))


class DigitNet(nn.Module):
    """A residual network for 8 × 8 images of ten classes; 75 thousand parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.blocks = nn.Sequential(
            Block(16, 16, 1), Block(16, 32, 2), Block(32, 32, 1), Block(32, 48, 2)
        )
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


def task(epochs: int = 12) -> dict[str, Any]:
    """Train on scikit-learn's digits, the same way each time; calibrate on training images."""
    x, y = digits()

    def batches(rows: slice) -> list[dict[str, Tensor]]:
        pairs = zip(x[rows].split(128), y[rows].split(128), strict=True)
        return [{"x": xs, "labels": ys} for xs, ys in pairs]

    return {
        "model": trained(x[:TRAIN], y[:TRAIN], epochs),
        "calibration": batches(slice(CALIBRATION)),
        "evaluation": batches(slice(TRAIN, None)),
    }


def digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 1, 8, 8) from 0 to 1 and their labels (1797,), in one random order."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = torch.tensor(data.images[order, None] / 16, dtype=torch.float32)
    return images, torch.tensor(data.target[order])


def accuracy(model: nn.Module) -> float:
    """Share of the images not trained on that ``model`` gets right."""
    x, y = digits()
    with torch.no_grad():
        right = model.eval()(x[TRAIN:]).argmax(1) == y[TRAIN:]
    return float(right.double().mean())


def trained(x: Tensor, y: Tensor, epochs: int) -> nn.Module:
    """A network after ``epochs`` over ``x``, on one thread, so that it is the same everywhere."""
    threads = torch.get_num_threads()
    generator = torch.Generator().manual_seed(0)
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = DigitNet()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=generator).split(64):
                optimizer.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
    finally:
        torch.set_num_threads(threads)
    return model.eval()
