"""One forward of a model, watched: which layers run, in which order, on which tensors.

Tensors are told apart by what they are, not by their values: two layers have the same input when
they were given the same stretch of the same storage in the same state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.utils import parametrize

from bitfront.quant.layers import Adapter, adapter_for

from .readers import Readers

Identity = tuple[Any, ...]


@dataclass(eq=False)
class Calls:
    """What one layer did in the traced forward, over all its calls."""

    name: str
    module: nn.Module
    adapter: type[Adapter]
    inputs: list[Identity] = field(default_factory=list)
    storages: list[int] = field(default_factory=list)  # of its outputs
    sizes: list[int] = field(default_factory=list)  # elements of its outputs
    macs: int = 0  # over the whole batch


@dataclass(frozen=True, eq=False)
class Trace:
    """calls: layer -> its calls, in order of first execution. started: every module that ran ->
    rank of its first start. idle: quantizable modules that never ran. left_out: name -> why a
    module of a quantizable type is none. result: storages of what the model returned. size:
    elements of the outputs. rectified: layers whose outputs only a ReLU reads -> its ceiling, 0
    where it has none; looked for where there are convolutions, which runtimes fuse with it."""

    model: nn.Module
    calls: Mapping[str, Calls]
    started: Mapping[str, int]
    idle: tuple[str, ...]
    left_out: Mapping[str, str]
    result: frozenset[int]
    size: int
    rectified: Mapping[str, float]


def trace(model: nn.Module, run: Callable[[], Tensor]) -> Trace:
    """Watch ``run()``, which calls ``model`` (or parts of it) once and returns its outputs."""
    known, left_out = _quantizable(model)
    calls: dict[str, Calls] = {}
    started: dict[str, int] = {}
    keep: list[StorageWeakRef] = []  # while these live, no address stands for two storages
    result: set[int] = set()
    readers = Readers()
    watched = any(adapter.kind.startswith("conv") for adapter in known.values())

    def storage(tensor: Tensor) -> int:
        keep.append(StorageWeakRef(tensor.untyped_storage()))
        return int(keep[-1].cdata)

    def starting(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            started.setdefault(name, len(started))

        return hook

    def finished(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            x = next(tensors((args, kwargs)))
            y = next(tensors(output))
            call = calls.setdefault(name, Calls(name, module, known[name]))
            call.inputs.append(
                (storage(x), x.storage_offset(), tuple(x.shape), x.stride(), x._version)
            )
            call.storages.append(storage(y))
            call.sizes.append(y.numel())
            call.macs += call.adapter.macs(module, x, y)
            if watched:
                readers.made(name, y)

        return hook

    def returned(module: nn.Module, args: Any, output: Any) -> None:
        result.update(storage(t) for t in tensors(output))
        for t in tensors(output):
            readers.read(t)

    handles = [model.register_forward_hook(returned)]
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(starting(name)))
        if name in known:
            handles.append(module.register_forward_hook(finished(name), with_kwargs=True))
    try:
        with torch.no_grad(), readers if watched else nullcontext():
            outputs = run()
    finally:
        for handle in handles:
            handle.remove()
    result.add(storage(outputs))
    idle = tuple(name for name in known if name not in calls)
    return Trace(
        model, calls, started, idle, left_out, frozenset(result), outputs.numel(),
        readers.rectified(),
    )  # fmt: skip


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and mappings (transformers' outputs are mappings)."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)


def _quantizable(model: nn.Module) -> tuple[dict[str, type[Adapter]], dict[str, str]]:
    known: dict[str, type[Adapter]] = {}
    left_out: dict[str, str] = {}
    for name, module in model.named_modules():
        adapter = adapter_for(module)
        if adapter is None:
            continue
        weight = module._parameters.get("weight")
        if parametrize.is_parametrized(module, "weight") or weight is None:
            left_out[name] = "its weight is computed from other parameters"
        elif not weight.is_floating_point():
            left_out[name] = f"its weight is {weight.dtype}, not floating point"
        else:
            known[name] = adapter
    return known, left_out
