"""A problem as the allocators see it: groups merged to items, only what is limited kept.

    G items (groups, and layers in no group), C schemes, R rows: a limit, or a floor, of a resource
    loss   (G, C)     total over an item's layers; inf where the scheme is barred
    sign   (R,)       1 for a limit, -1 for a floor: at least b is at most -b, costs negated
    cost   (R, G, C)  the same for each row, by its sign; 0 where barred
    first  (G, C)     the problem's first cost, limited or not: it decides between equal losses
    room   (R,)       limit, or floor, minus the fixed part, by its sign
    slack  (R,)       how far a total may exceed ``room`` by rounding alone
    picks  (G,)       one scheme index per item
    owner  (L,)       the item of each layer

On ``slack``: 52 layers of 0.1 are within a limit of 5.2, though the double nearest 0.1 is above
0.1 and a limit may itself be a naive sum of costs. A naive sum of n doubles is off by at most
n·eps·Σ|terms|, so that much is granted; where all costs are integers, sums are exact and only the
limit's own rounding (it may be a product, like 3.5 bits × weights) is granted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import ProblemError
from bitfront.types import Allocation, Problem

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Picks = NDArray[np.intp]

EPS = float(np.finfo(np.float64).eps)
MAX_SIZE = 1e100  # of any total: prices and ratios of totals must stay finite


@dataclass(frozen=True, eq=False)
class Items:
    """See the module's notation. ``members`` are the layer indices of each item."""

    problem: Problem
    members: tuple[tuple[int, ...], ...]
    owner: Picks
    resources: tuple[str, ...]
    sign: Float
    loss: Float
    cost: Float
    first: Float
    room: Float
    slack: Float

    @cached_property
    def allowed(self) -> Bool:
        """(G, C)"""
        return np.isfinite(self.loss)

    def losses(self, picks: Picks) -> float:
        """Total loss, correctly rounded."""
        return math.fsum(self.loss[np.arange(len(picks)), picks].tolist())

    def bound(self, r: int) -> float:
        """The limit or floor that row ``r`` stands for, as the problem has it."""
        bounds = self.problem.limits if self.sign[r] > 0 else self.problem.floors
        return bounds[self.resources[r]]

    def usage(self, picks: Picks) -> Float:
        """(R,) total cost of each row, without the fixed part, correctly rounded; with conversions
        where it is a limit."""
        rows = np.arange(len(picks))
        found = [math.fsum(table[rows, picks].tolist()) for table in self.cost]
        for r, name in enumerate(self.resources):
            if name in self.problem.conversions and self.sign[r] > 0:
                found[r] += self.problem.conversions[name].total(picks[self.owner])
        return np.array(found)

    def fits(self, picks: Picks) -> bool:
        """Whether every total is within its limits, up to rounding."""
        return bool((self.usage(picks) <= self.room + self.slack).all())

    def rank(self, picks: Picks) -> tuple[float, float]:
        """What allocators minimize: loss, then the first cost."""
        return self.losses(picks), math.fsum(self.first[np.arange(len(picks)), picks].tolist())

    def least(self) -> Float:
        """(R,) the least total of each row, whatever the others."""
        return np.array([math.fsum(row.tolist()) for row in self._ends[0]])

    def span(self) -> Float:
        """(R,) greatest minus least total of each row."""
        return (self._ends[1] - self._ends[0]).sum(axis=1)

    @cached_property
    def _ends(self) -> tuple[Float, Float]:
        """(R, G) the least and the greatest cost of each item."""
        shape = len(self.cost), len(self.loss)
        low = [t.min(axis=1, where=self.allowed, initial=np.inf) for t in self.cost]
        high = [t.max(axis=1, where=self.allowed, initial=-np.inf) for t in self.cost]
        return np.array(low).reshape(shape), np.array(high).reshape(shape)

    @cached_property
    def sizes(self) -> Float:
        """(1 + R, G) the greatest magnitude of each item's loss, then of each of its costs."""
        loss = np.maximum(
            -self.loss.min(axis=1), self.loss.max(axis=1, where=self.allowed, initial=0)
        )
        low, high = self._ends
        return np.array([loss, *np.maximum(high, -low)])

    def per_span(self) -> Float:
        """(R,) one over ``span``; 0 where that is 0, as no choice changes such a total."""
        span = self.span()
        return np.where(span > 0, 1.0 / np.maximum(span, np.finfo(float).tiny), 0.0)

    def best(self) -> Picks:
        """The least loss of each item, then the least first cost, whatever the limits."""
        ties = self.loss == self.loss.min(axis=1, keepdims=True)
        return np.where(ties, self.first, np.inf).argmin(axis=1)

    def rounding(self, picks: Picks) -> float:
        """How far the loss of any picks that are no worse may be off by its entries' roundings.

        EPS·Σ|loss| of such picks is greatest where they gain most from negative entries:
        Σ|loss| = Σ loss + 2·Σ (-loss)⁺, and Σ loss is at most that of ``picks``.
        """
        return EPS * (self.losses(picks) + 2 * self._below)

    @cached_property
    def _below(self) -> float:
        return math.fsum(np.maximum(-self.loss.min(axis=1), 0.0).tolist())

    def allocation(
        self, picks: Picks, solver: str, seconds: float, bound: float = math.nan
    ) -> Allocation:
        """``picks`` as an allocation; a bound within rounding of the loss proves it optimal."""
        problem = self.problem
        choice = picks[self.owner]
        rows = np.arange(len(choice))
        loss = math.fsum(problem.loss[rows, choice].tolist())
        costs = {
            name: math.fsum([*table[rows, choice].tolist(), problem.fixed.get(name, 0.0)])
            for name, table in problem.costs.items()
        }
        for name, found in problem.conversions.items():
            costs[name] += found.total(choice)
        optimal = bool(bound >= loss - self.rounding(picks))
        bound = loss if optimal else float(bound)
        names = tuple(problem.schemes[i] for i in choice.tolist())
        return Allocation(
            problem.layers, names, loss, costs, bound, loss - bound, optimal, seconds, solver
        )


