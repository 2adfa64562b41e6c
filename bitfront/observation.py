"""What can be seen of a model at work, small enough to hand to another process and compare."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bitfront.errors import DataError
from bitfront.quant.layers import adapter_of
from bitfront.quant.stored import tensor_name
from bitfront.quant.tensorfiles import digest
from bitfront.tasks.base import Batch
from bitfront.tasks.placement import floating_dtype, moved

_PROBE = 4096  # leading values of a layer's output that are kept


@dataclass(frozen=True, eq=False)
class Observation:
    """Outputs, the first values of each layer's first output, digests of each layer's weights.

    outputs: any shape, on the CPU. layers: name -> (at most 4096,), in order of execution.
    weights, tensors: name -> SHA-256, of layers' weights and of all other parameters and buffers.
    inputs: what the model was called with, where that was saved too.
    """

    outputs: Tensor
    layers: Mapping[str, Tensor]
    weights: Mapping[str, str]
    tensors: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Tensor] = field(default_factory=dict)

    def save(self, path: Path, inputs: Mapping[str, Tensor]) -> None:
        """Write all but the digests to a safetensors file."""
        tensors = {"outputs": self.outputs, **_prefixed("input.", inputs)}
        for i, (name, values) in enumerate(self.layers.items()):
            tensors[f"layer.{i:06}.{name}"] = values
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)

    @classmethod
    def load(
        cls, path: Path, weights: Mapping[str, str], others: Mapping[str, str] | None = None
    ) -> Observation:
        """Read what ``save`` wrote. others: ``tensors``."""
        tensors = load_file(path)
        layers = {
            name.split(".", 2)[2]: tensors[name] for name in sorted(tensors) if name[:6] == "layer."
        }
        inputs = {name[6:]: tensor for name, tensor in tensors.items() if name[:6] == "input."}
        return cls(tensors["outputs"], layers, weights, others or {}, inputs)

    def difference(self, other: Observation) -> float:
        """Greatest absolute difference of outputs; nan when shapes differ or a number is not."""
        return _difference(self.outputs, other.outputs)

    def other_weights(self, other: Observation) -> list[str]:
        """Layers whose weights are not the same to the bit."""
        return [name for name, found in self.weights.items() if other.weights.get(name) != found]

    def other_tensors(self, other: Observation) -> list[str]:
        """Parameters and buffers besides layers' weights that are not the same to the bit."""
        return [name for name, found in self.tensors.items() if other.tensors.get(name) != found]

    def first_other_layer(self, other: Observation) -> str | None:
        """The first layer in order of execution whose outputs are not the same numbers."""
        for name, values in self.layers.items():
            if name not in other.layers or _difference(values, other.layers[name]) != 0:
                return name
        return None


def observe(model: nn.Module, run: Callable[[], Tensor], layers: Sequence[str]) -> Observation:
    """Call ``run``, which calls ``model``, and note what ``layers`` give and all of it holds."""
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            if name not in seen:
                seen[name] = output.detach().reshape(-1)[:_PROBE].cpu().clone()

        return hook

    with ExitStack() as stack, torch.no_grad():
        for name in layers:
            handle = model.get_submodule(name).register_forward_hook(note(name))
            stack.callback(handle.remove)
        outputs = run().detach().cpu()
    # after the run: compressed-tensors unpacks weights at the first call
    weights = {name: digest(weight_matrix(model, name) + 0.0) for name in layers}  # -0 is 0
    mine = {tensor_name(name, "weight") for name in layers}
    others = {
        name: digest(tensor)
        for name, tensor in model.state_dict().items()
        if name not in mine and isinstance(tensor, Tensor)
    }
    return Observation(outputs, seen, weights, others)


def weight_matrix(model: nn.Module, layer: str) -> Tensor:
    """The weights (rows, cols) that a layer has at the moment."""
    module = model.get_submodule(layer)
    return adapter_of(module).matrix(module)


def split_call(batch: Batch) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A batch's arguments as tensors and JSON-like values, each under the position or the name."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for name, value in (
        *((str(i), arg) for i, arg in enumerate(batch.args)),
        *batch.kwargs.items(),
    ):
        if isinstance(value, Tensor):
            tensors[name] = value.contiguous()
        else:
            values[name] = value
    try:
        json.dumps(values)
    except TypeError as error:
        raise DataError(
            f"a batch cannot be handed to another process: {error}", "pass tensors and plain values"
        ) from None
    return tensors, values


def run_alone(
    model: nn.Module, tensors: Mapping[str, Tensor], values: Mapping[str, Any], device: torch.device
) -> Tensor:
    """The logits that a transformers model gives for the arguments of ``split_call``."""
    call = moved({**tensors, **values}, device, floating_dtype(model))
    args = [call.pop(name) for name in sorted(filter(str.isdigit, call), key=int)]
    logits: Tensor = model(*args, **call).logits
    return logits


def _difference(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("nan")
    return float((a.double() - b.double()).abs().max()) if a.numel() else 0.0


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}
