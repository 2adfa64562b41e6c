"""The least loss within limits that conversions count against, as a mixed-integer linear program.

    x  (V,)  1 for the scheme that an item takes, over those that it may
    d  (E,)  at least |k_a - k_b| of each conversion, where k is a sum of x

One constraint for each item, two for each conversion, and the limits. HiGHS (through scipy) decides
it: of chains of 60 layers in half a second, where CP-SAT, and cuts added to the other solver's
program, did not end in a minute. HiGHS is exact within its tolerances only: an answer above a limit
is asked for again within as much less, and losses closer than ``TOLERANCE`` of the largest are not
told apart.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bitfront.errors import Infeasible

from .closing import Solution
from .items import Float, Items, Picks
from .limits import clashing, stated, total

TOLERANCE = 1e-9
SCALE = 1e4  # of the objective, since HiGHS ends at an absolute gap of 1e-6
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
    def fixed(self) -> Any:
        """The constraints that are no limits: one scheme an item, and what d is at least."""
        from scipy.optimize import LinearConstraint
        from scipy.sparse import csr_array, hstack, identity, vstack

        items, (g, c) = self.items, self.at
        V, G = len(g), len(items.members)
        parts = []
        for r in self.rows:
            found = items.problem.conversions[items.resources[r]]
            says = [(layer, v) for v, of in enumerate(g.tolist()) for layer in items.members[of]]
            layer, v = np.array(says).T
            shape = len(items.owner), V
            k = csr_array((found.other[layer, c[v]].astype(float), (layer, v)), shape)
            parts.append(k[found.ends[:, 0]] - k[found.ends[:, 1]])
        differ = vstack(parts)
        E = differ.shape[0]
        one = csr_array((np.ones(V), (g, np.arange(V))), shape=(G, V + E))
        below = -identity(E)
        table = vstack([one, hstack([differ, below]), hstack([-differ, below])], format="csr")
        low = np.r_[np.ones(G), np.full(2 * E, -np.inf)]
        return LinearConstraint(table, low, np.r_[np.ones(G), np.zeros(2 * E)])

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
        from scipy.optimize import Bounds, LinearConstraint, milp

        g, c = self.at
        V, E = len(g), len(of_d)
        constraints = [self.fixed]
        for r in limits:
            extra = self.weights[self.rows.index(r)] if r in self.rows else np.zeros(E)
            row = np.r_[self.items.cost[r, g, c], extra]
            size = float(np.abs(row).max()) or 1.0
            constraints.append(LinearConstraint(row[None] / size, -np.inf, room[r] / size))
        objective = np.r_[of_x[g, c], of_d]
        size = (float(np.abs(objective).max()) or 1.0) / SCALE
        options: dict[str, Any] = {"mip_rel_gap": gap}
        if deadline < math.inf:
            options["time_limit"] = max(deadline - time.perf_counter(), 0.0)
        answer = milp(
            objective / size, constraints=constraints, bounds=Bounds(0, 1),
            integrality=np.r_[np.ones(V), np.zeros(E)], options=options,
        )  # fmt: skip
        bound = answer.mip_dual_bound
        bound = -math.inf if bound is None or not math.isfinite(bound) else bound * size
        if answer.x is None:
            return None, bound, answer.status == 2
        picks = np.zeros(len(self.items.members), dtype=np.intp)
        chosen = answer.x[:V] > 0.5
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
