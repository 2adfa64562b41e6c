"""A problem as the allocators see it: groups merged to items, only what is limited kept.

    G items (groups, and layers in no group), C schemes, R rows: a limit, or a floor, of a resource
    loss   (G, C)     total over an item's layers; inf where the scheme is barred
    sign   (R,)       1 for a limit, -1 for a floor: at least b is at most -b, costs negated
    cost   (R, G, C)  the same for each row, by its sign; 0 where barred
    first  (G, C)     the problem's first cost, limited or not: it decides between equal losses
    room   (R,)       limit, or floor, minus the fixed part, by its sign
    slack  (R,)       how far a total may exceed ``room`` by rounding alone
    picks  (G,)       one scheme index per item

On ``slack``: 52 layers of 0.1 are within a limit of 5.2, though the double nearest 0.1 is above
0.1 and a limit may itself be a naive sum of costs. A naive sum of n doubles is off by at most
n·eps·Σ|terms|, so that much is granted; where all costs are integers, sums are exact and only the
limit's own rounding (it may be a product, like 3.5 bits × weights) is granted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    resources: tuple[str, ...]
    sign: Float
    loss: Float
    cost: Float
    first: Float
    room: Float
    slack: Float

    @property
    def allowed(self) -> Bool:
        """(G, C)"""
        return np.isfinite(self.loss)

    def losses(self, picks: Picks) -> float:
        """Total loss, correctly rounded."""
        return math.fsum(self.loss[np.arange(len(picks)), picks])

    def bound(self, r: int) -> float:
        """The limit or floor that row ``r`` stands for, as the problem has it."""
        bounds = self.problem.limits if self.sign[r] > 0 else self.problem.floors
        return bounds[self.resources[r]]

    def usage(self, picks: Picks) -> Float:
        """(R,) total cost of each row, without the fixed part, correctly rounded."""
        rows = np.arange(len(picks))
        return np.array([math.fsum(table[rows, picks]) for table in self.cost])

    def fits(self, picks: Picks) -> bool:
        """Whether every total is within its limits, up to rounding."""
        return bool((self.usage(picks) <= self.room + self.slack).all())

    def rank(self, picks: Picks) -> tuple[float, float]:
        """What allocators minimize: loss, then the first cost."""
        return self.losses(picks), math.fsum(self.first[np.arange(len(picks)), picks])

    def least(self) -> Float:
        """(R,) the least total of each row, whatever the others."""
        lowest = np.where(self.allowed, self.cost, np.inf).min(axis=2)
        return np.array([math.fsum(row) for row in lowest])

    def span(self) -> Float:
        """(R,) greatest minus least total of each row."""
        high = np.where(self.allowed, self.cost, -np.inf).max(axis=2)
        low = np.where(self.allowed, self.cost, np.inf).min(axis=2)
        return (high - low).sum(axis=1)

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
        below = math.fsum(np.maximum(-self.loss.min(axis=1), 0.0))
        return EPS * (self.losses(picks) + 2 * below)

    def allocation(
        self, picks: Picks, solver: str, seconds: float, bound: float = math.nan
    ) -> Allocation:
        """``picks`` as an allocation; a bound within rounding of the loss proves it optimal."""
        problem = self.problem
        choice = np.empty(len(problem.layers), dtype=np.intp)
        for pick, members in zip(picks, self.members, strict=True):
            choice[list(members)] = pick
        rows = np.arange(len(choice))
        loss = math.fsum(problem.loss[rows, choice])
        costs = {
            name: math.fsum([*table[rows, choice], problem.fixed.get(name, 0.0)])
            for name, table in problem.costs.items()
        }
        optimal = bool(bound >= loss - self.rounding(picks))
        bound = loss if optimal else float(bound)
        names = tuple(problem.schemes[i] for i in choice)
        return Allocation(
            problem.layers, names, loss, costs, bound, loss - bound, optimal, seconds, solver
        )


def merge(problem: Problem) -> Items:
    """The items of ``problem``.

    Raises ``ProblemError`` for a group without a common scheme, and for numbers too large to add.
    """
    for name, table in {"loss": problem.loss, **problem.costs}.items():
        largest = np.abs(table).max(axis=1, where=problem.allowed, initial=0.0)
        if not math.fsum(np.minimum(largest, MAX_SIZE)) < MAX_SIZE:
            raise ProblemError(f"{name} adds up to over {MAX_SIZE:g}", "use a larger unit")
    grouped = {index for group in problem.groups for index in group}
    alone = ((i,) for i in range(len(problem.layers)) if i not in grouped)
    members = tuple(sorted([*(tuple(g) for g in problem.groups if g), *alone]))
    rows = [(name, 1.0, limit) for name, limit in problem.limits.items()]
    rows += [(name, -1.0, floor) for name, floor in problem.floors.items()]

    allowed = np.array([problem.allowed[list(m)].all(axis=0) for m in members])
    for row, item in zip(allowed, members, strict=True):
        if not row.any():
            names = ", ".join(problem.layers[i] for i in item)
            raise ProblemError(
                f"no scheme is allowed for {names}",
                "pin or bar the layers of one group alike, or take them out of the group"
                if len(item) > 1
                else "allow at least one scheme",
            )

    def total(table: Float) -> Float:
        return np.array([_sum(table, item) for item in members])

    firsts = [*problem.costs.values()][:1]
    first = total(firsts[0]) if firsts else np.zeros_like(problem.loss)[: len(members)]
    costs = [np.where(allowed, sign * total(problem.costs[r]), 0.0) for r, sign, _ in rows]
    return Items(
        problem,
        members,
        resources=tuple(name for name, *_ in rows),
        sign=np.array([sign for _, sign, _ in rows]),
        loss=np.where(allowed, total(problem.loss), np.inf),
        cost=np.array(costs).reshape(len(rows), *allowed.shape),
        first=np.where(allowed, first, 0.0),
        room=np.array([sign * (bound - problem.fixed.get(r, 0.0)) for r, sign, bound in rows]),
        slack=np.array([_slack(problem, r, bound) for r, _, bound in rows]),
    )


def _sum(table: Float, item: tuple[int, ...]) -> Float:
    if len(item) == 1:
        return table[item[0]]
    with np.errstate(invalid="ignore"):  # barred entries may be anything
        return np.array(
            [
                math.fsum(column) if np.isfinite(column).all() else 0.0
                for column in table[list(item)].T
            ]
        )


def _slack(problem: Problem, resource: str, bound: float) -> float:
    table = np.where(problem.allowed, problem.costs[resource], 0.0)
    fixed = problem.fixed.get(resource, 0.0)
    limit = abs(bound)
    size = float(np.abs(table).max(axis=1).sum()) + abs(fixed) + limit
    exact = size < 2.0**53 and float(fixed).is_integer() and bool((table == np.rint(table)).all())
    return 4 * EPS * limit + (0.0 if exact else (len(problem.layers) + 1) * EPS * size)
