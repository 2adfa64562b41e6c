"""Layers that runtimes fuse, found by structure and by what they are fed, not by names.

siblings   linear layers of one parent module that read the same input tensor, with nothing but
           layers of that parent between them: q/k/v, gate/up
experts    all layers of a ModuleList of alike modules that a router of the same parent chooses
           between: fused kernels take one scheme for all experts of a layer
tied       layers that use one weight tensor: embedding and LM head
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import nn

from bitfront.quant.layers import adapter_of
from bitfront.types import Layer, closure

from .globs import matching
from .trace import Calls, Trace

LINEAR = ("linear", "hf_conv1d")


def fused_groups(trace: Trace, layers: tuple[Layer, ...]) -> tuple[tuple[str, ...], ...]:
    """Disjoint groups of two or more layers, each in order of execution."""
    names = [layer.name for layer in layers]
    index = {name: i for i, name in enumerate(names)}
    groups = [*siblings(trace), *experts(trace.model, trace.started, names), *tied(layers)]
    kept = ([index[n] for n in group if n in index] for group in groups)
    return tuple(tuple(names[i] for i in g) for g in closure(g for g in kept if len(g) > 1))


def siblings(trace: Trace) -> Iterator[list[str]]:
    """Linear layers under one parent that read the same tensor each time they run."""
    order = list(trace.calls)
    same: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for name, call in trace.calls.items():
        if call.adapter.kind in LINEAR:
            same[_parent(name), _cols(call), tuple(call.inputs)].append(name)
    for (parent, *_), names in same.items():
        between = order[order.index(names[0]) : order.index(names[-1]) + 1]
        if len(names) > 1 and all(_parent(n) == parent for n in between):
            yield names


def experts(
    model: nn.Module, started: Mapping[str, int], names: Sequence[str]
) -> Iterator[list[str]]:
    """The layers of all experts, for each list of experts that stands beside its router."""
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) < 2 or not _alike(module):
            continue
        inside = [n for n in names if n.startswith(f"{path}.")]
        if inside and _has_router(model, path, len(module), inside, started):
            yield inside


def tied(layers: tuple[Layer, ...]) -> Iterator[list[str]]:
    """Layers that share a weight tensor with another one."""
    for layer in layers:
        if layer.shares is not None:
            yield [layer.shares, layer.name]


def _has_router(
    model: nn.Module, path: str, count: int, inside: list[str], started: Mapping[str, int]
) -> bool:
    """Whether the list's parent holds, outside the list, a (count, width) matrix that ran before
    the list's modules, with the width of one of their inputs."""
    parent = model.get_submodule(_parent(path))
    prefix = f"{_parent(path)}." if _parent(path) else ""
    first = min((started[n] for n in inside if n in started), default=None)
    if first is None:
        return False
    widths = {adapter_of(m).matrix(m).shape[1] for m in map(model.get_submodule, inside)}
    for name, parameter in parent.named_parameters():
        full = prefix + name
        owner = model.get_submodule(_parent(full))
        if full.startswith(f"{path}.") or isinstance(owner, nn.Embedding):
            continue
        ran = started.get(_parent(full))
        if (
            ran is not None
            and ran < first
            and tuple(parameter.shape) in {(count, w) for w in widths}
        ):
            return True
    return False


def _alike(modules: nn.ModuleList) -> bool:
    shapes = [[(n, tuple(p.shape)) for n, p in m.named_parameters()] for m in modules]
    return all(s == shapes[0] for s in shapes) and len({type(m) for m in modules}) == 1


def _cols(call: Calls) -> int:
    return int(call.adapter.matrix(call.module).shape[1])


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def with_hand_groups(
    found: Iterable[Sequence[str]], hand: Iterable[Sequence[str]], layers: Sequence[Layer]
) -> tuple[tuple[str, ...], ...]:
    """Groups found, joined with groups given by globs on layer names; in order of execution.

    Raises ``UnknownName`` for a glob that no layer's name matches.
    """
    names = [layer.name for layer in layers]
    index = {name: i for i, name in enumerate(names)}
    given = [[n for glob in globs for n in matching(glob, names)] for globs in hand]
    pairs = [[index[n] for n in group] for group in (*found, *given)]
    return tuple(tuple(names[i] for i in g) for g in closure(pairs) if len(g) > 1)
