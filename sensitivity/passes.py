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
from .taps import back_propagate, copying, tapped

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

    def receive(name: str, x: Tensor, delta: Tensor) -> None:
        scores[name].add(now, x, delta)

    with tapped(task.model, list(scores), receive, copied), torch.enable_grad():
        z = task.outputs(batch)
        total = next(iter(scores.values())).probes
        for now, u in enumerate(probes(z)):
            back_propagate(z, u, again=now + 1 < total)
    unreached = [name for name, score in scores.items() if not score.calls]
    if unreached:
        more = f" and {len(unreached) - 1} more" if len(unreached) > 1 else ""
        raise ModelError(
            f"no gradient reached layer {unreached[0]!r}{more}",
            "leave out layers that the outputs do not depend on",
        )
    return scores, batch.counts(z.shape[1]).sum(1).numpy()
