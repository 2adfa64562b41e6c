"""Budgets as rows of a problem: what they limit, from where to where; and the way back to words.

plain resource      a table of the costs, with its fixed part
class of layers     the table where the layer is of the class, 0 elsewhere; no fixed part
activations         the greatest of several sums is limited: each of them is, one row a sum
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from bitfront.budget import of_class
from bitfront.errors import BudgetError, Infeasible
from bitfront.types import Budget, Costs, Float


@dataclass(frozen=True, eq=False)
class Rows:
    """costs, fixed: what ``Costs`` has no table of. limits, floors: as in ``Problem``.

    budgets: (resource of the problem, whether it is a floor) -> the budget that it comes from.
    """

    costs: Mapping[str, Float]
    fixed: Mapping[str, float]
    limits: Mapping[str, float]
    floors: Mapping[str, float]
    budgets: Mapping[tuple[str, bool], Budget]


def rows(budgets: Sequence[Budget], costs: Costs) -> Rows:
    """The rows of ``budgets``, which hold together; of two on one resource the tighter one counts.

    Raises ``BudgetError`` for a resource that is not counted, a share of what is not known, a class
    without layers, and limits that contradict each other.
    """
    tables: dict[str, Float] = {}
    fixed: dict[str, float] = {}
    bounds: tuple[dict[str, float], dict[str, float]] = ({}, {})  # limits, floors
    origin: dict[tuple[str, bool], Budget] = {}
    for budget in budgets:
        bound = _bound(budget, costs)
        if budget.whole in costs.peaks:
            names = _peaks(budget, bound, costs, tables, fixed)
        else:
            names = [budget.resource]
            if budget.layers:
                inside = _members(budget, costs)
                tables[budget.resource] = np.where(inside[:, None], costs.tables[budget.whole], 0.0)
        kind = bounds[budget.floor]
        for name in names:
            tighter = max if budget.floor else min
            if name not in kind or tighter(bound, kind[name]) != kind[name]:
                kind[name] = bound
                origin[name, budget.floor] = budget
    limits, floors = bounds
    for name in limits.keys() & floors.keys():
        if floors[name] > limits[name]:
            a, b = origin[name, True], origin[name, False]
            raise BudgetError(f"budgets {a} and {b} contradict each other", "leave one of them out")
    return Rows(tables, fixed, limits, floors, origin)


def _bound(budget: Budget, costs: Costs) -> float:
    """The limit that ``budget`` sets, in the resource's unit."""
    if not budget.layers:
        bound = budget.limit(costs.full, costs.weights)
    else:
        inside = _members(budget, costs)
        unknown = np.full(len(costs.layers), np.nan)
        whole = {
            of_class(name, budget.layers): float(costs.unquantized.get(name, unknown)[inside].sum())
            for name in costs.tables
        }
        bound = budget.limit(whole, float(costs.counts[inside].sum()))
    if math.isnan(bound):
        raise BudgetError(
            f"budget {str(budget)!r} is a share of a total that is not known",
            "give the full model's total with the costs, or limit an amount",
        )
    return bound


def _members(budget: Budget, costs: Costs) -> np.ndarray:
    """(L,) which layers the budget's class, or glob, has."""
    by_class = np.array(
        [fnmatchcase(costs.classes.get(n, ""), budget.layers) for n in costs.layers]
    )
    if by_class.any():
        return by_class
    by_name = np.array([fnmatchcase(name, budget.layers) for name in costs.layers])
    if not by_name.any():
        known = ", ".join(dict.fromkeys(costs.classes.get(name, "") for name in costs.layers))
        raise BudgetError(
            f"budget {str(budget)!r}: no class of the layers to quantize, and none of these, is "
            f"called {budget.layers!r}",
            f"classes are {known}; or write a glob over layer names, like *.{costs.layers[-1]}"
            if known
            else f"write a glob over layer names, like {costs.layers[-1]}",
        )
    return by_name


