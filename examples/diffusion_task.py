"""A complete diffusion task without diffusers: bring a denoiser and the loop around it.

    DiffusionTask("examples/diffusion_task.py:digits", classes=range(10), arguments={"epochs": 20})

docs/tasks.md says what ``digits`` returns.
"""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


class Flow(nn.Module):
    """Predicts which way from noise to a digit, 8 × 8, of class ``y`` at time ``t`` from 0 to 1."""

    def __init__(self, width: int = 192) -> None:
        super().__init__()
        self.image, self.time = nn.Linear(64, width), nn.Linear(1, width)
        self.label = nn.Embedding(10, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, 64)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        h = self.image(x.flatten(1)) + self.time(t[:, None]) + self.label(y)
        for block in self.blocks:
            h = h + block(nn.functional.silu(h))
        return self.out(nn.functional.silu(h)).view_as(x)


def digits(epochs: int = 20, steps: int = 16) -> tuple:
    """Train on scikit-learn's handwritten digits; bring what Bitfront needs."""
    data = load_digits()
    x = torch.tensor(data.images[:, None] / 8 - 1, dtype=torch.float32)  # (N, 1, 8, 8), -1 to 1
    flow = trained(x, torch.tensor(data.target), epochs)

    def sample(generators: list[torch.Generator], classes: list[int]) -> Tensor:
        """One image (1, 8, 8) from 0 to 1 for each generator, on the CPU."""
        y = torch.tensor(classes)
        x = torch.stack([torch.randn(1, 8, 8, generator=g) for g in generators])
        for i in range(steps):
            x = x + flow(x, torch.full((len(x),), i / steps), y) / steps
        return (x + 1) / 2

    return flow, sample


def trained(x: Tensor, y: Tensor, epochs: int) -> Flow:
    """A network trained the same way each time, by flow matching."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = Flow()
        optimizer = torch.optim.Adam(flow.parameters(), lr=2e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(128):
                noise, t = torch.randn_like(x[rows]), torch.rand(len(rows))
                at = t[:, None, None, None]
                optimizer.zero_grad()
                way = flow(at * x[rows] + (1 - at) * noise, t, y[rows])
                (way - (x[rows] - noise)).square().mean().backward()
                optimizer.step()
    return flow
