"""What a task is: a model, batches, outputs as distributions, metrics. One subclass per family.

N  samples of a batch (images, sequences)      P  positions of a sample (tokens; 1 for images)
K  classes of a position (vocabulary)          scored (N, P)  positions that count
                                               weights (N, P)  what each of them counts for
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from bitfront.errors import DataError, ModelError
from bitfront.types import Layer

if TYPE_CHECKING:
    from .metrics import Metric


@dataclass(frozen=True, eq=False)
class Batch:
    """One call of the model: its arguments (tensors on the CPU) and what is known of the answers.

    samples: N. labels: (N, P) int64 class indices, or None. scored: (N, P) bool, or None for all.
    part: (N,) int64, the part of the data that each sample belongs to (a group of timesteps, say),
    or None; metrics may count one part alone. weights: (N, P) floating point, finite, 0 or more:
    what each scored position counts for in sums and means over positions; None for 1. Raises
    ``DataError`` for other weights.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 0
    labels: Tensor | None = None
    scored: Tensor | None = None
    part: Tensor | None = None
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        w = self.weights
        if w is None:
            return
        if not w.is_floating_point() or w.dim() != 2 or len(w) != self.samples:
            raise DataError(
                f"weights of positions are {w.dtype} of shape {tuple(w.shape)}",
                f"give floating-point numbers (samples, positions) for {self.samples} samples",
            )
        bad = w[~(torch.isfinite(w) & (w >= 0))]
        if len(bad):
            raise DataError(
                f"{len(bad)} weights of positions are negative or not finite, like {bad[0]:g}",
                "give finite numbers, 0 or more",
            )

    @property
    def counted(self) -> Tensor | None:
        """What each position counts for, (N, P): its weight, 0 if not scored; None for 1."""
        if self.weights is None or self.scored is None:
            return self.scored if self.weights is None else self.weights
        return self.weights * self.scored

    def counts(self, positions: int) -> Tensor:
        """``counted`` of a batch with ``positions`` outputs a sample: (N, P) float64."""
        given = self.counted
        if given is None:
            return torch.ones(self.samples, positions, dtype=torch.float64)
        return given.double()


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

    def generated(
        self, *, reference: bool = False, calibration: bool = False, first: int | None = None
    ) -> Tensor:
        """What the model as it is now makes of all evaluation data: (M, ...), on the CPU.

        The images that a denoiser leads to, say; for metrics that no single batch has
        (``Metric.whole``). reference: what the full model made instead. calibration: of that data
        instead. first: of so many at most, from the beginning.
        """
        raise ModelError(f"a {self.kind} task generates nothing", "leave out metrics of wholes")

    def metric(self, name: str) -> Metric:
        """The metric of that name. Raises ``UnknownName`` when there is none."""
        from .metrics import METRICS

        return METRICS[name]

    def module(self, layer: str) -> nn.Module:
        """The module of a layer."""
        return self.model.get_submodule(layer)

    def tensors(self) -> dict[str, Tensor]:
        """Name -> parameter or buffer of the model, shared ones once."""
        return dict([*self.model.named_parameters(), *self.model.named_buffers()])
