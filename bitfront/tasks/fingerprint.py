"""Digests of what a measurement depends on: weights, data, architecture. Bounded in memory."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .base import Batch

_CHUNK = 64 << 20  # bytes
_INCIDENTAL = ("_name_or_path", "transformers_version")  # change no output


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        digest.update(name.encode())
        _tensor(digest, tensor)
    return digest.hexdigest()


def batches_digest(batches: Iterable[Batch]) -> str:
    """SHA-256 over the tensors and values of batches, with labels, masks and weights."""
    digest = hashlib.sha256()
    for batch in batches:
        parts: tuple[Any, ...] = (batch.args, dict(batch.kwargs), batch.labels, batch.scored)
        parts += () if batch.part is None else (batch.part,)
        parts += () if batch.weights is None else ({"weights": batch.weights},)
        for part in _leaves(parts):
            if isinstance(part, Tensor):
                _tensor(digest, part)
            else:
                digest.update(repr(part).encode())
    return digest.hexdigest()


def architecture_digest(model: nn.Module) -> str:
    """SHA-256 over module types and their arguments, as the model prints itself, and over the
    configuration of a transformers model."""
    text = re.sub(r"0x[0-9a-f]+", "", str(model))
    config: Any = getattr(model, "config", None)
    if config is not None and hasattr(config, "to_dict"):
        values = {k: v for k, v in config.to_dict().items() if k not in _INCIDENTAL}
        text += json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def value_digest(value: Any) -> str:
    """SHA-256 of a JSON-like value; other things in it count as they print themselves."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def source_digest(function: Callable[..., Any]) -> str:
    """SHA-256 of a function's source, or of its type where there is none to read."""
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):  # made by C code, functools.partial or an interactive session
        source = repr(type(function))
    return hashlib.sha256(source.encode()).hexdigest()


def _tensor(digest: Any, tensor: Tensor) -> None:
    digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    flat = tensor.detach().reshape(-1)
    step = max(1, _CHUNK // max(1, tensor.element_size()))
    for start in range(0, flat.numel(), step):
        piece = flat[start : start + step].to("cpu").contiguous()
        digest.update(piece.view(torch.uint8).numpy().data)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value
