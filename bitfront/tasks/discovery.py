"""Finds a model's quantizable layers: by type, in the order in which one batch runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from bitfront.errors import ModelError
from bitfront.quant.layers import adapter_of, beyond_lookup
from bitfront.types import Layer

from .grouping import LINEAR, experts, fused_groups
from .trace import Calls, Trace, trace


@dataclass(frozen=True, eq=False)
class Survey:
    """A model as Bitfront sees it.

    layers: quantizable layers in order of first execution. groups: layers that runtimes fuse or
    that share a tensor. left_out: module -> why it is no layer although of a quantizable type.
    others: matrices and larger parameters that belong to no layer -> number of elements.
    parameters: number of elements of all parameters, shared ones once.
    """

    layers: tuple[Layer, ...]
    groups: tuple[tuple[str, ...], ...]
    left_out: Mapping[str, str]
    others: Mapping[str, int]
    parameters: int

    @property
    def others_share(self) -> float:
        """Share of the parameters that no scheme can reach (norms and biases aside), 0 to 1."""
        return sum(self.others.values()) / max(self.parameters, 1)

    def notes(self) -> tuple[str, ...]:
        """What a reader should know, one sentence each."""
        notes = [f"{name} is left out: {why}" for name, why in self.left_out.items()]
        if self.others:
            names = ", ".join(list(self.others)[:5]) + (", …" if len(self.others) > 5 else "")
            notes.append(
                f"{len(self.others)} parameters outside known layer types stay in full precision "
                f"({self.others_share:.1%} of all): {names}"
            )
        return tuple(notes)


def discover(model: nn.Module, run: Callable[[], Tensor], samples: int = 1) -> tuple[Layer, ...]:
    """The layers of ``survey``."""
    return survey(model, run, samples).layers


def survey(model: nn.Module, run: Callable[[], Tensor], samples: int = 1) -> Survey:
    """Watch ``run()`` (one forward over ``samples`` samples) and describe the model.

    A module that runs several times is one layer with the sum of its MACs. Raises ``ModelError``
    when nothing quantizable runs.
    """
    seen = trace(model, run)
    if not seen.calls:
        raise ModelError(
            f"{type(model).__name__} runs no quantizable layer",
            "layers are Linear, Conv1d, Conv2d, ConvTranspose, Embedding and transformers' Conv1D",
        )
    names, left_out = _with_idle_experts(seen)
    heads = _heads(seen)
    owners: dict[tuple[object, ...], str] = {}
    layers = tuple(_layer(seen, name, samples, heads, owners) for name in names)
    return Survey(
        layers=layers,
        groups=fused_groups(seen, layers),
        left_out={**seen.left_out, **left_out},
        others=_others(model, names),
        parameters=sum(p.numel() for p in model.parameters()),
    )


def _layer(
    seen: Trace,
    name: str,
    samples: int,
    heads: set[str],
    owners: dict[tuple[object, ...], str],
) -> Layer:
    module = seen.model.get_submodule(name)
    adapter = adapter_of(module)
    weight = module.weight
    assert isinstance(weight, Tensor)
    key = (weight.untyped_storage().data_ptr(), weight.storage_offset(), weight.numel())
    owner = owners.setdefault(key, name)
    rows, cols = adapter.matrix(module).shape
    bias = module._parameters.get("bias")
    role = "embedding" if adapter.kind == "embedding" else "head" if name in heads else "body"
    calls = seen.calls.get(name)
    return Layer(
        name=name,
        kind=adapter.kind,
        rows=rows,
        cols=cols,
        dtype=str(weight.dtype).removeprefix("torch."),
        bias=0 if bias is None else bias.numel(),
        macs=round(calls.macs / samples) if calls is not None else 0,
        role=role,
        shares=None if owner == name else owner,
        flat=calls is not None and _flat(calls),
        rectified=name in seen.rectified,
        ceiling=seen.rectified.get(name, 0.0),
        kernel=tuple(getattr(module, "kernel_size", ())),
        beyond_lookup=beyond_lookup(adapter.kind, module),
    )


def _flat(calls: Calls) -> bool:
    """Whether the input of a linear layer has, in any call, no token but the first."""
    shapes = [shape for _, _, shape, *_ in calls.inputs]
    return calls.adapter.kind in LINEAR and any(len(s) < 3 or s[-2] == 1 for s in shapes)


def _with_idle_experts(seen: Trace) -> tuple[list[str], dict[str, str]]:
    """Names of layers in order, and why idle modules are none.

    An expert to which the batch routed nothing is a layer all the same: it stands behind its peers.
    """
    names = list(seen.calls)
    idle = set(seen.idle)
    for group in experts(seen.model, seen.started, [*names, *seen.idle]):
        late = [n for n in group if n in idle]
        at = max((names.index(n) for n in group if n not in idle), default=len(names) - 1)
        names[at + 1 : at + 1] = late
        idle.difference_update(late)
    reason = "it does not run as a module in a forward pass"
    return names, {name: reason for name in seen.idle if name in idle}


def _heads(seen: Trace) -> set[str]:
    """The layers that make the model's outputs.

    transformers says which one it is; otherwise linear layers whose output is what the model
    returned, or else the last layer to run if it is linear and gives as many numbers.
    """
    accessor = getattr(seen.model, "get_output_embeddings", None)
    head = accessor() if callable(accessor) else None
    linear = {n: c for n, c in seen.calls.items() if c.adapter.kind in LINEAR}
    if head is not None:
        return {n for n, c in linear.items() if c.module is head}
    found = {n for n, c in linear.items() if seen.result.intersection(c.storages)}
    last = list(seen.calls)[-1]
    if not found and last in linear and seen.size in linear[last].sizes:
        found = {last}
    return found


def _others(model: nn.Module, names: list[str]) -> dict[str, int]:
    inside = {id(p) for n in names for p in model.get_submodule(n).parameters(recurse=False)}
    return {
        name: p.numel()
        for name, p in model.named_parameters()
        if id(p) not in inside and p.squeeze().dim() > 1
    }
