"""Small networks with one thing wrong each, or merely odd, for the tests of profilers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bitfront.tasks import ModuleTask

WIDTH, CLASSES = 6, 4


class NoBackward(torch.autograd.Function):
    """An operation of which only the forward pass is written."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.tanh(x)


class Interrupting(torch.autograd.Function):
    """Nothing, but that its backward pass is interrupted."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        raise KeyboardInterrupt


def interrupted(x: Tensor) -> Tensor:
    raise KeyboardInterrupt


def without_gradient(x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.tanh(x)


class Step(nn.Module):
    """A module that does ``step``, which can be set later."""

    def __init__(self, step: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x)


class Chain(nn.Module):
    """first, norm, second, the step, third, head: a step between layers."""

    def __init__(self, step: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm, self.step = nn.BatchNorm1d(WIDTH), Step(step)
        self.third, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.step(self.second(torch.relu(self.norm(self.first(x)))))
        return self.head(torch.relu(self.third(x)))


class Codes(nn.Module):
    """Its middle is an index: what comes before has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.table, self.head = nn.Embedding(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(self.second(torch.relu(self.first(x))).argmax(-1)))


class Aside(Chain):
    """A layer ``aside`` that runs, whose output is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.aside = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        self.aside(x)
        return super().forward(x)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.body = nn.Embedding(9, WIDTH), Chain()

    def forward(self, ids: Tensor) -> Tensor:
        return self.body(self.table(ids))


class Routed(nn.Module):
    """Two experts; the second gets no sample of a batch of two, but runs if it is ``idle``."""

    def __init__(self, idle: bool) -> None:
        super().__init__()
        self.idle, self.first = idle, nn.Linear(WIDTH, WIDTH)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        y, to = torch.zeros_like(h), (x[:, 0] > 0) & (len(x) > 2)
        for i, expert in enumerate(self.experts):
            (rows,) = (to == i).nonzero(as_tuple=True)
            if self.idle or len(rows):
                y = y.index_add(0, rows, expert(h[rows]))
        return self.head(torch.tanh(y) + h)


class Looped(nn.Module):
    """One layer, or copies of it, thrice in a row."""

    def __init__(self, copies: int = 1) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, CLASSES)
        self.loop = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(copies))
        for layer in self.loop:
            layer.load_state_dict(self.loop[0].state_dict())

    def forward(self, x: Tensor) -> Tensor:
        for i in range(3):
            x = torch.tanh(self.loop[i % len(self.loop)](x))
        return self.head(x)


def inputs(count: int) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(2))


def task_of(model: Callable[[], nn.Module], dtype: str = "auto", **more: Any) -> ModuleTask:
    """12 inputs in batches of 5, 5 and 2; a seeded model, with norms that change something."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = model()
        for module in made.modules():
            if isinstance(module, nn.BatchNorm1d):
                nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
                nn.init.uniform_(module.weight, 0.5, 1.5)
    x = more.pop("inputs", inputs(12))
    batches = [x[:5], x[5:10], x[10:]]
    labels = {"labels": lambda batch: torch.arange(len(batch)) % CLASSES}
    given = {"model": made, "calibration": batches, "evaluation": batches, **labels, **more}
    return ModuleTask(lambda: given, dtype=dtype, device="cpu")


def spoiled(step: Callable[[Tensor], Tensor]) -> ModuleTask:
    """A task whose layers are known already when ``step`` takes its place in the middle."""
    task = task_of(Chain)
    assert task.layers
    task.model.step.step = step  # type: ignore[union-attr]
    return task
