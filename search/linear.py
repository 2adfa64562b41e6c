"""The least loss within limits that conversions count against, as a mixed-integer linear program.

    x  (V,)  1 for the scheme that an item takes, over those that it may
    d  (E,)  at least |k_a - k_b| of each conversion, where k is a sum of x

One constraint for each item, two for each conversion, and the limits. SCIP (through OR-Tools'
MathOpt) decides it: of chains of 60 layers in a second, where CP-SAT, and cuts added to the other
solver's program, did not end in a minute. (HiGHS takes half as long, and writes to the standard
output.) SCIP is exact within its tolerances only: an answer above a limit is asked for again within
as much less, and losses closer than ``TOLERANCE`` of the largest are not told apart.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import numpy as np

from bitfront.errors import Infeasible

from .closing import Solution
from .items import Float, Items, Picks
from .limits import clashing, require, stated, total

TOLERANCE = 1e-9
SCALE = 1e4  # of the objective, whose values SCIP tells apart to 1e-9
AGAIN = 6  # times that an answer above a limit is asked for within less
MARGIN = 2.0  # how much less, over what it was exceeded by


@dataclass(frozen=True, eq=False)
class Program:
    """See the module's notation."""

    items: Items

    @cached_property
    def rows(self) -> list[int]:
        """The limits that conversions count against."""
        items = self.items
        of = items.problem.conversions
        return [r for r, n in enumerate(items.resources) if n in of and items.sign[r] > 0]

    @cached_property
    def at(self) -> tuple[Picks, Picks]:
        """(V,) item and scheme of each x."""
        g, c = np.nonzero(self.items.allowed)
        return g, c

    @cached_property
    def weights(self) -> list[Float]:
        """Of each of ``rows`` (E,) what each d costs; 0 where it is another row's."""
        conversions = self.items.problem.conversions
        parts = [conversions[self.items.resources[r]].costs for r in self.rows]
        padded = []
        for i, part in enumerate(parts):
            rest = [part if i == j else np.zeros(len(other)) for j, other in enumerate(parts)]
            padded.append(np.concatenate(rest))
        return padded

    @cached_property
    def apart(self) -> list[tuple[list[int], list[int]]]:
        """Of each d the x that add up to k_a, and those that do to k_b."""
        items, (g, c) = self.items, self.at
        of_item: list[list[int]] = [[] for _ in items.members]
        for v, item in enumerate(g.tolist()):
            of_item[item].append(v)
        found = []
        for r in self.rows:
            conversions = items.problem.conversions[items.resources[r]]
            for ends in conversions.ends.tolist():
                a, b = (
                    [v for v in of_item[items.owner[layer]] if conversions.other[layer, c[v]]]
                    for layer in ends
                )
                found.append((a, b))
        return found

    def least(
        self,
        of_x: Float,
        of_d: Float,
        limits: Collection[int],
        room: Float,
        deadline: float = math.inf,
        gap: float = 0.0,
    ) -> tuple[Picks | None, float, bool]:
        """Picks with the least Σ of_x + Σ of_d (G, C and E) within ``room`` of rows ``limits``; a
        bound on it; and whether there are none."""
        from ortools.math_opt.python import mathopt

        g, c = self.at
        model = mathopt.Model()
        x = [model.add_binary_variable() for _ in g]
        d = [model.add_variable(lb=0.0, ub=1.0) for _ in of_d]
        of_item: list[list[Any]] = [[] for _ in self.items.members]
        for item, variable in zip(g.tolist(), x, strict=True):
            of_item[item].append(variable)
        for variables in of_item:
            model.add_linear_constraint(mathopt.fast_sum(variables) == 1.0)
        for (a, b), variable in zip(self.apart, d, strict=True):
            less = mathopt.fast_sum([x[v] for v in a]) - mathopt.fast_sum([x[v] for v in b])
            model.add_linear_constraint(less <= variable)
            model.add_linear_constraint(-less <= variable)

        def weighed(weights: Float) -> Any:
            pairs = zip(weights.tolist(), [*x, *d], strict=True)
            return mathopt.fast_sum([w * variable for w, variable in pairs if w])

        for r in limits:
            extra = self.weights[self.rows.index(r)] if r in self.rows else np.zeros(len(d))
            row = np.r_[self.items.cost[r, g, c], extra]
            size = float(np.abs(row).max()) or 1.0
            model.add_linear_constraint(weighed(row / size) <= float(room[r]) / size)
        objective = np.r_[of_x[g, c], of_d]
        size = (float(np.abs(objective).max()) or 1.0) / SCALE
        model.minimize(weighed(objective / size))
        left = deadline - time.perf_counter()
        answer = mathopt.solve(
            model,
            mathopt.SolverType.GSCIP,
            params=mathopt.SolveParameters(
                relative_gap_tolerance=gap,
                absolute_gap_tolerance=0.0,
                threads=1,
                time_limit=None if left == math.inf else timedelta(seconds=max(left, 0.0)),
            ),
        )
        reasons = mathopt.TerminationReason
        none = answer.termination.reason in (reasons.INFEASIBLE, reasons.INFEASIBLE_OR_UNBOUNDED)
        bound = -math.inf if none else answer.best_objective_bound() * size
        if not answer.has_primal_feasible_solution():
            return None, bound, none
        picks = np.zeros(len(self.items.members), dtype=np.intp)
        chosen = np.array([value > 0.5 for value in answer.variable_values(x)])
        picks[g[chosen]] = c[chosen]
        return picks, bound, False


