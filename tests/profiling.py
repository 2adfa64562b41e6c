"""What every profiler must give on any network, for tests of families of models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from bitfront.quant.build import Builder
from bitfront.scratch import Scratch
from bitfront.sensitivity import PROFILERS, NoCheckpoints, Subject
from bitfront.tasks import Task
from bitfront.types import Layer, Scheme, Sensitivities

SCHEMES = ("w2", "w4", "w8")
MEASURING = [name for name, kind in PROFILERS.items() if kind.measures]  # not what is imported
# iterative ones stop early: that they converge is tested on smaller networks
SETTINGS: dict[str, Any] = {"eigen": {"iterations": 2}, "hutchinson": {"until": 0.5}}
ONE_BY_ONE = ("perturb", "decoupled", "eigen")  # these take their time for each layer


@contextmanager
def profiled(task: Task) -> Iterator[Subject]:
    """The task as profilers are given it."""

    def run() -> None:
        with torch.no_grad():
            for batch in task.calibration:
                task.outputs(batch)

    with Scratch() as scratch:
        yield Subject(task, Builder(task.model, task.layers, run, scratch), scratch)


def checked(name: str, subject: Subject, layers: Sequence[Layer]) -> Sensitivities:
    """The first table of the profiler ``name``; all are finite, and the model is left as it was."""
    model = subject.task.model
    state = {k: v.clone() for k, v in model.state_dict().items()}
    profiler = PROFILERS[name](**SETTINGS.get(name, {}))
    pairs = [(layer, Scheme.parse(s)) for layer in layers for s in SCHEMES]
    found = [m for part in profiler.measure(subject, pairs, NoCheckpoints()) for m in part]
    tables = profiler.tables(found, [layer.name for layer in layers], SCHEMES)
    for table in tables.values():
        assert np.isfinite(table.values).all()
        assert np.isfinite(table.stderr).all()
    first = next(iter(tables.values()))
    w2, w4, w8 = first.values.sum(0)
    assert w2 > w4 > w8 > 0
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    return first
