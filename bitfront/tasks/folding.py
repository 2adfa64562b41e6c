"""Batch norms folded into the convolutions before them, where a trace of the model proves that.

In evaluation a norm is y ↦ γ (y - μ) / √(σ² + ε) + β: a convolution's weights and bias can hold it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from bitfront.errors import ModelError
from bitfront.quant.layers import adapter_for
from bitfront.quant.onnx_trace import Signature

if TYPE_CHECKING:
    from torch.export import ExportedProgram

SAME = 1e-5  # of the largest output: float32 sums of other numbers
_CONVOLUTIONS = ("conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "convolution")
_REMEDY = "leave out fold_norms (--fold-norms)"


@dataclass(frozen=True)
class _Pair:
    """Names of a convolution, and of the norm of its output."""

    convolution: str
    norm: str


class _Called(nn.Module):
    """The model, called as a task calls it."""

    def __init__(self, model: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.model = model
        self._run = signature.run

    def forward(self, *inputs: Tensor) -> Any:
        return self._run(*inputs)


def fold_norms(model: nn.Module, signature: Signature) -> tuple[str, ...]:
    """Fold every norm that is proven to follow a convolution, in place; the names of the norms.

    A norm becomes an identity. signature: how the model is called. Raises ``ModelError`` for a
    model that cannot be traced, in which nothing can be folded, or whose outputs change by it; the
    model may be changed then.
    """
    pairs = list(_pairs(model, _traced(model, signature)))
    if not pairs:
        raise ModelError(
            f"no batch norm of the {type(model).__name__} directly follows a convolution", _REMEDY
        )
    inputs = tuple(signature.inputs.values())
    with torch.no_grad():
        before = signature.run(*inputs).double()
        for pair in pairs:
            _fold(model, pair)
        after = signature.run(*inputs).double()
    off, largest = float((after - before).abs().max()), float(before.abs().max())
    if not off <= SAME * largest:
        raise ModelError(
            f"folding {len(pairs)} batch norms changes outputs by up to {off:.3g}, of at most "
            f"{largest:.3g}",
            f"use a wider dtype (float32), or {_REMEDY}",
        )
    return tuple(pair.norm for pair in pairs)


def _traced(model: nn.Module, signature: Signature) -> ExportedProgram:
    try:
        with torch.no_grad():
            called = _Called(model, signature).eval()
            return torch.export.export(called, tuple(signature.inputs.values()), strict=False)
    except Exception as error:  # of many classes of torch's, and whatever the model raises
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"torch cannot trace a {type(model).__name__} to fold its norms: {line}", _REMEDY
        ) from error


def _pairs(model: nn.Module, program: ExportedProgram) -> Iterator[_Pair]:
    """Pairs of which each is called once, shares no tensor, and has no other reader between."""
    signature = program.graph_signature
    tensors = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    uses: dict[int, int] = {}
    for _, tensor in (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ):
        uses[id(tensor)] = uses.get(id(tensor), 0) + 1

    def owner(node: Any, suffix: str) -> str | None:
        """The module whose own tensor a placeholder is, where nothing else reads that."""
        prefix, _, name = tensors.get(getattr(node, "name", ""), "").rpartition(".")
        if name != suffix or len(node.users) != 1 or not f"{prefix}.".startswith("model."):
            return None
        found = prefix.removeprefix("model").removeprefix(".")
        return found if uses[id(getattr(model.get_submodule(found), name))] == 1 else None

    for node in program.graph.nodes:
        if node.op != "call_function" or not _named(node, ("batch_norm",)):
            continue
        given = node.args[0]
        if given.op != "call_function" or not _named(given, _CONVOLUTIONS):
            continue
        norm, convolution = owner(node.args[3], "running_mean"), owner(given.args[1], "weight")
        if norm is None or convolution is None or len(given.users) != 1:
            continue
        first, second = model.get_submodule(convolution), model.get_submodule(norm)
        adapter = adapter_for(first)
        plain = adapter is not None and adapter.kind.startswith("conv")
        plain = plain and uses.get(id(first.bias), 1) == 1
        if plain and isinstance(second, _BatchNorm) and not (node.args[5] or second.training):
            yield _Pair(convolution, norm)


def _named(node: Any, names: tuple[str, ...]) -> bool:
    """Whether an operation is one of ATen's of these names."""
    packet = getattr(node.target, "overloadpacket", None)
    return any(packet is getattr(torch.ops.aten, name) for name in names)


def _fold(model: nn.Module, pair: _Pair) -> None:
    convolution: Any = model.get_submodule(pair.convolution)
    norm: Any = model.get_submodule(pair.norm)
    transposed = isinstance(convolution, (nn.ConvTranspose1d, nn.ConvTranspose2d))
    weight = convolution.weight
    if transposed and convolution.groups > 1:  # (in, out / G, ...): its channels are apart
        weight = _ungrouped(weight, convolution.groups)
    fused, bias = fuse_conv_bn_weights(
        weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps,
        norm.weight, norm.bias, transposed,
    )  # fmt: skip
    if transposed and convolution.groups > 1:
        fused = nn.Parameter(_grouped(fused, convolution.groups), fused.requires_grad)
    convolution.weight, convolution.bias = fused, bias
    parent, _, name = pair.norm.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.Identity())


def _ungrouped(weight: Tensor, groups: int) -> Tensor:
    """(in, out / G, ...) as (in / G, out, ...), channel g · out / G + i that of group g."""
    return torch.cat(weight.detach().chunk(groups, 0), 1)


def _grouped(weight: Tensor, groups: int) -> Tensor:
    """The inverse of ``_ungrouped``."""
    return torch.cat(weight.detach().chunk(groups, 1), 0)
