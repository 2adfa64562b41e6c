"""Module tasks: any ``nn.Module``, brought by a Python function. docs/tasks.md has the contract.

N  samples      P  positions (1 unless the outputs are 3-D)      K  classes or numbers
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from torch import Tensor

from bitfront.errors import BitfrontWarning, ModelError

from .arguments import parse_arguments
from .base import Batch
from .boundary import foreign, function_at
from .brought import UserBatch, batches, brought, own_metrics
from .fingerprint import source_digest
from .grouping import with_hand_groups
from .holding import HOLD_BACK, checked_share
from .metrics import METRICS, Metric
from .paths import absolute
from .placement import dtype_of
from .running import ModelTask
from .vision import CALLING, logits_of


class ModuleTask(ModelTask):
    """A user's own model, data and metrics.

    function: ``path/to/file.py:name``, or a live callable (which no other process can call again);
        called with ``arguments``.
    hold_back: share of the calibration batches that nothing is chosen by, to the nearest batch.
    fold_norms: fold batch norms into the convolutions before them.
    dtype: when given, the model and floating-point inputs are converted to it.

    Warns when the function brings no evaluation batches: calibration batches take their place.
    """

    kind = "module"

    def __init__(
        self,
        function: str | Callable[..., Any],
        arguments: Mapping[str, Any] | str | None = None,
        *,
        hold_back: float = HOLD_BACK,
        fold_norms: bool = False,
        dtype: str = "auto",
        device: str = "auto",
    ) -> None:
        self._recipe: dict[str, Any] = {
            "function": _absolute(function) if isinstance(function, str) else function,
            "arguments": parse_arguments(arguments),
            "hold_back": checked_share(hold_back),
            "fold_norms": fold_norms,
            "dtype": dtype,
            "device": device,
        }
        make = function_at(function) if isinstance(function, str) else function
        name = getattr(make, "__name__", "the function")
        with foreign(f"calling {name}", CALLING):
            returned = make(**self._recipe["arguments"])
        self._user = user = brought(returned, name)
        self.output = user.output
        self.place(user.model, device, dtype)
        self.cast = dtype_of(dtype)
        given = batches(user.calibration, "calibration", user)
        self.calibrate(given, hold_back, "let the function bring more of them")
        if user.evaluation is None:
            warnings.warn(
                f"{name} brings no evaluation batches: results on calibration batches look better "
                "than on unseen data",
                BitfrontWarning,
                stacklevel=2,
            )
            self.evaluation = self.calibration
        else:
            self.evaluation = batches(user.evaluation, "evaluation", user)
        if fold_norms:
            self.fold_norms()
        self._own = own_metrics(user)
        self.metrics = (*self._standard(), *self._own)

    def called(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        forward = self._user.forward
        return logits_of(forward(self.model, *args) if forward else self.model(*args, **kwargs))

    def shaped(self, output: Tensor, batch: Batch) -> Tensor:
        if output.dim() < 2 or (self.output == "categorical" and output.dim() > 3):
            raise ModelError(
                f"the model's {self.output} outputs have shape {tuple(output.shape)}",
                "categorical outputs are (samples, classes) or (samples, positions, classes); "
                "use output='gaussian' for numbers of any shape",
            )
        if isinstance(batch, UserBatch) and batch.shape is not None:
            batch.shape[:] = output.shape
        if self.output == "gaussian":
            return output.reshape(output.shape[0], 1, -1)
        return output if output.dim() == 3 else output[:, None]

    def metric(self, name: str) -> Metric:
        return self._own[name] if name in self._own else METRICS[name]

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        return with_hand_groups(self.survey.groups, self._user.groups, self.layers)

    def fingerprint(self) -> dict[str, str]:
        forward = self._user.forward
        digest = "the model's own" if forward is None else source_digest(forward)
        return {**super().fingerprint(), "forward": digest}

    def recipe(self) -> dict[str, Any]:
        if not isinstance(self._recipe["function"], str):
            raise ModelError(
                "the task was made from a live function", "give path/to/file.py:name instead"
            )
        return {"kind": self.kind, **self._recipe}

    def _standard(self) -> tuple[str, ...]:
        if self.output == "gaussian":
            return ("kl",)
        labels = [b.labels for b in self.evaluation]
        if any(found is None for found in labels):
            return ("kl", "agreement")
        positions = max(found.shape[1] for found in labels if found is not None)
        if positions > 1:
            return ("kl", "nll", "perplexity", "top1", "agreement")
        return ("kl", "nll", "top1", "flips", "agreement")


def _absolute(function: str) -> str:
    path, _, name = function.rpartition(":")
    return f"{absolute(path)}:{name}"
