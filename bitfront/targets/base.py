"""What a target says of itself: a runtime on a device, what it can run, and how long that takes.

    NAME[:SHAPE]     SHAPE = "b" samples [ "s" tokens ] [ "p" past ] [ "t" threads ]

``ort-cpu:b1s128t2`` is ONNX Runtime on this machine's processors with one text of 128 tokens, on
two threads; ``ort-cpu:b1s1p500`` one token after 500 whose keys and values are cached. The resource
that it counts is ``seconds@`` and that spelling.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from bitfront.budget import SECONDS
from bitfront.errors import InvalidInput
from bitfront.interleaving import Run, processors
from bitfront.types import Layer, Place, Scheme

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bitfront.quant.onnx_trace import Signature
    from bitfront.tasks.running import ModelTask

LATENCY = "latency"  # seconds of whole models, measured

_SHAPE = re.compile(
    r"b(?P<batch>\d{1,6})(?:s(?P<tokens>\d{1,7}))?(?:p(?P<past>\d{1,7}))?"
    r"(?:t(?P<threads>\d{1,4}))?"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a call. batch: samples. tokens: of a text, None for the evaluation data's. past: tokens
    before them, in a cache. threads: None for as many as there are processors."""

    batch: int
    tokens: int | None = None
    past: int | None = None
    threads: int | None = None

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Raises ``InvalidInput`` for what is none."""
        match = _SHAPE.fullmatch(text)
        found = {n: int(v) for n, v in match.groupdict().items() if v} if match else {}
        if not found or 0 in found.values():
            raise InvalidInput(
                f"cannot read the shape {text!r}", "write it like b1, b8t2 or, of texts, b1s128"
            )
        return cls(**found)

    def __str__(self) -> str:
        tokens = "" if self.tokens is None else f"s{self.tokens}"
        past = "" if self.past is None else f"p{self.past}"
        return f"b{self.batch}{tokens}{past}{'' if self.threads is None else f't{self.threads}'}"

    @property
    def used(self) -> int:
        """Threads that work."""
        return processors() if self.threads is None else self.threads

    @property
    def sizes(self) -> str:
        """The shape without threads."""
        return str(Shape(self.batch, self.tokens, self.past))


class Handover(NamedTuple):
    """Two layers, of which one gets what the other gives, or both give what is then added; and the
    elements of that, of which it is a part where more layers have part in it."""

    one: str
    other: str
    elements: float


class Target(ABC):
    """A runtime on a device. Stateless."""

    name: ClassVar[str]
    container: ClassVar[str]  # the exporter whose files it loads
    candidates: ClassVar[str]  # schemes that are worth trying, where none are asked for

    def reason(self, layer: Layer, scheme: Scheme) -> str | None:
        """Why it cannot run ``layer`` under ``scheme``; None if it can."""
        from bitfront.quant.exporters import EXPORTERS

        return EXPORTERS[self.container].reason(layer, scheme)


class Timed(Target):
    """A target whose kernels can be timed in this process."""

    @abstractmethod
    def place(self, threads: int) -> Place:
        """Where it is timed. Raises ``ExportError`` where its packages are not installed."""

    @abstractmethod
    def operator(self, layer: Layer, scheme: Scheme) -> str:
        """What computes the layer. Kernels of one operator are alike in what surrounds them."""

    @abstractmethod
    def nothing(self, threads: int) -> Run:
        """A call of the runtime that computes nothing: what every call takes besides its work."""

    @abstractmethod
    def kernel(
        self, layer: Layer, module: nn.Module, scheme: Scheme, x: Tensor, threads: int
    ) -> Run:
        """A call of the layer alone, on ``x``."""

    @abstractmethod
    def frame(self, task: ModelTask, called: Signature) -> Any:
        """What all allocations of a model have in common, made once. Raises ``ExportError``."""

    @abstractmethod
    def model(
        self,
        frame: Any,
        model: nn.Module,
        layers: Sequence[Layer],
        schemes: Mapping[str, Scheme],
        inputs: Mapping[str, Tensor],
        threads: int,
    ) -> Run:
        """A call of the whole model, each layer under its scheme, with weights that stand in."""

    def apart(self, layer: Layer, scheme: Scheme) -> bool:
        """Whether its kernel keeps data in another layout than most, which is changed where a
        neighbour does not."""
        return False

    def handovers(
        self, frame: Any, inputs: Mapping[str, Sequence[int]], outputs: Mapping[str, Sequence[int]]
    ) -> list[Handover]:
        """Where layers meet that may keep data in different layouts.

        inputs, outputs: layer -> the number of elements in and out of each of its calls.
        """
        return []

    @abstractmethod
    def exported(self, folder: Path, inputs: Mapping[str, Tensor], threads: int) -> Run:
        """A call of the model that was exported to ``folder``. Raises ``ExportError``."""


@dataclass(frozen=True)
class Aimed:
    """A target, and the shape that it is timed at; None where only what it can run counts."""

    target: Target
    shape: Shape | None

    def __str__(self) -> str:
        return self.target.name if self.shape is None else f"{self.target.name}:{self.shape}"

    @property
    def resource(self) -> str:
        """The resource that it counts."""
        return f"{SECONDS}@{self}"

    @property
    def measured(self) -> str:
        """The cost that a trial has once its whole model was timed."""
        return f"{LATENCY}@{self}"