def _peaks(
    budget: Budget, bound: float, costs: Costs, tables: dict[str, Float], fixed: dict[str, float]
) -> list[str]:
    """One resource for each sum that may exceed ``bound``."""
    names = []
    for number, part in enumerate(costs.peaks[budget.whole]):
        known = np.isfinite(part.table)
        highest = np.where(known, part.table, -np.inf).max(axis=1)
        if part.fixed + math.fsum(highest[np.isfinite(highest)]) > bound:
            names.append(f"{budget.whole} {number + 1}")
            tables[names[-1]], fixed[names[-1]] = part.table, part.fixed
    return names


def in_units(error: Infeasible, found: Rows) -> Infeasible:
    """``error``, said in the units of the budgets that cannot be met."""
    least = _worst(error.binding, found, floor=False)
    most = _worst(error.short, found, floor=True)
    if least or most:
        words = [f"budget {a} cannot be met, the least possible is {b}" for a, b in least.items()]
        words += [
            f"budget {a} cannot be met, the greatest possible is {_plain(b)}"
            for a, b in most.items()
        ]
        remedies = [
            f"{verb} {'it' if len(to) == 1 else 'them'} to {' and '.join(map(str, to.values()))}, "
            f"or allow {size} schemes"
            for verb, size, to in (("raise", "smaller", least), ("lower", "larger", most))
            if to
        ]
        return Infeasible("; ".join(words), "; ".join(remedies), error.binding, error.short)
    if not error.clash:
        return error
    ways = []
    several = [b for (name, _), b in found.budgets.items() if name != b.resource]
    for name, sign, total in error.clash:
        budget = found.budgets.get((name, sign < 0))
        if budget is not None and several.count(budget) < 2:
            verb = "lower" if sign < 0 else "raise"
            bound = (found.floors if sign < 0 else found.limits)[name]
            ways.append(f"{verb} {budget} to {_scaled(budget, total, bound)}")
    together = " and ".join(map(str, dict.fromkeys(found.budgets.values())))
    remedy = f"keep the others and {', or '.join(ways)}" if ways else "loosen several"
    what = f"budgets {together} cannot be met together, though each can be alone"
    return Infeasible(what, remedy, clash=error.clash)


def _worst(
    unmet: Mapping[str, tuple[float, float]], found: Rows, *, floor: bool
) -> dict[Budget, Budget]:
    """Budget -> what would do; of several rows of one budget the farthest."""
    worst: dict[Budget, Budget] = {}
    for name, (bound, total) in unmet.items():
        budget = found.budgets.get((name, floor))
        if budget is None or not (bound > 0 and total > 0):
            continue
        other = _scaled(budget, total, bound)
        known = worst.get(budget)
        if known is None or (other.amount < known.amount if floor else other.amount > known.amount):
            worst[budget] = other
    return worst


def _scaled(budget: Budget, total: float, bound: float) -> Budget:
    """``budget`` with the amount that stands for ``total``, where it stands for ``bound`` now."""
    return replace(budget, amount=rounded(budget.amount * total / bound, up=not budget.floor))


def rounded(amount: float, *, up: bool) -> float:
    """The next number of four digits that is not below ``amount``, or not above."""
    digits = 3 - math.floor(math.log10(amount))
    if up:
        return math.ceil(amount * 10.0**digits * (1 - 1e-12)) / 10.0**digits
    return math.floor(amount * 10.0**digits * (1 + 1e-12)) / 10.0**digits


def _plain(budget: Budget) -> str:
    """A lower limit's amount, without its sign."""
    return str(replace(budget, sign="<=")).replace("<=", " ")


def first_plain(budgets: Iterable[Budget], costs: Costs) -> str:
    """The resource of the first budget on the whole model that is a sum, else the first one."""
    plain = (b.resource for b in budgets if b.resource in costs.tables)
    return next(plain, next(iter(costs.tables)))
