"""How much an allocation owes to luck: what draws of the same data would have allocated.

    a, a_b    allocations within the same budgets, of a table and of its replica b (bootstrap.py)
    n_l       weights of layer l, one of those that have a choice; shared tensors count once
    f         total loss by the table itself
    changed   mean over b of Σ n_l [a_b,l ≠ a_l] / Σ n_l      the share that takes another scheme
    excess    mean over b of (f(a_b) - f(a)) / |f(a)|         what that would have cost
    moved     Σ n_l [a_l ≠ a'_l] / Σ n_l, a' being the allocation that half the data gave

A change between schemes that are as good as each other is a change without excess. A solver that is
not exact can have an excess below 0.

Draws know the samples that there are: where a rare sample holds much of the score, a small part
that has none looks certain. ``moved`` looks at samples that were not there. A table of a part and
that of its half differ with the variance of a draw from the part: both may be as large.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitfront.problems import build_problem
from bitfront.search import allocate
from bitfront.tasks.selection import Selection
from bitfront.types import Budget, Costs, Problem, Sensitivities


@dataclass(frozen=True, eq=False)
class Instability:
    """Of one point of a sweep: budgets that hold together.

    changed, excess: as above; nan where errors are unknown. moved: nan where there was no half.
    allocation: layer -> scheme, of the table itself.
    """

    budgets: tuple[Budget, ...]
    changed: float
    excess: float
    moved: float
    allocation: dict[str, str]


def instability(
    table: Sensitivities,
    replicas: NDArray[np.float64] | None,
    costs: Costs,
    selection: Selection,
    budgets: tuple[Budget, ...],
    solver: str,
    before: Instability | None = None,
) -> Instability:
    """How much the allocation of ``table`` changes over ``replicas`` (B, L, C); None if unknown.

    before: that of half the data, if there is one. Raises what ``build_problem`` and the solver do.
    """

    def problem(t: Sensitivities) -> Problem:
        return build_problem(t, costs, budgets, groups=selection.groups, pins=selection.pins)

    whole = problem(table)
    chosen = allocate(whole, solver).schemes
    weights = _weights(selection, whole)
    moved = math.nan if before is None else _share(weights, chosen, before.allocation)
    if replicas is None:
        return Instability(budgets, math.nan, math.nan, moved, chosen)
    least = whole.total_loss(chosen)
    changed, excess = [], []
    for values in replicas:
        other = allocate(problem(replace(table, values=values)), solver).schemes
        changed.append(_share(weights, chosen, other))
        excess.append(_relative(whole.total_loss(other) - least, least))
    return Instability(budgets, float(np.mean(changed)), float(np.mean(excess)), moved, chosen)


def settled(points: Sequence[Instability], until: float) -> bool:
    """Whether at every point draws change at most the share ``until``."""
    return all(point.changed <= until for point in points)


def still(points: Sequence[Instability], until: float) -> bool:
    """Whether at every point half the data gave the same allocation, but for ``until`` of it."""
    return all(point.moved <= until for point in points)


def _weights(selection: Selection, problem: Problem) -> dict[str, int]:
    """Layer -> weights, of layers that may take several schemes."""
    several = dict(zip(problem.layers, problem.allowed.sum(1) > 1, strict=True))
    return {
        layer.name: 0 if layer.shares in several else layer.weights
        for layer in selection.layers
        if several[layer.name]
    }


def _share(weights: Mapping[str, int], a: Mapping[str, str], b: Mapping[str, str]) -> float:
    """Of the weights whose layers take different schemes in two allocations; 0 of none."""
    total = sum(weights.values())
    return sum(n for name, n in weights.items() if a[name] != b[name]) / total if total else 0.0


def _relative(difference: float, to: float) -> float:
    if not difference:
        return 0.0
    return difference / abs(to) if to else math.inf
