"""One forward and several backward passes over a batch, for the scores of many layers at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfront.errors import ModelError
from bitfront.tasks.base import Batch, Task

from .scores import LayerScores
from .taps import back_propagate, copying, no_gradient, tapped

Begin = Callable[[], Mapping[str, LayerScores]]
"""Fresh scores of every layer, by name; all for the same number of probes."""

Probes = Callable[[Tensor], Iterator[Tensor]]
"""Probes u (N, P, K) of outputs z (N, P, K), one for each of the scores' probes, in order."""


Counts = NDArray[np.float64]


def scored(
    task: Task, batch: Batch, begin: Begin, probes: Probes
) -> tuple[Mapping[str, LayerScores], Counts]:
    """The scores of one batch, of the model as it is now; and what each sample counts for, (N,).

    Raises ``ModelError`` when the outputs do not depend on some layer in a differentiable way.
    """
    return copying(lambda copied: _pass(task, batch, begin(), probes, copied))


def _pass(
    task: Task,
    batch: Batch,
    scores: Mapping[str, LayerScores],
    probes: Probes,
    copied: frozenset[str],
) -> tuple[Mapping[str, LayerScores], Counts]:
    now = 0
    reached: set[str] = set()

    def receive(name: str, x: Tensor, delta: Tensor) -> None:
        reached.add(name)
        scores[name].add(now, x, delta)

    def unreached() -> list[str]:
        return [name for name in scores if name in called and name not in reached]

    with tapped(task.model, list(scores), receive, copied) as called, torch.enable_grad():
        z = task.outputs(batch)
        total = next(iter(scores.values())).probes
        for now, u in enumerate(probes(z) if called else ()):
            back_propagate(z, u, again=now + 1 < total, unreached=unreached)
    if layers := unreached():
        raise no_gradient(layers)
    for name in reversed(list(scores)):  # a gradient that is not finite spoils all that come before
        if not (torch.isfinite(scores[name].s).all() and torch.isfinite(scores[name].e).all()):
            raise ModelError(
                f"gradients at layer {name!r} are not finite",
                "use a wider dtype (float32), or look for operations with an infinite slope",
            )
    return scores, batch.counts(z.shape[1]).sum(1).numpy()
