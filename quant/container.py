"""What every kind of export promises before anything is quantized."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import nn

from bitfront.errors import ExportError
from bitfront.types import Layer, Scheme

from .costs import other_bytes
from .stored import KEEP, STORED, Tensors


class Container(ABC):
    """What a model with chosen layers quantized is written to. Stateless, without weights.

    So what a container holds, and in how many bytes, is known before anything is quantized.
    """

    name: ClassVar[str]

    @abstractmethod
    def reason(self, layer: Layer, scheme: Scheme) -> str | None:
        """Why this container cannot hold ``layer`` under ``scheme``; None if it can."""

    def reason_model(self, model: nn.Module) -> str | None:
        """Why this container cannot hold ``model`` at all; None if it can."""
        return None

    def require(self, model: nn.Module) -> None:
        """Raises ``ExportError`` for a model that this container cannot hold."""
        if (reason := self.reason_model(model)) is not None:
            raise ExportError(f"{self.name} cannot hold a {type(model).__name__}", reason)

    def stored(self, layer: Layer, scheme: Scheme) -> Tensors:
        """What stands in the file for the layer, bias excluded; nothing for a weight shared.

        A weight that is kept has its own shape in the file; here it is (rows, cols), as many bytes.
        """
        return STORED[self.name](layer, scheme)

    def other_bytes(self, model: nn.Module, layers: Sequence[Layer]) -> int:
        """Bytes of every tensor that is no weight of ``layers``."""
        return other_bytes(model, layers)

    def completed(
        self, model: nn.Module, layers: Sequence[Layer], schemes: Mapping[str, Scheme]
    ) -> dict[str, Scheme]:
        """A scheme for each layer, ``keep`` for those without one.

        Raises ``ExportError`` for pairs or a model that the container cannot hold.
        """
        chosen = {layer.name: schemes.get(layer.name, KEEP) for layer in layers} | dict(schemes)
        self.require(model)
        named = {layer.name for layer in layers}
        for name in chosen:
            if name not in named:
                raise ExportError(f"a scheme for {name!r}", "the model has no such layer")
        for layer in layers:
            scheme = chosen[layer.name]
            reason = self.reason(layer, scheme)
            if reason is not None:
                raise ExportError(f"{self.name} cannot hold {layer.name!r} as {scheme}", reason)
            if layer.shares is not None and chosen.get(layer.shares, KEEP) != scheme:
                raise ExportError(
                    f"{layer.name!r} as {scheme} shares its weight with {layer.shares!r}",
                    "give both the same scheme",
                )
        return chosen
