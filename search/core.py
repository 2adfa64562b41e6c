"""What a relaxation leaves open, in 64-bit integers, and its decision by OR-Tools' CP-SAT.

A table of integers is used as it is, divided by its common divisor. Any other is counted in units
of a power of two, rounded down, so small that all items together lose at most a given precision.
Rounding down relaxes: no allocation within the limits is cut off, and the least integer objective
is below every true one. So a bound is always true; an answer must still be looked at in floats.

Two of CP-SAT's presolve steps are off. With ``presolve_inclusion`` ortools 9.15 calls worse
answers than a given feasible one optimal on models of this kind (``tests/golden/cp_sat_presolve``
has one); as a second safeguard only presolve steps that keep every feasible solution are allowed,
and an "optimal" answer that is worse than the hint is an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from .items import Bool, Float, Picks

MAX_BITS = 60  # of any total
FOREVER = 1e9  # seconds
SPENT = 0.9  # of a limit that ran out: CP-SAT may stop a little before it


@dataclass(frozen=True, eq=False)
class Row:
    """The total of ``table`` (G, C) over the picks: within ``room``, read to ``precision``."""

    table: Float
    precision: float
    room: float = math.inf


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
    """A table (G, C) in integers: value = base + unit·integer, up to one unit an item below.

    table: (F, C), of the items that have a choice only, see ``open_items``.
    """

    table: NDArray[np.int64]
    base: Float  # (G,)
    unit: float

    def most(self, room: float) -> int:
        """The integer total that stands for ``room``."""
        return math.floor(math.fsum([room, *(-self.base).tolist()]) / self.unit)

    def total(self, whole: int) -> float:
        """What the integer total ``whole`` stands for, correctly rounded though beyond 2^53."""
        high, low = divmod(whole, 2**30)
        return math.fsum([*self.base.tolist(), self.unit * (high << 30), self.unit * low])


def open_items(kept: Bool) -> Picks:
    """(F,) the items with more than one kept choice."""
    return np.flatnonzero(np.count_nonzero(kept, axis=1) > 1)


def scaled(table: Float, kept: Bool, precision: float) -> Scaled:
    """The kept entries of ``table`` in integers from 0; others are 0."""
    free = open_items(kept)
    base = table[np.arange(len(table)), kept.argmax(axis=1)]
    base[free] = np.where(kept[free], table[free], np.inf).min(axis=1)
    low = base[free, None]
    above = np.where(kept[free], table[free], low) - low
    highest = above.max(axis=1, initial=0.0)
    size = float(highest.sum())
    if size < 2.0**53 and (above == np.rint(above)).all() and (base == np.rint(base)).all():
        whole = above.astype(np.int64)
        divisor = int(np.gcd.reduce(whole, axis=None)) or 1
        return Scaled(whole // divisor, base, float(divisor))
    finest = math.frexp(size)[1] - MAX_BITS
    wanted = precision / max(1, int((highest > 0).sum()))
    exponent = max(finest, math.frexp(wanted)[1] - 1) if wanted > 0 else finest
    return Scaled(np.floor(np.ldexp(above, -exponent)).astype(np.int64), base, 2.0**exponent)


def decide(
    kept: Bool,
    objective: Row,
    rows: Sequence[Row],
    hint: Picks,
    seconds: float,
    work: float = math.inf,
) -> Answer:
    """Minimize the total of ``objective`` over ``kept`` choices (G, C) within all ``rows``.

    ``hint`` are picks within them. Deterministic unless ``seconds`` run out; ``work`` limits the
    search in CP-SAT's deterministic units, about a second each.
    """
    model = cp_model.CpModel()
    literals: dict[tuple[int, int], cp_model.IntVar] = {}
    free = open_items(kept)
    for i, row in enumerate(kept[free]):
        options = np.flatnonzero(row).tolist()
        for c in options:
            literals[i, c] = model.new_bool_var("")
        model.add_exactly_one(literals[i, c] for c in options)
    variables = list(literals.values())
    where = tuple(np.array(list(literals), dtype=np.intp).reshape(-1, 2).T)

    def total(cost: Scaled) -> cp_model.LinearExprT:
        return cp_model.LinearExpr.weighted_sum(variables, cost.table[where].tolist())

    for limit in rows:
        cost = scaled(limit.table, kept, limit.precision)
        most = cost.most(limit.room)
        if most < 0:
            return Answer(None, math.inf, True)
        if int(cost.table.max(axis=1, initial=0).sum()) > most:
            model.add(total(cost) <= most)
    loss = scaled(objective.table, kept, objective.precision)
    model.minimize(total(loss))
    for (i, c), literal in literals.items():
        model.add_hint(literal, bool(hint[free[i]] == c))

    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.linearization_level = 2
    solver.parameters.relative_gap_limit = 0.0
    solver.parameters.absolute_gap_limit = 0.0
    solver.parameters.presolve_inclusion_work_limit = 0
    solver.parameters.keep_all_feasible_solutions_in_presolve = True
    solver.parameters.max_time_in_seconds = min(max(seconds, 0.01), FOREVER)
    solver.parameters.max_deterministic_time = min(work, FOREVER)
    status = solver.solve(model)

    used = max(
        solver.wall_time / solver.parameters.max_time_in_seconds,
        solver.response_proto.deterministic_time / solver.parameters.max_deterministic_time,
    )
    if status in (cp_model.UNKNOWN, cp_model.FEASIBLE) and used < SPENT:
        raise KeyboardInterrupt  # which CP-SAT takes as a request to stop early
    if status == cp_model.INFEASIBLE:
        return Answer(None, math.inf, True)
    bound = math.fsum([*loss.base.tolist(), loss.unit * solver.best_objective_bound])
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Answer(None, bound, False)
    picks = kept.argmax(axis=1)
    for (i, c), literal in literals.items():
        if solver.boolean_value(literal):
            picks[free[i]] = c
    if status == cp_model.FEASIBLE:
        return Answer(picks, bound, False)
    known = loss.table[np.arange(len(free)), hint[free]].sum()
    if solver.objective_value > known * (1 + 1e-12):
        raise AssertionError(f"CP-SAT calls {solver.objective_value} optimal, but {known} is known")
    # CP-SAT's own bound is a double, which may be two roundings below this
    least = loss.total(int(loss.table[np.arange(len(free)), picks[free]].sum()))
    return Answer(picks, least, True)
