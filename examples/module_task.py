"""A complete module task: bring any model, data and metric of your own.

    ModuleTask("examples/module_task.py:digits", {"epochs": 20})

docs/tasks.md explains each key that ``digits`` returns.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn


class Net(nn.Module):
    """Two convolutions and a linear layer on 8 × 8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, stride=2)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv1(x))
        return self.head(torch.relu(self.conv2(x)).mean((2, 3)))


def digits(epochs: int = 20) -> dict:
    """Train on scikit-learn's handwritten digits; bring what Bitfront needs."""
    data = load_digits()
    x = torch.tensor(data.images[:, None] / 16, dtype=torch.float32)
    y = torch.tensor(data.target)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))
    train, held = order[:1200], order[1200:]

    model = trained(x[train], y[train], epochs)
    return {
        "model": model,
        # a batch is a tensor, a tuple (positional arguments) or a dict (keyword arguments); the
        # keys labels, scored and weights of a dict are kept from the model
        "calibration": [{"x": x[part], "labels": y[part]} for part in train[:512].split(128)],
        "evaluation": [{"x": x[part], "labels": y[part]} for part in held.split(128)],
        "output": "categorical",
        "metrics": {"margin": (margin, "higher")},
    }


def margin(outputs: torch.Tensor, batch: dict) -> torch.Tensor:
    """By how much the likeliest class leads the next, in nats: one number for each sample."""
    top = outputs.log_softmax(-1).topk(2).values
    return top[:, 0] - top[:, 1]


def trained(x: torch.Tensor, y: torch.Tensor, epochs: int) -> Net:
    """A network trained the same way each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for xs, ys in zip(x.split(64), y.split(64), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(xs), ys).backward()
            optimizer.step()
    return model
