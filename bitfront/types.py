"""What crosses a room's border: frozen values over numpy, never a tensor.

L layers, C schemes, N calibration samples. Tables are float64 arrays (L, C), read-only.
Sensitivities are in the metric's unit (nats for KL), costs in their resource's:
bytes, bits, stored_bits (bits with scales and zero points), bops, seconds.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.budget import Budget
from bitfront.errors import ProblemError
from bitfront.scheme import Activation, Scheme, parse_schemes

__all__ = [
    "Activation",
    "Allocation",
    "Budget",
    "Costs",
    "Estimate",
    "Interactions",
    "Layer",
    "Measurement",
    "Part",
    "Problem",
    "Scheme",
    "Sensitivities",
    "Trial",
    "content_key",
    "parse_schemes",
]

DTYPE_BITS = {"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16}

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


def frozen(array: Any, dtype: Any = np.float64) -> NDArray[Any]:
    """A read-only copy of ``array``, or itself where it is one: tables may be large."""
    owned = isinstance(array, np.ndarray) and array.base is None and array.dtype == dtype
    if owned and not array.flags.writeable:
        return array
    copy = np.array(array, dtype=dtype)
    copy.setflags(write=False)
    return copy


def content_key(value: Any) -> str:
    """SHA-256 (hex) of a JSON-like value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Layer:
    """A quantizable module, as the rooms without torch see it.

    The weight is seen as a matrix (``rows``, ``cols``): output channels × inputs of one channel
    (input channels per group × kernel for convolutions, tokens × width for embeddings).
    """

    name: str
    kind: str  # linear, hf_conv1d, conv1d, conv2d, conv_transpose1d, conv_transpose2d, embedding
    rows: int
    cols: int
    dtype: str = "float32"  # of the weight in the full model: float32, float16, bfloat16, float64
    bias: int = 0  # number of bias elements, never quantized
    macs: int = 0  # multiply-accumulates of one sample, summed over all calls in a forward
    role: str = "body"  # body, embedding or head
    shares: str | None = None  # the layer whose weight tensor this one uses too (counted there)
    flat: bool = False  # it is given single vectors, (N, K) or (N, 1, K), not tokens (N, T, K)
    attention: str = ""  # of attention with a cache: its query, key or value projection, or fused
    head: int = 0  # outputs of a key or value projection that one head has

    @property
    def weights(self) -> int:
        """Number of weight elements."""
        return self.rows * self.cols

    @property
    def cached(self) -> bool:
        """Whether its output is what attention caches."""
        return self.attention in ("key", "value")

    @property
    def width(self) -> int:
        """Bits of one weight in the full model."""
        return DTYPE_BITS[self.dtype]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over samples, with its standard error (0 if exact, nan if unknown)."""

    value: float
    stderr: float
    samples: int


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

    def __post_init__(self) -> None:
        shape = (len(self.layers), len(self.schemes))
        tables = {name: frozen(table) for name, table in self.tables.items()}
        for name, table in tables.items():
            if table.shape != shape:
                raise ProblemError(f"costs of {name} have shape {table.shape}", f"expected {shape}")
        counts = np.zeros(len(self.layers)) if self.counts is None else self.counts
        object.__setattr__(self, "tables", MappingProxyType(tables))
        object.__setattr__(self, "counts", frozen(counts))
        for name in ("fixed", "full", "reasons", "unquantized", "classes", "peaks"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def total(self, choice: Mapping[str, str]) -> dict[str, float]:
        """Resource -> total of the whole model when each layer takes its scheme in ``choice``."""
        picks = [self.schemes.index(choice[layer]) for layer in self.layers]
        rows = np.arange(len(self.layers))
        sums = {
            name: float(table[rows, picks].sum() + self.fixed.get(name, 0.0))
            for name, table in self.tables.items()
        }
        peaks = {
            name: max(part.fixed + float(part.table[rows, picks].sum()) for part in parts)
            for name, parts in self.peaks.items()
        }
        return sums | peaks


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
class Problem:
    """A multiple-choice knapsack: one scheme per layer, least total loss, costs within limits.

    loss: (L, C). costs: resource -> (L, C). limits, floors: resource -> greatest and least total,
    fixed part included. fixed: resource -> what everything else costs. allowed: (L, C), False where
    a scheme is barred (by a pin, or because the layer cannot take it); entries of loss and costs
    there are ignored. groups: disjoint tuples of layer indices that must take the same scheme;
    layers in no group stand alone. interactions: of the same layers and schemes, for the
    solver ``quadratic``; all others minimize the loss alone.
    """

    layers: tuple[str, ...]
    schemes: tuple[str, ...]
    loss: Float
    costs: Mapping[str, Float]
    limits: Mapping[str, float]
    fixed: Mapping[str, float] = field(default_factory=dict)
    allowed: Bool = None  # type: ignore[assignment]  # all, once checked
    groups: tuple[tuple[int, ...], ...] = ()
    floors: Mapping[str, float] = field(default_factory=dict)
    interactions: Interactions | None = None

    def __post_init__(self) -> None:
        L, C = shape = (len(self.layers), len(self.schemes))
        if not L or not C:
            raise ProblemError(f"a problem of {L} layers and {C} schemes", "give at least one each")
        allowed = frozen(np.ones(shape) if self.allowed is None else self.allowed, np.bool_)
        loss = frozen(self.loss)
        costs = {name: frozen(table) for name, table in self.costs.items()}
        tables = {
            "loss": loss,
            "allowed": allowed,
            **{f"costs of {k}": v for k, v in costs.items()},
        }
        for name, table in tables.items():
            if table.shape != shape:
                raise ProblemError(f"{name} has shape {table.shape}", f"expected {shape}")
            bad = np.argwhere(allowed & ~np.isfinite(table))
            if len(bad):
                layer, scheme = self.layers[bad[0][0]], self.schemes[bad[0][1]]
                raise ProblemError(
                    f"{name} of layer {layer!r} under {scheme!r} is {table[tuple(bad[0])]}",
                    "every allowed entry must be a finite number",
                )
        for kind, bounds in (("limit", self.limits), ("floor", self.floors)):
            for resource, bound in bounds.items():
                if resource not in costs:
                    known = ", ".join(costs) or "no costs at all"
                    raise ProblemError(f"a {kind} on {resource!r}", f"the problem has {known}")
                if not np.isfinite(bound):
                    raise ProblemError(
                        f"the {kind} on {resource} is {bound}", "give a finite number"
                    )
        for resource in self.limits.keys() & self.floors.keys():
            if self.floors[resource] > self.limits[resource]:
                raise ProblemError(
                    f"{resource} of at least {self.floors[resource]:.12g} and at most "
                    f"{self.limits[resource]:.12g}",
                    "no total is both: exchange the two, or leave one out",
                )
        seen: set[int] = set()
        for group in self.groups:
            for index in group:
                if not 0 <= index < L or index in seen:
                    raise ProblemError(
                        f"layer index {index} in group {group}",
                        f"groups are disjoint sets of indices from 0 to {L - 1}",
                    )
                seen.add(index)
        self._check_interactions(allowed)
        set_ = object.__setattr__
        set_(self, "loss", loss)
        set_(self, "allowed", allowed)
        set_(self, "costs", MappingProxyType(costs))
        for name in ("limits", "floors", "fixed"):
            numbers = {k: float(v) for k, v in getattr(self, name).items()}
            set_(self, name, MappingProxyType(numbers))

    def _check_interactions(self, allowed: Bool) -> None:
        found = self.interactions
        if found is None:
            return
        if (found.layers, found.schemes) != (self.layers, self.schemes):
            raise ProblemError(
                "interactions of other layers or schemes than the problem's",
                "give them in the problem's order",
            )
        bad = np.argwhere(allowed & ~found.known)
        if len(bad):
            layer, scheme = self.layers[bad[0][0]], self.schemes[bad[0][1]]
            raise ProblemError(
                f"the vector of layer {layer!r} under {scheme!r} is not finite",
                "every allowed pair needs a vector of finite numbers",
            )

    def total_loss(self, schemes: Mapping[str, str]) -> float:
        """Of an allocation, layer -> scheme."""
        picks = self._picks(schemes)
        return math.fsum(row[j] for j, row in zip(picks, self.loss, strict=True))

    def objective(self, schemes: Mapping[str, str]) -> float:
        """``total_loss`` of an allocation and what its layers add to each other, if known."""
        loss = self.total_loss(schemes)
        return (
            loss if self.interactions is None else loss + self.interactions.of(self._picks(schemes))
        )

    def _picks(self, schemes: Mapping[str, str]) -> list[int]:
        index = {scheme: j for j, scheme in enumerate(self.schemes)}
        return [index[schemes[layer]] for layer in self.layers]

    def totals(self, choice: Sequence[int]) -> dict[str, float]:
        """Resource -> total cost, fixed part included, of scheme indices ``choice`` (length L)."""
        rows = np.arange(len(self.layers))
        return {
            name: float(table[rows, np.asarray(choice)].sum() + self.fixed.get(name, 0.0))
            for name, table in self.costs.items()
        }


@dataclass(frozen=True, eq=False)
class Allocation:
    """One scheme per layer, as an allocator returns it.

    choice: scheme per layer, in the problem's order. loss: predicted total, from ``quadratic`` with
    what layers add to each other (``Problem.objective``). costs: resource -> total, fixed part
    included. bound: proven lower bound on the least loss (nan if the allocator
    proves none). gap: loss - bound. optimal: whether the gap is proven to be 0 up to rounding;
    from ``search.cheapest``, whether the cost is proven least (bound and gap are nan there).
    """

    layers: tuple[str, ...]
    choice: tuple[str, ...]
    loss: float
    costs: Mapping[str, float]
    bound: float
    gap: float
    optimal: bool
    seconds: float
    solver: str

    @property
    def schemes(self) -> dict[str, str]:
        """Layer -> scheme."""
        return dict(zip(self.layers, self.choice, strict=True))


@dataclass(frozen=True, eq=False)
class Measurement:
    """One profiled (layer, scheme) pair: the unit of work, found again by its content.

    settings: content key of the profiler's settings. values: metric -> estimate of its increase.
    vectors: name -> per-sample array (N,), kept for interactions and bootstraps.
    seconds: what it took (a share of the pass when one pass measured many pairs).
    """

    profiler: str
    settings: str
    layer: str
    scheme: str
    values: Mapping[str, Estimate]
    vectors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Trial:
    """An allocation that was built and measured.

    schemes: layer -> scheme. predicted: total of the sensitivities it was chosen by, nan for a
    baseline chosen without. costs: resource -> total. metrics: name -> estimate on the evaluation
    data. settings: what else made it (solver, seed, budgets, profiler, denominator).
    id: 0 until stored.
    """

    schemes: Mapping[str, str]
    solver: str
    predicted: float
    bound: float
    costs: Mapping[str, float]
    metrics: Mapping[str, Estimate]
    seconds: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    id: int = 0
    created: str = ""  # ISO 8601, UTC

    @property
    def key(self) -> str:
        """Content key of the allocation: equal for equal schemes, whoever chose them."""
        return content_key(dict(self.schemes))

    @property
    def expected(self) -> float:
        """The loss on the calibration data that was expected before it was measured there.

        In the unit of the metric's worsening; nan where nothing was.
        """
        return float(self.settings.get("expected", math.nan))


def closure(pairs: Iterable[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Disjoint groups from overlapping sets of indices that must agree, in order."""
    groups: list[set[int]] = []
    for pair in pairs:
        merged = set(pair)
        apart = []
        for group in groups:
            if group & merged:
                merged |= group
            else:
                apart.append(group)
        groups = [*apart, merged]
    return tuple(sorted(tuple(sorted(g)) for g in groups))
