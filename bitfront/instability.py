"""How much an allocation owes to luck: what draws of the same data would have allocated.

    a, a_b    allocations within the same budgets, of a table and of its replica b (bootstrap.py)
    n_l       weights of layer l, one of those that have a choice; shared tensors count once
    f         total loss by the table itself
    changed   mean over b of Σ n_l [a_b,l ≠ a_l] / Σ n_l      the share that takes another scheme
    excess    mean over b of (f(a_b) - f(a)) / |f(a)|         what that would have cost

A change between schemes that are as good as each other is a change without excess.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    changed, excess: as above; nan where errors are unknown. allocation: layer -> scheme, of the
    table itself.
    """

    budgets: tuple[Budget, ...]
    changed: float
    excess: float
    allocation: dict[str, str]


def instability(
    table: Sensitivities,
    replicas: NDArray[np.float64] | None,
    costs: Costs,
    selection: Selection,
    budgets: tuple[Budget, ...],
    solver: str,
) -> Instability:
    """How much the allocation of ``table`` changes over ``replicas`` (B, L, C); None if unknown.

    Raises what ``build_problem`` and the solver raise.
    """

    def problem(t: Sensitivities) -> Problem:
        return build_problem(t, costs, budgets, groups=selection.groups, pins=selection.pins)

    whole = problem(table)
    allocation = allocate(whole, solver).schemes
    if replicas is None:
        return Instability(budgets, float("nan"), float("nan"), allocation)
    weights = _weights(selection, whole)
    least = whole.total_loss(allocation)
    changed, excess = [], []
    for values in replicas:
        other = allocate(problem(replace(table, values=values)), solver).schemes
        moved = sum(n for name, n in weights.items() if other[name] != allocation[name])
        changed.append(moved / max(1, sum(weights.values())))
        excess.append(_relative(whole.total_loss(other) - least, least))
    return Instability(budgets, float(np.mean(changed)), float(np.mean(excess)), allocation)


def _weights(selection: Selection, problem: Problem) -> dict[str, int]:
    """Layer -> weights, of layers that may take several schemes."""
    several = dict(zip(problem.layers, problem.allowed.sum(1) > 1, strict=True))
    return {
        layer.name: 0 if layer.shares in several else layer.weights
        for layer in selection.layers
        if several[layer.name]
    }


def _relative(difference: float, to: float) -> float:
    if not difference:
        return 0.0
    return difference / abs(to) if to else float("inf")


def settled(points: Sequence[Instability], until: float) -> bool:
    """Whether at every point at most the share ``until`` changes."""
    return all(point.changed <= until for point in points)
