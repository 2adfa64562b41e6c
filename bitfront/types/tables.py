"""Tables over layers and schemes: sensitivities, what they leave out, and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import ProblemError

from .arrays import Bool, Float, frozen
from .conversions import Conversions


@dataclass(frozen=True, eq=False)
class Sensitivities:
    """Estimated increase of one metric when one layer takes one scheme.

    values, stderr: (L, C); nan where a layer cannot take a scheme.
    samples: the number of calibration samples behind each value.
    notes: what a reader should know (estimator, temperature, effective number of samples).
    classes: of each layer its class, where each class has an objective of its own; else empty.
    target: the metric of the task that ``metric`` stands for, where it is none of the task's.
    """

    metric: str
    layers: tuple[str, ...]
    schemes: tuple[str, ...]
    values: Float
    stderr: Float
    samples: int
    profiler: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    target: str = ""

    def __post_init__(self) -> None:
        shape = (len(self.layers), len(self.schemes))
        for name in ("values", "stderr"):
            table = frozen(getattr(self, name))
            if table.shape != shape:
                raise ProblemError(f"{name} has shape {table.shape}", f"expected {shape}")
            object.__setattr__(self, name, table)
        object.__setattr__(self, "notes", MappingProxyType(dict(self.notes)))

    def at(self, layer: str, scheme: str) -> float:
        """The value of one pair. Raises ``ValueError`` when the table has no such pair."""
        return float(self.values[self.layers.index(layer), self.schemes.index(scheme)])


@dataclass(frozen=True, eq=False)
class Interactions:
    """What layers add to each other's loss, as inner products of per-sample vectors.

    vectors: (L, C, n) float32, scaled so that v[l,c] · v[m,d] is what layer l under c and layer m
    under d add together beyond what each adds alone; nan where a layer cannot take a scheme.
    shrink: 0 to 1, what the products are multiplied by: how far they are believed. notes: what a
    reader should know. Takes 4·L·C·n bytes; the (L·C)² products are never made.
    """

    layers: tuple[str, ...]
    schemes: tuple[str, ...]
    vectors: NDArray[np.float32]
    shrink: float
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.layers), len(self.schemes))
        vectors = frozen(self.vectors, np.float32)
        if vectors.ndim != 3 or vectors.shape[:2] != shape:
            raise ProblemError(
                f"vectors of interactions have shape {vectors.shape}", f"expected {shape} + (n,)"
            )
        if not 0 <= self.shrink <= 1:
            raise ProblemError(f"shrink {self.shrink}", "give a number from 0 to 1")
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "notes", MappingProxyType(dict(self.notes)))

    @cached_property
    def known(self) -> Bool:
        """(L, C) where the vectors are finite."""
        return frozen(np.isfinite(self.vectors).all(axis=2), np.bool_)

    def of(self, choice: Sequence[int]) -> float:
        """What scheme indices ``choice`` (length L) add beyond the layers' own losses.

        shrink · Σ_{l<m} v[l] · v[m] over the chosen vectors, from their sum: ½ (|Σ v|² - Σ |v|²).
        """
        chosen = self.vectors[np.arange(len(self.layers)), np.asarray(choice)].astype(np.float64)
        whole = chosen.sum(axis=0)
        return self.shrink * 0.5 * (float(whole @ whole) - float(np.square(chosen).sum()))


@dataclass(frozen=True, eq=False)
class Part:
    """One of the sums that a total is the greatest of: ``fixed``, and a ``table`` (L, C)."""

    fixed: float
    table: Float

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", frozen(self.table))


@dataclass(frozen=True, eq=False)
class Costs:
    """What each layer costs under each scheme, per resource, and what everything else costs.

    tables: resource -> (L, C), nan where a layer cannot take a scheme.
    fixed: resource -> total of everything that is not an allocated layer (norms, biases, layers
        kept out); ``bits`` and ``stored_bits`` count only what is in the declared denominator.
    full: resource -> total of the full-precision model, fixed part included; nan if unknown.
    weights: number of weights that average bits are taken over (the declared denominator).
    reasons: (layer, scheme) -> why the layer cannot take the scheme.
    unquantized: resource -> (L,), each layer's cost in full precision; nan if unknown.
    counts: (L,) number of weights of each layer, 0 of those that are counted elsewhere.
    classes: layer -> its class, for limits on classes.
    peaks: resource -> the sums whose greatest is its total, for resources that are no sum.
    conversions: resource -> what its total has more, of pairs of layers.
    """

    layers: tuple[str, ...]
    schemes: tuple[str, ...]
    tables: Mapping[str, Float]
    fixed: Mapping[str, float]
    full: Mapping[str, float]
    weights: int
    reasons: Mapping[tuple[str, str], str] = field(default_factory=dict)
    unquantized: Mapping[str, Float] = field(default_factory=dict)
    counts: Float = None  # type: ignore[assignment]  # zeros, once checked
    classes: Mapping[str, str] = field(default_factory=dict)
    peaks: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)
    conversions: Mapping[str, Conversions] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.layers), len(self.schemes))
        tables = {name: frozen(table) for name, table in self.tables.items()}
        for name, table in tables.items():
            if table.shape != shape:
                raise ProblemError(f"costs of {name} have shape {table.shape}", f"expected {shape}")
        counts = np.zeros(len(self.layers)) if self.counts is None else self.counts
        object.__setattr__(self, "tables", MappingProxyType(tables))
        object.__setattr__(self, "counts", frozen(counts))
        for name in ("fixed", "full", "reasons", "unquantized", "classes", "peaks", "conversions"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def total(self, choice: Mapping[str, str]) -> dict[str, float]:
        """Resource -> total of the whole model when each layer takes its scheme in ``choice``."""
        picks = [self.schemes.index(choice[layer]) for layer in self.layers]
        rows = np.arange(len(self.layers))
        sums = {
            name: float(table[rows, picks].sum() + self.fixed.get(name, 0.0))
            for name, table in self.tables.items()
        }
        for name, found in self.conversions.items():
            sums[name] += found.total(picks)
        peaks = {
            name: max(part.fixed + float(part.table[rows, picks].sum()) for part in parts)
            for name, parts in self.peaks.items()
        }
        return sums | peaks
