"""Everything that a model can be exported to. A new container is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from bitfront.registry import Registry
from bitfront.types import Layer, Scheme

from .container import Container
from .export_base import KEEP, Exporter, Loadable
from .export_compressed import CompressedTensors, vllm_notes
from .export_diffusers import Diffusers
from .export_gguf import Gguf
from .export_onnx import Onnx
from .export_safetensors import Safetensors
from .tensorfiles import SHARD_BYTES, Spec, tensor_bytes

EXPORTERS: Registry[Container] = Registry("exporter")
EXPORTERS.register(Safetensors.name)(Safetensors())
EXPORTERS.register(CompressedTensors.name)(CompressedTensors())
EXPORTERS.register(Onnx.name)(Onnx())
EXPORTERS.register(Diffusers.name)(Diffusers())
EXPORTERS.register(Gguf.name)(Gguf())


def predicted_bytes(
    exporter: Container, model: nn.Module, layers: Sequence[Layer], schemes: Mapping[str, Scheme]
) -> int:
    """Tensor bytes of the export of ``model``, known before anything is quantized.

    Layers without a scheme are kept. Equals ``tensor_bytes`` of a folder of tensors exactly; a
    graph may hold other tensors than the model does besides its layers'. Raises ``ExportError`` for
    a model that the container cannot hold.
    """
    exporter.require(model)
    stored = (exporter.stored(layer, schemes.get(layer.name, KEEP)) for layer in layers)
    packed = sum(Spec("", *tensor).size for tensors in stored for tensor in tensors.values())
    return packed + exporter.other_bytes(model, layers)


__all__ = [
    "EXPORTERS",
    "SHARD_BYTES",
    "Container",
    "Exporter",
    "Loadable",
    "predicted_bytes",
    "tensor_bytes",
    "vllm_notes",
]
