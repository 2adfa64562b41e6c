"""How a language model is called where it generates text: with keys and values of earlier tokens.

Names and shapes are those of Optimum's and ONNX Runtime GenAI's graphs, ``i`` being a layer:

N  sequences      T  new tokens of each      P  tokens before them, 0 at first
h  heads that keys and values have           d  size of a head

input_ids, position_ids (N, T)      attention_mask (N, P+T)
past_key_values.i.key, .value (N, h, P, d)
logits (N, T, V)                    present.i.key, .value (N, h, P+T, d)
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bitfront.errors import ExportError
from bitfront.quant.onnx_trace import Signature

from .boundary import foreign
from .generating import write_beside
from .placement import moved
from .running import ModelTask

BATCH, TOKENS = "batch_size", "sequence_length"
PAST, ALL = "past_sequence_length", "total_sequence_length"
REMEDY = "export it with --no-cache (cache=False): a graph from whole texts to logits"

_EXAMPLE = {"N": 2, "P": 3, "T": 4}  # different ones, so that none is taken for another


def with_cache(task: ModelTask) -> Signature:
    """The call of the first evaluation batch, as texts without a past.

    Raises ``ExportError`` for a model whose cache is more, or less, than keys and values.
    """
    if task.kind != "language":
        raise ExportError(
            f"a {task.kind} task with a cache", "only language tasks have one: leave cache out"
        )
    model, batch = task.model, task.evaluation[0]
    given = moved(dict(batch.kwargs), task.device, task.cast)
    ids = given["input_ids"].detach().clone()
    mask = given.get("attention_mask", torch.ones_like(ids)).detach().clone()
    positioned = "position_ids" in inspect.signature(model.forward).parameters
    names = ["input_ids", "attention_mask", *(["position_ids"] if positioned else [])]

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        first, past = tensors[: len(names)], tensors[len(names) :]
        found = model(
            **dict(zip(names, first, strict=True)), past_key_values=_cache(past), use_cache=True
        )
        return (found.logits, *_states(found.past_key_values))

    def inputs(ids: Tensor, mask: Tensor, past: Sequence[Tensor]) -> dict[str, Tensor]:
        P = past[0].shape[2]
        known = {"input_ids": ids[:, P:], "attention_mask": mask}
        if positioned:
            known["position_ids"] = positions(mask)[:, P:]
        known |= dict(zip(_named("past_key_values", len(past)), past, strict=True))
        return {name: x.contiguous().clone() for name, x in known.items()}

    N, P, T = (_EXAMPLE[size] for size in "NPT")
    texts = ids.flatten().repeat(N * (P + T))[: N * (P + T)].view(N, P + T)
    sizes = _sizes(model, ids[:1, :1])

    def nothing(samples: int) -> list[Tensor]:
        return [torch.empty(samples, h, 0, d, dtype=t, device=ids.device) for h, d, t in sizes]

    start = inputs(texts[:, :P], torch.ones_like(texts[:, :P]), nothing(N))
    with torch.no_grad(), foreign("giving the model a cache", REMEDY):
        past = run(*start.values())[1:]
    whole = inputs(ids, mask, nothing(len(ids)))
    axes: dict[str, dict[int, str]] = {name: {0: BATCH, 2: PAST} for name in whole}
    axes |= {name: {0: BATCH, 1: TOKENS} for name in names}
    axes["attention_mask"][1] = ALL
    return Signature(
        run,
        whole,
        ("logits", *_named("present", len(past))),
        axes,
        measured=lambda: task.called((), given),
        example=inputs(texts, torch.ones_like(texts), past),
        remedy=REMEDY,
        beside=lambda folder: write_beside(model, folder, names, *sizes[0][:2]),
    )


def positions(mask: Tensor) -> Tensor:
    """Of each token among those that ``mask`` (N, P+T) does not hide; 0 before the first."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _named(what: str, count: int) -> list[str]:
    return [f"{what}.{i}.{part}" for i in range(count // 2) for part in ("key", "value")]


def _cache(past: Sequence[Tensor]) -> Any:
    """Keys and values, of each layer in turn, as transformers has them.

    Layers with a sliding window keep all tokens here, and their masks hide the distant ones.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    cache = DynamicCache()
    for keys, values in zip(past[::2], past[1::2], strict=True):
        layer = DynamicLayer()
        layer.dtype, layer.device = keys.dtype, keys.device
        layer.keys, layer.values, layer.is_initialized = keys, values, True
        cache.layers.append(layer)
    return cache


def _states(cache: Any) -> list[Tensor]:
    """Keys and values of each layer. Raises ``ExportError`` where there is anything else."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    layers: list[Any] = list(cache.layers) if isinstance(cache, DynamicCache) else []
    known = [type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers]
    if not known or not all(known) or any(not layer.is_initialized for layer in layers):
        what = {type(layer).__name__ for layer in layers} or {type(cache).__name__}
        raise ExportError(
            f"the model keeps other things than keys and values: {', '.join(sorted(what))}",
            REMEDY,
        )
    return [x for layer in layers for x in (layer.keys, layer.values)]


def _sizes(model: nn.Module, ids: Tensor) -> list[tuple[int, int, torch.dtype]]:
    """Of the keys and values of each layer: heads, size of a head, dtype. ids: (1, 1)."""
    with torch.no_grad(), foreign("asking the model for a cache", REMEDY):
        found: Any = model(input_ids=ids, use_cache=True)
    states = _states(getattr(found, "past_key_values", None))
    for x in states:
        if x.ndim != 4 or x.shape[2] != 1:
            raise ExportError(f"the model keeps a tensor {tuple(x.shape)} of one token", REMEDY)
    return [(x.shape[1], x.shape[3], x.dtype) for x in states]
