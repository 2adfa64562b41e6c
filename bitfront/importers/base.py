"""The contract of importers: a file of another program in, what it says of layers out.

An importer knows one file format: how it is recognised, what an entry is, and which scheme of
Bitfront's stands for which of its formats. It knows no model: which of the names are layers, and
how a score of several layers is shared out, is ``mapping``'s business. It runs nothing that is in a
file.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from bitfront.errors import InvalidInput
from bitfront.registry import Registry
from bitfront.scheme import Activation, Scheme

from .source import Source

IMPORTERS: Registry[type[Importer]] = Registry("format of scores")


@dataclass(frozen=True, slots=True)
class Score:
    """What one entry of a file says.

    layers: as the file names them. Several: ``value`` is of all of them taking the scheme together.
    A name with ``*`` stands for all layers that it matches. scheme: in words where Bitfront has
    none for the file's format. value: finite. stderr: nan if unknown. samples: 0 if unknown.
    """

    layers: tuple[str, ...]
    scheme: Scheme | str
    value: float
    stderr: float = math.nan
    samples: int = 0


@dataclass(frozen=True, eq=False)
class Scores:
    """What a file says.

    metric: ``kl`` for mean KL in nats, the file's own word where it has one, else a name that no
    task's metric has. unit: what the values are, in words. summed: KL added up over positions.
    per_million: values are for each million weights of their layer. last_axis: scales are of the
    weight's first axis, and groups along its last, whatever the kind of layer. run: equal for files
    of one run, which may be imported together. unscored: why an entry has no score -> how many.
    """

    metric: str
    unit: str
    scores: tuple[Score, ...]
    summed: bool = False
    per_million: bool = False
    last_axis: bool = False
    run: str = ""
    unscored: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What a user adds to a file.

    table: which of its tables (``csv``). schemes: what it does not say of them (``mlx-lm``).
    """

    table: str | None = None
    schemes: tuple[Scheme, ...] = ()


class Importer(ABC):
    """One file format. takes: the fields of ``Asked`` that it understands."""

    name: ClassVar[str]
    takes: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def recognises(self, source: Source) -> bool:
        """Whether the file looks like one of this format; reads no more than it has to."""

    @abstractmethod
    def read(self, source: Source, asked: Asked) -> Scores:
        """What the file says. Raises ``InvalidInput`` for one that is not of this format."""


def number(value: Any, of: str, least: float = -math.inf, most: float = math.inf) -> float:
    """``value``, once it is a finite number from ``least`` to ``most``; else ``InvalidInput``."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        found = float(value) if plain else math.nan
    except OverflowError:
        found = math.inf
    if not math.isfinite(found) or not least <= found <= most:
        limits = [f"at least {least:g}"] if math.isfinite(least) else []
        limits += [f"at most {most:g}"] if math.isfinite(most) else []
        wanted = " and ".join(["a finite number", *limits])
        raise InvalidInput(f"{of} is {shown(value)}", f"a score is {wanted}")
    return found


def shown(value: Any) -> str:
    """``value`` in an error, in one line and cut short."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}…"


def integer(bits: Any, **other: Any) -> Scheme | None:
    """The integer scheme of so many bits; None where there is none."""
    try:
        return Scheme("int", bits, **other) if type(bits) is int else None
    except InvalidInput:
        return None


def activation(bits: Any, static: bool) -> Activation | None:
    """Inputs of so many bits, with one step for all of them or for each token; None if there is
    no such format."""
    try:
        return Activation(bits, static) if type(bits) is int else None
    except InvalidInput:
        return None
