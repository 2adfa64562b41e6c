"""What a relaxation leaves open, decided exactly by OR-Tools' CP-SAT in 64-bit integers.

Integers by scale: a table of integers is used as it is (divided by its common divisor), any other
in units of a power of two so small that the largest total has BITS bits, rounded down. Rounding
down relaxes: no allocation within the limits is cut off, and the least integer objective is below
every true one. n·unit, the most that is lost this way over n items, is below the rounding of a
naive float sum; answers are checked in floats all the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from .items import Bool, Float, Items, Picks

BITS = 58
FOREVER = 1e9  # seconds


@dataclass(frozen=True, eq=False)
class Answer:
    """picks: the best found, None if none. bound: no kept choice has a lower total objective.

    proven: whether the search came to its end (then no picks means that there are none).
    """

    picks: Picks | None
    bound: float
    proven: bool


@dataclass(frozen=True, eq=False)
class Scaled:
    """A table (G, C) in integers: value = base + unit·integer, up to one unit an item below."""

    table: NDArray[np.int64]
    base: Float  # (G,)
    unit: float

    def most(self, room: float) -> int:
        """The integer total that stands for ``room``."""
        return math.floor(math.fsum([room, *-self.base]) / self.unit)


def scaled(table: Float, kept: Bool) -> Scaled:
    """The kept entries of ``table`` in integers from 0; others are 0."""
    base = np.where(kept, table, np.inf).min(axis=1)
    above = np.where(kept, table - base[:, None], 0.0)
    size = float(above.max(axis=1).sum())
    if size < 2.0**53 and (above == np.rint(above)).all() and (base == np.rint(base)).all():
        whole = above.astype(np.int64)
        unit = int(np.gcd.reduce(whole, axis=None)) or 1
        return Scaled(whole // unit, base, float(unit))
    unit = 2.0 ** (math.frexp(size)[1] - BITS)
    return Scaled(np.floor(above / unit).astype(np.int64), base, unit)


def decide(
    items: Items,
    kept: Bool,
    objective: Float,
    rows: Sequence[tuple[Float, float]],
    hint: Picks | None,
    seconds: float,
    workers: int = 1,
) -> Answer:
    """Minimize the total of ``objective`` over ``kept`` choices, each table of ``rows`` within its
    limit. Deterministic unless ``seconds`` run out.
    """
    model = cp_model.CpModel()
    free = np.flatnonzero(kept.sum(axis=1) > 1)
    literals: dict[tuple[int, int], cp_model.IntVar] = {}
    for g in free:
        options = np.flatnonzero(kept[g])
        for c in options:
            literals[int(g), int(c)] = model.new_bool_var("")
        model.add_exactly_one(literals[int(g), int(c)] for c in options)
    where = tuple(np.array(list(literals), dtype=np.intp).reshape(-1, 2).T)
    variables = list(literals.values())
    for table, room in rows:
        cost = scaled(table, kept)
        most = cost.most(room)
        if most < 0:
            return Answer(None, math.inf, True)
        if int(cost.table.max(axis=1).sum()) > most:
            terms = cp_model.LinearExpr.weighted_sum(variables, cost.table[where].tolist())
            model.add(terms <= most)
    loss = scaled(objective, kept)
    model.minimize(cp_model.LinearExpr.weighted_sum(variables, loss.table[where].tolist()))
    if hint is not None:
        for (g, c), literal in literals.items():
            model.add_hint(literal, bool(hint[g] == c))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = 0
    solver.parameters.max_time_in_seconds = min(max(seconds, 0.01), FOREVER)
    solver.parameters.relative_gap_limit = 0.0
    solver.parameters.absolute_gap_limit = 0.0
    solver.parameters.linearization_level = 2
    status = solver.solve(model)
    base = math.fsum(loss.base)
    if status == cp_model.INFEASIBLE:
        return Answer(None, math.inf, True)
    lowest = base + loss.unit * solver.best_objective_bound
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Answer(None, lowest, False)
    picks = kept.argmax(axis=1)
    for (g, c), literal in literals.items():
        if solver.boolean_value(literal):
            picks[g] = c
    return Answer(picks, lowest, status == cp_model.OPTIMAL)
