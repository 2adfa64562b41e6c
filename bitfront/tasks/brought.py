"""What a user's function returns for a module task: checked, with one clear error each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitfront.errors import DataError, InvalidInput, ModelError

from .base import Batch
from .boundary import foreign
from .counting import refuse_nothing
from .metrics import METRICS, Metric
from .trace import tensors

OUTPUTS = ("categorical", "gaussian")
IGNORED = -100  # a label that marks a position that is not scored, as in torch's losses

Labels = Callable[[Any], Any]
Weights = Callable[[Any], Any]
Forward = Callable[[nn.Module, Any], Any]


@dataclass(frozen=True, eq=False)
class Brought:
    """The keys (or attributes) that the returned object may have; docs/tasks.md explains each."""

    model: nn.Module
    calibration: Iterable[Any]
    evaluation: Iterable[Any] | None = None
    output: str = "categorical"
    metrics: Mapping[str, tuple[Callable[..., Any], str]] | None = None
    labels: Labels | None = None
    weights: Weights | None = None
    forward: Forward | None = None
    groups: Sequence[Sequence[str]] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise ModelError(f"'model' is a {type(self.model).__name__}", "return an nn.Module")
        if self.output not in OUTPUTS:
            raise InvalidInput(f"'output' is {self.output!r}", f"use {' or '.join(OUTPUTS)}")
        for name in ("labels", "weights", "forward"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise InvalidInput(f"{name!r} is a {type(value).__name__}", "give a function")
        if self.metrics is not None and not isinstance(self.metrics, Mapping):
            raise InvalidInput(
                f"'metrics' is a {type(self.metrics).__name__}",
                'give a dict of name: (function, "higher" or "lower")',
            )
        groups = self.groups if isinstance(self.groups, (list, tuple)) else [self.groups]
        for group in groups:
            if not isinstance(group, (list, tuple)) or not all(isinstance(g, str) for g in group):
                raise InvalidInput(
                    f"'groups' has {group!r}", "give a list of groups, each a list of globs"
                )


@dataclass(frozen=True, eq=False)
class UserBatch(Batch):
    """A batch as the user made it (``raw``).

    shape: of the outputs as the user's model gives them; known once the model ran on the batch.
    """

    raw: Any = None
    shape: list[int] | None = None


def brought(returned: Any, name: str) -> Brought:
    """What ``name`` returned: a mapping, or an object with these attributes."""
    known = list(Brought.__dataclass_fields__)
    if isinstance(returned, Mapping):
        unknown = [k for k in returned if k not in known]
        if unknown:
            raise InvalidInput(f"{name} returned {unknown[0]!r}", f"known keys: {', '.join(known)}")
        values = dict(returned)
    else:
        values = {k: getattr(returned, k) for k in known if hasattr(returned, k)}
    for key in ("model", "calibration"):
        if key not in values:
            raise InvalidInput(
                f"{name} returned no {key!r}", f"return a dict with {', '.join(known)}"
            )
    return Brought(**values)


def batches(given: Iterable[Any], what: str, user: Brought) -> list[Batch]:
    """The user's batches, each a call of the model. Raises ``DataError`` for none, or odd ones."""
    if isinstance(given, (Tensor, str, Mapping)):
        raise DataError(
            f"{what!r} is one {type(given).__name__}", "give a sequence of batches, [batch] for one"
        )
    with foreign(f"reading {what!r}", "give a list of batches", DataError):
        raws = list(given)
    if not raws:
        raise DataError(f"{what!r} has no batches", "give at least one")
    found: list[Batch] = [_batch(raw, f"{what} batch {i}", user) for i, raw in enumerate(raws)]
    remedy = f"give labels other than {IGNORED} and weights above 0, or leave labels, 'scored' "
    remedy += "and weights out"
    refuse_nothing(found, what, remedy)
    return found


def own_metrics(user: Brought) -> dict[str, Metric]:
    """The user's metrics: means over samples of what their functions give."""
    found = {}
    for name, spec in (user.metrics or {}).items():
        pair = spec if isinstance(spec, tuple) and len(spec) == 2 else (None, None)
        function, better = pair
        if not callable(function) or better not in ("higher", "lower"):
            raise InvalidInput(f"metric {name!r}", 'give a pair (function, "higher" or "lower")')
        if name in METRICS:
            raise InvalidInput(f"metric {name!r} is built in", "choose another name")
        found[name] = Metric(name, None, "", better, samples=_values(name, function))
    return found


