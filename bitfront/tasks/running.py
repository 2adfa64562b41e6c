"""What the tasks have in common: a placed model, checked outputs, layers, groups, fingerprints.

z  outputs (N, P, K)
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bitfront.errors import DataError, ModelError
from bitfront.types import Layer

from .base import Batch, Task
from .boundary import foreign
from .discovery import Survey, survey
from .fingerprint import architecture_digest, batches_digest, weights_digest
from .holding import note, split
from .nonfinite import first_nonfinite
from .placement import device_of, dtype_of, floating_dtype, moved

COMPARED = 1 << 22  # outputs that two runs are compared by, about


class ModelTask(Task):
    """A task around one ``nn.Module``; subclasses load it, make batches, call it and shape outputs.

    The model is put in evaluation mode, on the device, in the dtype. ``cast`` is the dtype that
    floating-point inputs are given in, None to leave them.
    """

    cast: torch.dtype | None = None
    _holding: tuple[str, ...] = ()  # notes
    _folded: int = 0  # batch norms

    def place(self, model: nn.Module, device: str, dtype: str) -> None:
        """Set ``model`` and ``device``. Raises ``ModelError`` naming a non-finite tensor."""
        target = dtype_of(dtype)
        if target == floating_dtype(model):
            target = None  # as loaded: buffers may be wider than the weights on purpose
        self.device = device_of(device)
        check_finite(model)
        with foreign(
            f"moving the model to {self.device}", "use a smaller model, or another device"
        ):
            self.model = model.to(self.device, target).eval()

    def fold_norms(self) -> None:
        """Fold batch norms into the convolutions before them, in a copy of the model.

        Once the batches are there. Raises ``ModelError`` as ``folding.fold_norms`` does.
        """
        from .deployed import signature
        from .folding import fold_norms

        with foreign("copying the model", "leave out fold_norms (--fold-norms)"):
            self.model = copy.deepcopy(self.model)
        self._folded = len(fold_norms(self.model, signature(self)))

    def calibrate(
        self,
        batches: Sequence[Batch],
        hold_back: float,
        remedy: str = "give smaller --batch or more --samples",
    ) -> None:
        """Set ``calibration`` and ``held_back``. remedy: for too few batches to hold one back."""
        self.calibration, self.held_back = split(batches, hold_back)
        self._holding = note(len(batches), hold_back, remedy)

    @abstractmethod
    def called(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Call the model on a batch's arguments, already moved: the tensor that it is used for."""

    @abstractmethod
    def shaped(self, output: Tensor, batch: Batch) -> Tensor:
        """What ``called`` gave, as (N, P, K). Raises ``ModelError`` for one of another shape."""

    def outputs(self, batch: Batch) -> Tensor:
        args = moved(tuple(batch.args), self.device, self.cast)
        kwargs = moved(dict(batch.kwargs), self.device, self.cast)
        with foreign("running the model", "check that its inputs fit it, and its code"):
            z = self.shaped(self.called(args, kwargs), batch)
        _check(z, batch)
        if not torch.isfinite(z.detach()).all():
            where = first_nonfinite(self.model, lambda: self.called(args, kwargs))
            raise ModelError(
                f"the model's outputs are not finite, {where}, in {self._place(batch)}",
                "check the weights and the input's scale, or use a wider dtype",
            )
        if batch.labels is not None and self.output == "categorical":
            check_labels(batch.labels, batch.scored, z.shape)
        return z

    def _place(self, batch: Batch) -> str:
        """Words for a batch: its number, where it is one of the task's that are there already."""
        digest = batches_digest([batch])
        for name in ("calibration", "evaluation"):
            # none are made for this: some come of running the model, which may be quantized now
            for index, other in enumerate(vars(self).get(name, ())):
                if other.samples == batch.samples and batches_digest([other]) == digest:
                    return f"{name} batch {index}"
        return f"a batch of {batch.samples}"

    @cached_property
    def survey(self) -> Survey:
        """What one batch shows of the model."""
        batch = self.calibration[0]
        seen: list[Tensor] = []  # outputs, of all samples and positions, or evenly spread ones

        def run() -> Tensor:
            z = self.outputs(batch)
            rows = z.detach().flatten(0, 1)
            step = -(-rows.numel() // COMPARED)
            seen.append(rows[::step].to("cpu", torch.float32, copy=True))
            return z

        found = survey(self.model, run, batch.samples)
        with torch.no_grad():
            run()
        check_repeatable(*seen)
        return found

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        return self.survey.layers

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        return self.survey.groups

    @property
    def notes(self) -> tuple[str, ...]:
        folded = (f"{self._folded} batch norms are folded into convolutions",)
        return (*self.survey.notes(), *self._holding, *(folded if self._folded else ()))

    def fingerprint(self) -> dict[str, str]:
        held = {"held_back": batches_digest(self.held_back)} if self.held_back else {}
        return {
            **self.model_fingerprint(),
            "calibration": batches_digest(self.calibration),
            **held,
            "evaluation": batches_digest(self.evaluation),
        }

    def model_fingerprint(self) -> dict[str, str]:
        """The part of the fingerprint that no data is in."""
        return {
            "task": self.kind,
            "architecture": architecture_digest(self.model),
            "weights": weights_digest(self.model),
            "dtype": str(floating_dtype(self.model)).removeprefix("torch."),
            "output": self.output,
            **({"folded": f"{self._folded} batch norms"} if self._folded else {}),
        }


def check_finite(model: nn.Module) -> None:
    """Raises ``ModelError`` naming the first parameter or buffer that is not finite.

    Infinities are allowed in buffers only: attention masks are made of them.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor) or tensor.is_meta:
            raise ModelError(
                f"{name!r} has no values yet",
                "give the model its weights first (run lazy modules once, load meta tensors)",
            )
    for name, tensor in model.named_parameters():
        if not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise ModelError(
                f"weights {name!r} have {bad} elements that are NaN or infinite",
                "the file is damaged or training diverged: use other weights",
            )
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point() and torch.isnan(buffer).any():
            raise ModelError(f"buffer {name!r} holds NaN", "use other weights")


def check_repeatable(first: Tensor, second: Tensor) -> None:
    """Raises ``ModelError`` when two runs on one input differ by more than rounding explains.

    Sums in another order, as kernels of a GPU may take them, stay below the limit of 5 % of
    the outputs' spread, in 16 bits too.
    """
    off = float((first - second).abs().max()) if first.shape == second.shape else float("nan")
    spread = float(first.double().std(correction=0))
    if not off <= 0.05 * spread:
        raise ModelError(
            f"the model gives other outputs when run again: they differ by up to {off:.3g}, "
            f"their spread is {spread:.3g}",
            "let its forward draw nothing at random, as dropout with training=True does",
        )


def _check(z: Any, batch: Batch) -> None:
    if not isinstance(z, Tensor) or z.dim() != 3 or not z.is_floating_point():
        shape = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        raise ModelError(
            f"the model's outputs are {shape}", "they must be numbers for each sample and position"
        )
    if z.shape[0] != batch.samples:
        raise ModelError(
            f"the model gave outputs for {z.shape[0]} samples of a batch of {batch.samples}",
            "its first output dimension must be the sample",
        )
    if batch.weights is not None and batch.weights.shape != z.shape[:2]:
        raise DataError(
            f"weights of shape {tuple(batch.weights.shape)} for outputs of shape {tuple(z.shape)}",
            "give one weight for each sample and position",
        )


def check_labels(labels: Tensor, scored: Tensor | None, shape: torch.Size) -> None:
    """Raises ``DataError`` when labels do not fit outputs of ``shape`` (N, P, K)."""
    if labels.shape != shape[:2]:
        raise DataError(
            f"labels of shape {tuple(labels.shape)} for outputs of shape {tuple(shape)}",
            "give one class index for each sample and position",
        )
    counted = labels if scored is None else labels[scored]
    if counted.numel() and (int(counted.min()) < 0 or int(counted.max()) >= shape[2]):
        raise DataError(
            f"labels from {int(counted.min())} to {int(counted.max())} for {shape[2]} classes",
            f"labels are class indices from 0 to {shape[2] - 1}",
        )
