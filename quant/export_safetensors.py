"""Any module as safetensors: packed weights at their true width, and a manifest to load them by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from bitfront.types import Layer, Scheme

from . import packed
from .export_base import Exporter
from .load import load
from .suitability import takes
from .weights import QuantizedLayer


class Safetensors(Exporter):
    """Every layer kind and every scheme (see ``packed``); ``bitfront.load`` reads it back."""

    name = "safetensors"
    stands_alone = False

    def reason(self, layer: Layer, scheme: Scheme) -> str | None:
        return takes(layer, scheme)

    def pack(self, layer: Layer, quantized: QuantizedLayer) -> Mapping[str, Tensor]:
        return packed.to_tensors(layer, quantized)

    def open(self, folder: Path, model: nn.Module | None = None) -> nn.Module:
        assert model is not None
        return load(model, folder)