def picks_of(items: Items, schemes: Sequence[str]) -> Picks:
    """(G,) of an allocation's ``schemes``. Raises ``ProblemError`` for what items may not take."""
    index = {scheme: i for i, scheme in enumerate(items.problem.schemes)}
    picks = []
    for item, members in enumerate(items.members):
        (scheme, *others) = {schemes[i] for i in members}
        if others or not items.allowed[item, index[scheme]]:
            layer = items.problem.layers[members[0]]
            raise ProblemError(
                f"layer {layer!r} starts at {scheme}, which it may not take",
                "start from an allocation of this problem",
            )
        picks.append(index[scheme])
    return np.array(picks, dtype=np.intp)


def merge(problem: Problem) -> Items:
    """The items of ``problem``.

    Raises ``ProblemError`` for a group without a common scheme, and for numbers too large to add.
    """
    for name, table in {"loss": problem.loss, **problem.costs}.items():
        largest = np.minimum(_largest(table, problem.allowed), MAX_SIZE)
        if not math.fsum(largest.tolist()) < MAX_SIZE:
            raise ProblemError(f"{name} adds up to over {MAX_SIZE:g}", "use a larger unit")
    grouped = {index for group in problem.groups for index in group}
    alone = ((i,) for i in range(len(problem.layers)) if i not in grouped)
    members = tuple(sorted([*(tuple(g) for g in problem.groups if g), *alone]))
    owner = np.empty(len(problem.layers), dtype=np.intp)
    for g, m in enumerate(members):
        owner[list(m)] = g
    bounds = [(name, 1.0, limit) for name, limit in problem.limits.items()]
    bounds += [(name, -1.0, floor) for name, floor in problem.floors.items()]

    several = {g: list(m) for g, m in enumerate(members) if len(m) > 1}
    heads = np.array([m[0] for m in members])  # of most items the only layer
    allowed = problem.allowed[heads]
    for g, rows in several.items():
        allowed[g] = problem.allowed[rows].all(axis=0)
    free = bool(allowed.all())
    for g in np.flatnonzero(~allowed.any(axis=1)).tolist()[:1]:
        names = ", ".join(problem.layers[i] for i in members[g])
        raise ProblemError(
            f"no scheme is allowed for {names}",
            "pin or bar the layers of one group alike, or take them out of the group"
            if g in several
            else "allow at least one scheme",
        )

    def total(table: Float, barred: float) -> Float:
        """(G, C) the table itself where nothing is to be added or barred: it may be large."""
        if not several:
            return table if free else np.where(allowed, table, barred)
        added = table[heads]
        for g, rows in several.items():
            added[g] = _sum(table[rows])
        return np.where(allowed, added, barred)

    firsts = [*problem.costs.values()][:1]
    first = total(firsts[0], 0.0) if firsts else np.zeros(allowed.shape)
    costs = [_signed(sign, total(problem.costs[name], 0.0)) for name, sign, _ in bounds]
    return Items(
        problem,
        members,
        owner,
        resources=tuple(name for name, *_ in bounds),
        sign=np.array([sign for _, sign, _ in bounds]),
        loss=total(problem.loss, np.inf),
        cost=np.array(costs).reshape(len(bounds), *allowed.shape),
        first=first,
        room=np.array([sign * (bound - problem.fixed.get(r, 0.0)) for r, sign, bound in bounds]),
        slack=np.array([_slack(problem, r, bound) for r, _, bound in bounds]),
    )


def _sum(rows: Float) -> Float:
    """(C,) of the rows of one item; barred entries may be anything."""
    with np.errstate(invalid="ignore"):
        return np.array(
            [math.fsum(column) if np.isfinite(column).all() else 0.0 for column in rows.T]
        )


def _signed(sign: float, table: Float) -> Float:
    return table if sign > 0 else -table


def _largest(table: Float, allowed: Bool) -> Float:
    """(L,) the greatest magnitude of each layer."""
    high = table.max(axis=1, where=allowed, initial=0.0)
    return np.maximum(high, -table.min(axis=1, where=allowed, initial=0.0))


def _slack(problem: Problem, resource: str, bound: float) -> float:
    table, allowed = problem.costs[resource], problem.allowed
    fixed = problem.fixed.get(resource, 0.0)
    limit = abs(bound)
    size = float(_largest(table, allowed).sum()) + abs(fixed) + limit
    whole = float(fixed).is_integer() and bool((table == np.rint(table))[allowed].all())
    exact = whole and size < 2.0**53
    count = len(problem.layers) + 1
    if resource in problem.conversions:
        found = problem.conversions[resource].costs
        exact, count, size = False, count + len(found), size + float(found.sum())
    return 4 * EPS * limit + (0.0 if exact else count * EPS * size)