def solve_linear(
    items: Items, deadline: float = math.inf, explain: bool = True, gap: float = 0.0
) -> Solution:
    """The least loss within all limits. Raises ``Infeasible``. As ``exact.solve``."""
    best = items.best()
    if items.fits(best):
        return Solution(best, items.losses(best))
    program = Program(items)
    every, room = range(len(items.resources)), items.room.copy()
    nothing = np.zeros(len(program.weights[0]))
    bound = -math.inf
    for turn in range(AGAIN):
        picks, lower, none = program.least(items.loss, nothing, every, room, deadline, gap)
        bound = lower if turn == 0 else bound
        if picks is None and none and turn == 0:
            require(items, least_totals(items)[0])
            raise _clash(program, deadline, explain)
        if picks is None:
            break
        over = items.usage(picks) - items.room - items.slack
        if (over <= 0).all():
            loss = items.losses(picks)
            size = float(np.abs(np.where(items.allowed, items.loss, 0.0)).max())
            proven = bound >= loss - TOLERANCE * size - gap * abs(loss) and gap == 0
            return Solution(picks, loss if proven else bound)
        room -= np.where(over > 0, MARGIN * over + 1e-12 * np.abs(items.room), 0.0)
    raise Infeasible(
        f"no allocation within {stated(items)} was found",
        "allow more time, or raise a limit",
    )


def least_totals(items: Items) -> tuple[Float, dict[str, Picks]]:
    """(R,) the least total of each row, whatever the others, with conversions; and of those that
    have any, picks with that total."""
    program, least, found = Program(items), items.least(), {}
    for weights, r in zip(program.weights, program.rows, strict=True):
        picks, _, _ = program.least(items.cost[r], weights, (), items.room)
        assert picks is not None  # nothing is limited
        least[r], found[items.resources[r]] = items.usage(picks)[r], picks
    return least, found


def _clash(program: Program, deadline: float, explain: bool) -> Infeasible:
    """What to say of limits that can each be met, but not together."""
    items, clash = program.items, []
    nothing = np.zeros(len(program.weights[0]))
    for r, name in enumerate(items.resources if explain else ()):
        others = [i for i in range(len(items.resources)) if i != r]
        weights = program.weights[program.rows.index(r)] if r in program.rows else nothing
        cost = items.cost[r]
        picks, _, _ = program.least(cost, weights, others, items.room, deadline)
        if picks is not None:
            clash.append((name, int(items.sign[r]), total(items, r, items.usage(picks)[r])))
    return clashing(items, clash)
