"""From tables, budgets, groups and pins to the one problem that an allocator is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from bitfront.errors import BudgetError, Infeasible, ProblemError
from bitfront.limits import in_units, rows
from bitfront.scheme import KEEP
from bitfront.search import allocate
from bitfront.types import Budget, Costs, Interactions, Problem, Sensitivities, closure


def points(budgets: Sequence[str | Budget]) -> list[tuple[Budget, ...]]:
    """Budgets on one resource are points of a sweep; budgets on different resources hold together.

    ``["3bpw", "4bpw", "2GBOPs"]`` gives two points, each with the limit on BOPs. Lower limits are
    no points, they hold with each. Raises ``BudgetError`` when there is none.
    """
    parsed = [b if isinstance(b, Budget) else Budget.parse(b) for b in budgets]
    if not parsed:
        raise BudgetError("no budget was given", "give at least one, like 40% or 3.5bpw")
    sweeps: dict[str, list[Budget]] = {}
    unique = list(dict.fromkeys(parsed))
    floors = [budget for budget in unique if budget.floor]
    for budget in unique:
        if not budget.floor:
            sweeps.setdefault(budget.resource, []).append(budget)
    return [(*point, *floors) for point in product(*sweeps.values())]


def build_problem(
    table: Sensitivities,
    costs: Costs,
    budgets: Sequence[Budget],
    *,
    groups: Sequence[Sequence[str]] = (),
    pins: Mapping[str, str] | None = None,
    interactions: Interactions | None = None,
) -> Problem:
    """The problem of ``table``, and of ``interactions``, under ``costs`` and ``budgets``.

    ``keep`` costs no loss where the table has no column of it, and interacts with nothing.

    A pair is allowed where costs know it and no pin bars it. Raises ``ProblemError`` for a layer
    that can take none of the schemes (with the reasons), and for an allowed pair without a
    sensitivity.
    """
    index = {name: i for i, name in enumerate(costs.layers)}
    order = [table.layers.index(name) for name in costs.layers]
    loss = np.zeros((len(costs.layers), len(costs.schemes)))
    for j, scheme in enumerate(costs.schemes):
        if scheme in table.schemes:
            loss[:, j] = table.values[order, table.schemes.index(scheme)]
        elif scheme != KEEP:
            raise ProblemError(f"no sensitivities under {scheme}", "profile this scheme too")
    allowed = np.isfinite(next(iter(costs.tables.values())))
    for layer, scheme in (pins or {}).items():
        allowed[index[layer]] &= np.array([s == scheme for s in costs.schemes])
    for name, i in index.items():
        if not allowed[i].any():
            raise ProblemError(*_nothing(name, costs, (pins or {}).get(name)))
    tied = closure([index[name] for name in group if name in index] for group in groups)
    limited = rows(budgets, costs)
    return Problem(
        layers=costs.layers,
        schemes=costs.schemes,
        loss=loss,
        costs={**costs.tables, **limited.costs},
        limits=limited.limits,
        fixed={**costs.fixed, **limited.fixed},
        allowed=allowed,
        groups=tied,
        floors=limited.floors,
        interactions=None if interactions is None else _aligned(interactions, costs),
        conversions=costs.conversions,
    )


def _aligned(interactions: Interactions, costs: Costs) -> Interactions:
    """In the order of ``costs``; zero for schemes without vectors, of which only ``keep`` is."""
    rows = [interactions.layers.index(name) for name in costs.layers]
    shape = (len(costs.layers), len(costs.schemes), interactions.vectors.shape[2])
    vectors = np.zeros(shape, dtype=np.float32)
    for j, scheme in enumerate(costs.schemes):
        if scheme in interactions.schemes:
            vectors[:, j] = interactions.vectors[rows, interactions.schemes.index(scheme)]
    return replace(interactions, layers=costs.layers, schemes=costs.schemes, vectors=vectors)


def lossless(
    costs: Costs,
    budgets: Sequence[Budget],
    *,
    groups: Sequence[Sequence[str]] = (),
    pins: Mapping[str, str] | None = None,
) -> Problem:
    """The problem of what is within ``budgets``, all losses 0. Raises as ``build_problem``."""
    nothing = np.zeros((len(costs.layers), len(costs.schemes)))
    table = Sensitivities("", costs.layers, costs.schemes, nothing, nothing, 0)
    return build_problem(table, costs, budgets, groups=groups, pins=pins)


def feasible(
    costs: Costs,
    budgets: Sequence[Budget],
    *,
    groups: Sequence[Sequence[str]] = (),
    pins: Mapping[str, str] | None = None,
    solver: str = "ilp",
) -> None:
    """Raises ``Infeasible`` when nothing fits ``budgets``, whatever the sensitivities.

    It says so in the budgets' own units, with the reasons why schemes are barred. Needs no
    sensitivities, so that it can be asked before anything is profiled. Raises also what
    ``build_problem`` does.
    """
    try:
        allocate(lossless(costs, budgets, groups=groups, pins=pins), solver)
    except Infeasible as error:
        said = in_units(error, rows(budgets, costs))
        remedy = said.remedy
        if costs.reasons:
            (layer, scheme), why = next(iter(costs.reasons.items()))
            more = f" (and {len(costs.reasons) - 1} more pairs)" if len(costs.reasons) > 1 else ""
            remedy = f"{remedy}; {layer!r} cannot take {scheme}: {why}{more}"
        raise Infeasible(said.what, remedy, said.binding, said.short, said.clash) from None


def _nothing(layer: str, costs: Costs, pin: str | None) -> tuple[str, str]:
    if pin is not None:
        reason = costs.reasons.get((layer, pin), "it is not among the schemes")
        return f"layer {layer!r} is pinned to {pin}, which it cannot take ({reason})", "pin another"
    reasons = dict.fromkeys(why for (name, _), why in costs.reasons.items() if name == layer)
    return (
        f"layer {layer!r} can take none of the schemes ({'; '.join(reasons)})",
        "add schemes that it can take, such as w4 or keep, or exclude the layer",
    )
