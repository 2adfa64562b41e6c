"""What a task is: a model, batches, outputs as distributions, metrics. One subclass per family.

N  samples of a batch (images, sequences)      P  positions of a sample (tokens; 1 for images)
K  classes of a position (vocabulary)          scored (N, P)  positions that count
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from bitfront.errors import ModelError
from bitfront.types import Layer

if TYPE_CHECKING:
    from .metrics import Metric


@dataclass(frozen=True, eq=False)
class Batch:
    """One call of the model: its arguments (tensors on the CPU) and what is known of the answers.

    samples: N. labels: (N, P) int64 class indices, or None. scored: (N, P) bool, or None for all.
    part: (N,) int64, the part of the data that each sample belongs to (a group of timesteps, say),
    or None; metrics may count one part alone.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 0
    labels: Tensor | None = None
    scored: Tensor | None = None
    part: Tensor | None = None


class Task(ABC):
    """A model with the data and metrics to judge it by.

    A task never changes its model; whoever quantizes layers for a while restores them. Batches come
    in a fixed order and hold the same samples each time. ``output`` says what distribution the
    outputs stand for: ``categorical`` (logits over K classes) or ``gaussian`` (a mean of K numbers
    with unit variance, so that KL is half the squared distance).

    Everything is chosen by ``calibration``. ``held_back`` is calibration data that nothing is
    chosen by (``holding``), maybe none.
    """

    kind: ClassVar[str]
    output: str = "categorical"
    model: nn.Module
    device: torch.device
    calibration: Sequence[Batch]
    held_back: Sequence[Batch] = ()
    evaluation: Sequence[Batch]
    metrics: tuple[str, ...]

    @abstractmethod
    def outputs(self, batch: Batch) -> Tensor:
        """Run the model on ``batch``, moved to the device: (N, P, K), in the model's dtype.

        Differentiable where gradients are enabled. Raises ``ModelError`` for outputs that are not
        finite or not of this shape.
        """

    @cached_property
    @abstractmethod
    def layers(self) -> tuple[Layer, ...]:
        """Every quantizable layer, in order of execution; embeddings and head with their role."""

    @cached_property
    @abstractmethod
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Names of layers that runtimes fuse, or that share a tensor; disjoint."""

    @abstractmethod
    def fingerprint(self) -> dict[str, str]:
        """Field -> digest or value of all that a measurement depends on besides its own settings.

        At least ``weights``, ``calibration``, ``evaluation``, ``task``, ``dtype``; ``held_back``
        where some data is.
        """

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """JSON-like arguments from which ``bitfront.tasks.from_recipe`` makes this task anew.

        Raises ``ModelError`` when the task was made from a live object that no other process can
        make again.
        """

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of the model: modules that are no layers, and why."""
        return ()

    def generated(self, *, reference: bool = False) -> Tensor:
        """What the model as it is now makes of all evaluation data: (M, ...), on the CPU.

        The images that a denoiser leads to, say; for metrics that no single batch has
        (``Metric.whole``). reference: what the full model made instead.
        """
        raise ModelError(f"a {self.kind} task generates nothing", "leave out metrics of wholes")

    def metric(self, name: str) -> Metric:
        """The metric of that name. Raises ``UnknownName`` when there is none."""
        from .metrics import METRICS

        return METRICS[name]

    def module(self, layer: str) -> nn.Module:
        """The module of a layer."""
        return self.model.get_submodule(layer)
