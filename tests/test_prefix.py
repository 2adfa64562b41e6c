"""Partial forward passes give the very outputs of full ones, also after an interrupt."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from bitfront.errors import ModelError
from bitfront.scratch import Scratch
from bitfront.sensitivity.prefix import Prefix
from bitfront.tasks.base import Batch, Task
from tests.small_tasks import convolutional


class Blocks(torch.nn.Module):
    """Blocks of one output shape, so that a boundary is recorded over the one before it."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(4)))
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(x))


@pytest.fixture
def task() -> Task:
    from bitfront.tasks import ModuleTask

    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Blocks().eval()
    return ModuleTask(lambda: {"model": model, "calibration": list(x.split(3)), "evaluation": [x]})


@pytest.fixture
def prefix(task: Task) -> Iterator[Prefix]:
    with Scratch() as scratch:
        yield Prefix(task, task.calibration, scratch)


@torch.no_grad()
def assert_exact(prefix: Prefix, task: Task) -> None:
    for index, batch in enumerate(task.calibration):
        assert torch.equal(prefix.outputs(batch, index), task.outputs(batch))


def test_every_depth_gives_the_outputs_of_a_full_run(prefix: Prefix, task: Task) -> None:
    depths = [prefix.depth(layer.name) for layer in task.layers]
    assert depths == [0, 1, 2, 3, 4]
    for k in (0, 1, 2, 4, 3, 1, 0):
        prefix.advance(k)
        assert_exact(prefix, task)


def test_skipped_blocks_are_not_computed(prefix: Prefix, task: Task) -> None:
    prefix.advance(3)
    for name in ("blocks.0", "blocks.2"):
        torch.nn.init.constant_(task.module(name).weight, float("nan"))  # type: ignore[arg-type]
    assert torch.no_grad()(prefix.outputs)(task.calibration[0], 0).isfinite().all()
    torch.nn.init.constant_(task.module("blocks.3").weight, float("nan"))  # type: ignore[arg-type]
    with pytest.raises(ModelError):
        torch.no_grad()(prefix.outputs)(task.calibration[0], 0)


def test_an_interrupted_boundary_is_forgotten(
    prefix: Prefix, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix.advance(1)
    original, calls = task.outputs, 0

    def interrupted(batch: Batch) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:  # two of the four batches have their new boundary by now
            raise KeyboardInterrupt
        return original(batch)

    monkeypatch.setattr(task, "outputs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prefix.advance(3)
    monkeypatch.undo()
    assert_exact(prefix, task)
    prefix.advance(3)
    assert_exact(prefix, task)


def test_a_block_inside_a_list_is_skipped_for_layers_behind_it() -> None:
    task = convolutional()
    with Scratch() as scratch:
        prefix = Prefix(task, task.calibration, scratch)
        depths = {layer.name: prefix.depth(layer.name) for layer in task.layers}
    assert depths == {"stem": 0, "blocks.0": 0, "blocks.2": 2, "twice": 3, "head": 3}
