"""What an allocator is given, and what it returns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import ProblemError

from .arrays import Bool, Float, frozen
from .conversions import Conversions
from .tables import Interactions


@dataclass(frozen=True, eq=False)
class Problem:
    """A multiple-choice knapsack: one scheme per layer, least total loss, costs within limits.

    loss: (L, C). costs: resource -> (L, C). limits, floors: resource -> greatest and least total,
    fixed part included. fixed: resource -> what everything else costs. allowed: (L, C), False where
    a scheme is barred (by a pin, or because the layer cannot take it); entries of loss and costs
    there are ignored. groups: disjoint tuples of layer indices that must take the same scheme;
    layers in no group stand alone. interactions: of the same layers and schemes, for the
    solver ``quadratic``; all others minimize the loss alone. conversions: resource -> what its
    total has more, which counts against a limit; a floor is of the costs alone.
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
    conversions: Mapping[str, Conversions] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.layers), len(self.schemes))
        allowed = np.ones(shape) if self.allowed is None else self.allowed
        costs = {name: frozen(table) for name, table in self.costs.items()}
        set_ = object.__setattr__
        set_(self, "allowed", frozen(allowed, np.bool_))
        set_(self, "loss", frozen(self.loss))
        set_(self, "costs", MappingProxyType(costs))
        for name in ("limits", "floors", "fixed"):
            numbers = {k: float(v) for k, v in getattr(self, name).items()}
            set_(self, name, MappingProxyType(numbers))
        set_(self, "conversions", MappingProxyType(dict(self.conversions)))
        self._check_tables(shape)
        self._check_bounds()
        self._check_groups()
        self._check_interactions()
        for resource, found in self.conversions.items():
            if resource not in self.costs or found.other.shape != shape:
                raise ProblemError(
                    f"conversions of {resource}, of {found.other.shape} layers and schemes",
                    f"give them for a resource that has costs, of {shape}",
                )

    def _check_tables(self, shape: tuple[int, int]) -> None:
        if 0 in shape:
            raise ProblemError(
                f"a problem of {shape[0]} layers and {shape[1]} schemes", "give at least one each"
            )
        costs = {f"costs of {name}": table for name, table in self.costs.items()}
        for name, table in {"allowed": self.allowed, "loss": self.loss, **costs}.items():
            if table.shape != shape:
                raise ProblemError(f"{name} has shape {table.shape}", f"expected {shape}")
            bad = np.argwhere(self.allowed & ~np.isfinite(table))
            if len(bad):
                layer, scheme = self._pair(bad[0])
                raise ProblemError(
                    f"{name} of layer {layer!r} under {scheme!r} is {table[tuple(bad[0])]}",
                    "every allowed entry must be a finite number",
                )

    def _check_bounds(self) -> None:
        for kind, bounds in (("limit", self.limits), ("floor", self.floors)):
            for resource, bound in bounds.items():
                if resource not in self.costs:
                    known = ", ".join(self.costs) or "no costs at all"
                    raise ProblemError(f"a {kind} on {resource!r}", f"the problem has {known}")
                if not math.isfinite(bound):
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

    def _check_groups(self) -> None:
        seen: set[int] = set()
        for group in self.groups:
            for index in group:
                if not 0 <= index < len(self.layers) or index in seen:
                    raise ProblemError(
                        f"layer index {index} in group {group}",
                        f"groups are disjoint sets of indices from 0 to {len(self.layers) - 1}",
                    )
                seen.add(index)

    def _check_interactions(self) -> None:
        found = self.interactions
        if found is None:
            return
        if (found.layers, found.schemes) != (self.layers, self.schemes):
            raise ProblemError(
                "interactions of other layers or schemes than the problem's",
                "give them in the problem's order",
            )
        bad = np.argwhere(self.allowed & ~found.known)
        if len(bad):
            layer, scheme = self._pair(bad[0])
            raise ProblemError(
                f"the vector of layer {layer!r} under {scheme!r} is not finite",
                "every allowed pair needs a vector of finite numbers",
            )

    def _pair(self, at: NDArray[np.intp]) -> tuple[str, str]:
        return self.layers[at[0]], self.schemes[at[1]]

    def total_loss(self, schemes: Mapping[str, str]) -> float:
        """Of an allocation, layer -> scheme."""
        picks = self._picks(schemes)
        return math.fsum(row[j] for j, row in zip(picks, self.loss, strict=True))

    def objective(self, schemes: Mapping[str, str]) -> float:
        """``total_loss`` of an allocation and what its layers add to each other, if known."""
        loss = self.total_loss(schemes)
        if self.interactions is None:
            return loss
        return loss + self.interactions.of(self._picks(schemes))

    def _picks(self, schemes: Mapping[str, str]) -> list[int]:
        index = {scheme: j for j, scheme in enumerate(self.schemes)}
        return [index[schemes[layer]] for layer in self.layers]

    def totals(self, choice: Sequence[int]) -> dict[str, float]:
        """Resource -> total cost, fixed part included, of scheme indices ``choice`` (length L)."""
        rows = np.arange(len(self.layers))
        return {
            name: float(
                table[rows, np.asarray(choice)].sum()
                + self.fixed.get(name, 0.0)
                + (self.conversions[name].total(choice) if name in self.conversions else 0.0)
            )
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
