"""How a task's model is called where it is deployed, and which sizes of its inputs may vary."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor

from bitfront.quant.onnx_trace import Signature

from .base import Batch
from .cached import BATCH, TOKENS, with_cache
from .placement import moved
from .running import ModelTask

_OUTPUTS = {"language": "logits", "vision": "logits", "diffusion": "out_sample"}
_TOKENS = {"language": 1}  # kind -> the dimension of positions in a sample


def signature(task: ModelTask, *, cache: bool = False) -> Signature:
    """The call of the first evaluation batch, as the model's own output tensor.

    Tensors are inputs, under the names of the model's parameters; whatever else the batch has is
    fixed. The number of samples may vary, and of a language model that of tokens. cache: with the
    keys and values of earlier tokens (``cached``).
    """
    if cache:
        return with_cache(task)
    batch = task.evaluation[0]
    args, kwargs = _own(task, batch)
    names = _positions(task, len(args))
    given = [*zip(names, args, strict=True), *kwargs.items()]
    # copies: a view of other memory would be traced as one
    inputs = {n: a.detach().clone() for n, a in given if isinstance(a, Tensor)}

    def run(*tensors: Tensor) -> Tensor:
        given = dict(zip(inputs, tensors, strict=True))
        positional = tuple(given.get(n, a) for n, a in zip(names, args, strict=True))
        return task.called(positional, {n: given.get(n, a) for n, a in kwargs.items()})

    tokens = _TOKENS.get(task.kind)
    axes: dict[str, dict[int, str]] = {}
    for name, x in inputs.items():
        axes[name] = {0: BATCH} if x.ndim and len(x) == batch.samples else {}
        if axes[name] and tokens is not None and x.ndim > tokens:
            axes[name][tokens] = TOKENS
    return Signature(run, inputs, (_OUTPUTS.get(task.kind, "output"),), axes)


def _own(task: ModelTask, batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments as the model is given them."""
    args = moved(tuple(batch.args), task.device, task.cast)
    return args, moved(dict(batch.kwargs), task.device, task.cast)


def _positions(task: ModelTask, count: int) -> list[str]:
    """Names of the first ``count`` positional parameters of the model."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(task.model.forward).parameters.values()
    found = [p.name for p in parameters if p.kind in kinds][:count]
    return [*found, *(f"input_{i}" for i in range(len(found), count))]