def _batch(raw: Any, place: str, user: Brought) -> UserBatch:
    found = next(tensors(raw), None)
    if found is None or not found.dim():
        raise DataError(
            f"{place} is a {type(raw).__name__} without a tensor of samples",
            "a batch is a tensor, a tuple of tensors, or a dict of them",
        )
    if not len(found):
        raise DataError(f"{place} has no samples, its shape is {tuple(found.shape)}", "drop it")
    labels = scored = None
    kwargs = dict(raw) if isinstance(raw, Mapping) else {}
    if user.output == "categorical":
        given = _said("labels", user.labels, raw, kwargs)
        labels, scored = _labels(given, kwargs.get("scored"), place)
    weights = _weights(_said("weights", user.weights, raw, kwargs), place)
    kwargs = {k: v for k, v in kwargs.items() if k not in ("labels", "scored", "weights")}
    args: tuple[Any, ...]
    if user.forward is not None:
        args, kwargs = (raw,), {}
    elif isinstance(raw, Mapping):
        args = ()
    else:
        args = tuple(raw) if isinstance(raw, (tuple, list)) else (raw,)
    return UserBatch(args, kwargs, len(found), labels, scored, weights=weights, raw=raw, shape=[])


def _said(
    name: str, function: Callable[[Any], Any] | None, raw: Any, keys: Mapping[str, Any]
) -> Any:
    """What the user's ``function`` gives for a batch, or the batch's own key ``name``."""
    if function is None:
        return keys.get(name)
    with foreign(f"calling {name!r}", "correct the function", DataError):
        return function(raw)


def _weights(given: Any, place: str) -> Tensor | None:
    if given is None:
        return None
    with foreign(f"reading the weights of {place}", "give a tensor of numbers", DataError):
        weights = torch.as_tensor(given).detach().cpu()
    if weights.dim() not in (1, 2) or weights.is_complex():
        raise DataError(
            f"weights of {place} are {weights.dtype} of shape {tuple(weights.shape)}",
            "give numbers (samples,) or (samples, positions)",
        )
    weights = weights.reshape(len(weights), -1)
    return weights if weights.is_floating_point() else weights.float()


def _labels(given: Any, mask: Any, place: str) -> tuple[Tensor | None, Tensor | None]:
    if given is None:
        return None, None
    with foreign(f"reading the labels of {place}", "give a tensor of class indices", DataError):
        labels = torch.as_tensor(given)
    if labels.is_floating_point() or labels.dim() not in (1, 2):
        raise DataError(
            f"labels of {place} are {labels.dtype} of shape {tuple(labels.shape)}",
            "give class indices (samples,) or (samples, positions)",
        )
    labels = labels.long().reshape(len(labels), -1).cpu()
    scored = labels != IGNORED
    if mask is not None:
        with foreign(f"reading 'scored' of {place}", "give one flag for each label", DataError):
            scored &= torch.as_tensor(mask).bool().reshape(labels.shape).cpu()
    return labels.masked_fill(~scored, 0), None if scored.all() else scored


def _values(name: str, function: Callable[..., Any]) -> Any:
    def samples(outputs: Tensor, batch: Batch) -> Any:
        assert isinstance(batch, UserBatch)
        z = outputs.detach().float().cpu()
        if batch.shape:
            z = z.reshape(batch.shape)
        with foreign(f"metric {name!r}", "correct the function"):
            values = function(z, batch.raw)
            if isinstance(values, Tensor):
                values = values.detach().cpu().double().numpy()
            values = np.asarray(values, dtype=np.float64)
        wrong, bad = None, int((~np.isfinite(values)).sum())
        if values.shape != (batch.samples,):
            wrong = f"values of shape {values.shape}"
        elif bad:
            wrong = f"{len(values)} values, {bad} of them not finite"
        if wrong is not None:
            raise ModelError(
                f"metric {name!r} gave {wrong}",
                f"give one finite number for each of the {batch.samples} samples",
            )
        return values

    return samples
