"""``bitfront.load``: a ``safetensors`` export put into a freshly made model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bitfront.errors import ExportError, ModelError
from bitfront.types import Layer, Scheme

from .export_base import KEEP, identity, read_manifest, tensors_of
from .formats import dequantize
from .layers import adapter_for, adapter_of
from .packed import from_tensors
from .stored import in_safetensors, tensor_name
from .surgery import cache_hook, input_hook, output_hook
from .tensorfiles import Spec, TensorFolder, dtype_name

M = TypeVar("M", bound=nn.Module)

# module -> hook that quantizes its input, so that loading twice does not quantize twice
_HOOKS: WeakKeyDictionary[nn.Module, list[RemovableHandle]] = WeakKeyDictionary()


def load(model: M, folder: str | Path) -> M:
    """Put the weights exported to ``folder`` into ``model``, in place, and return it.

    ``model`` is a model of the same architecture and dtypes as the one exported, on any device; its
    own weights are overwritten. Quantized weights come back as the values they stand for, and
    inputs of layers with activation schemes are quantized from now on.

    Nothing is changed unless everything fits. Raises ``ModelError`` for a model that is not the one
    exported (names, kinds, shapes, dtypes), and ``ExportError`` for a folder that is not whole.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest.exporter != "safetensors":
        raise ExportError(
            f"{folder.name!r} was exported as {manifest.exporter}",
            "open it with the runtime it was made for",
        )
    files = TensorFolder(folder)
    layers = manifest.layers
    plain = _check_files(files, layers)
    state = tensors_of(model)
    _check_layers(model, layers)
    _check_names(state, plain, layers, manifest.aliases)
    _check_plain(state, files.specs, plain)
    files.verify(manifest.digests)
    with torch.no_grad():
        for name in plain:
            state[name].copy_(files.read(name))
        for layer, scheme in layers:
            _load_layer(model, layer, scheme, files)
        for alias, owner in manifest.aliases.items():
            if identity(state[alias]) != identity(state[owner]):
                state[alias].copy_(state[owner])
    return model


def _load_layer(model: nn.Module, layer: Layer, scheme: Scheme, files: TensorFolder) -> None:
    module: Any = model.get_submodule(layer.name)
    for handle in _HOOKS.pop(module, ()):
        handle.remove()
    if scheme == KEEP:
        return  # among the model's own tensors
    tensors = {s: files.read(tensor_name(layer.name, s)) for s in in_safetensors(layer, scheme)}
    if layer.shares is None:
        quantized = from_tensors(layer, scheme, tensors)
        adapter_of(module).assign(module, dequantize(quantized.weight, module.weight.dtype))
    if scheme.activation is not None:
        step, zero = tensors.get("input_scale"), tensors.get("input_zero")
        if step is not None:
            step = step.to(module.weight.device)
        hook = input_hook(
            layer.name, scheme.activation, layer.kind, step, None if zero is None else int(zero)
        )
        _HOOKS.setdefault(module, []).append(
            module.register_forward_pre_hook(hook, with_kwargs=True)
        )
        if scheme.activation.output:  # of a layer with a weight of its own
            rounding = output_hook(quantized, layer.kind)
            _HOOKS[module].append(module.register_forward_hook(rounding))
    if scheme.cache is not None and layer.cached:
        handle = module.register_forward_hook(cache_hook(scheme, layer.head))
        _HOOKS.setdefault(module, []).append(handle)


def _check_files(files: TensorFolder, layers: Iterable[tuple[Layer, Scheme]]) -> list[str]:
    """Names of the tensors that belong to no quantized layer."""
    plain = dict(files.specs)
    for layer, scheme in layers:
        if scheme == KEEP:
            continue  # among the model's own tensors, in its own shape
        for suffix, (dtype, shape) in in_safetensors(layer, scheme).items():
            name = tensor_name(layer.name, suffix)
            if plain.pop(name, None) != Spec(name, dtype, shape):
                raise ExportError(
                    f"tensor {name!r} is missing or not {dtype} {shape}", "export the model again"
                )
    return list(plain)


def _check_layers(model: nn.Module, layers: Iterable[tuple[Layer, Scheme]]) -> None:
    for layer, _ in layers:
        try:
            module = model.get_submodule(layer.name)
        except AttributeError:
            raise _wrong(f"it has no layer {layer.name!r}") from None
        adapter = adapter_for(module)
        kind = adapter.kind if adapter is not None else type(module).__name__
        if adapter is None or kind != layer.kind:
            raise _wrong(f"layer {layer.name!r} is a {kind}, in the export a {layer.kind}")
        matrix = adapter.matrix(module)
        if tuple(matrix.shape) != (layer.rows, layer.cols):
            raise _wrong(
                f"layer {layer.name!r} has weights {tuple(matrix.shape)}, in the export"
                f" {(layer.rows, layer.cols)}"
            )
        if str(matrix.dtype) != f"torch.{layer.dtype}":
            raise _wrong(f"layer {layer.name!r} is {matrix.dtype}, in the export {layer.dtype}")


def _check_names(
    state: Mapping[str, Tensor],
    plain: Iterable[str],
    layers: Iterable[tuple[Layer, Scheme]],
    aliases: Mapping[str, Any],
) -> None:
    weights = {
        tensor_name(layer.name, "weight")
        for layer, scheme in layers
        if scheme != KEEP and layer.shares is None
    }
    exported = {*plain, *weights, *aliases}
    for name in sorted(exported - set(state)):
        raise _wrong(f"it has no tensor {name!r}")
    for name in sorted(set(state) - exported):
        raise _wrong(f"the export has no tensor {name!r}")


def _check_plain(
    state: Mapping[str, Tensor], specs: Mapping[str, Spec], plain: Iterable[str]
) -> None:
    for name in plain:
        spec = specs[name]
        found = (dtype_name(state[name].dtype), tuple(state[name].shape))
        if found != (spec.dtype, spec.shape):
            raise _wrong(f"tensor {name!r} is {found}, in the export {(spec.dtype, spec.shape)}")


def _wrong(what: str) -> ModelError:
    return ModelError(
        f"the model is not the one exported: {what}", "make one of the same architecture and dtype"
    )
