"""Where the least cost lies at which a measured metric holds: between what held and what failed.

The allocations looked at are those of least predicted loss within a cost; each is verified before
it is measured, as in a search. Which cost is looked at next is what the recalibrated prediction
says that the bound takes; after several that came out the same way, what it says of a loss that is
farther to the other side, so that the bracket closes from both. Where that is outside of the
bracket it is its middle. Once the bracket is narrow, refinement (``refinement``) goes on below the
cheapest that holds, as far as the loss that was gained allows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bitfront.errors import Infeasible
from bitfront.measuring import Asked, measured
from bitfront.pool import Looked, Pool
from bitfront.problems import build_problem
from bitfront.recalibration import Predictor, recalibration
from bitfront.refinement import refined
from bitfront.scheme import KEEP
from bitfront.search import allocate, cheapest, fitting
from bitfront.study import Progress, Study
from bitfront.target import Target
from bitfront.tasks.selection import Selection
from bitfront.types import Allocation, Budget, Costs, Problem, Sensitivities, Trial
from bitfront.verification import Pair, verified

RESOLVED = 0.01  # of a cost: a bracket so narrow is not worth a measurement
STEP = 1.15  # times the loss: how far beyond the bound is aimed once a look came out one way
MOST = 3  # doublings of that
UNDER = 1e-6  # of a cost: what is less by so much is less
SPENT = 1.5  # times the loss, that is spent at most at once
WHAT = "measuring towards the bound"


@dataclass(eq=False)
class Narrowing:
    """A search for the least total of ``resource`` within ``budgets`` at which ``target`` holds.

    table: that losses are predicted by, with more and more measured values in it. pool: what was
    measured. left: allocations that may still be measured. allowance: pairs that may be verified;
    None for as many as it takes. settings: of every trial.
    """

    study: Study
    table: Sensitivities
    costs: Costs
    selection: Selection
    budgets: Sequence[Budget]
    target: Target
    resource: str
    pool: Pool
    known: set[Pair]
    left: int
    allowance: int | None
    settings: Mapping[str, Any]
    progress: Progress
    fresh: list[Pair] = field(default_factory=list)
    evaluations: int = 0

    def __post_init__(self) -> None:
        self._all, self._least = self.left, self._cheapest()
        self._predictor = Predictor(self.pool, self._problem())

    def narrow(self) -> None:
        """Measure until the bracket is narrow, or what may be is measured.

        Raises ``Infeasible`` when even the least loss that is possible fails.
        """
        run = 0  # of looks that came out the same way: over 0 held, below 0 failed
        while self.left:
            best, top = self.best(), allocate(self._problem())
            high = top.costs[self.resource] if best is None else self._cost(best)
            failed = self.failed(high)
            low = self._least * (1 - UNDER) if failed is None else self._cost(failed)
            limit = None
            if best is not None or self.left > 1:
                limit = self._next(low, high, best is not None, run)
            if limit is not None:
                held = self._look(limit)
                if held is not None:
                    run = max(run, 0) + 1 if held else min(run, 0) - 1
            elif best is None:
                self._last_resort(top)
            else:
                return

    def refine(self) -> None:
        """Spend what is left on allocations that cost less than the best."""
        bold = True
        while self.left and (best := self.best()) is not None:
            under = self._cost(best) * (1 - UNDER)
            if under < self._least:
                return
            most = min(self._paid(best), under) if bold else under
            if not self._within(most):
                most = under
            if not self._within(most):
                return

            def problem(table: Sensitivities, most: float = most) -> Problem:
                return self._problem(most, table)

            def enough(most: float = most) -> bool:
                return any(map(self.target.holds, self._within(most)))

            found = refined(
                self.study, self.pool, problem, self._problem(most), self._moved,
                self._predictor.expected, self.left, self.progress, enough,
            )  # fmt: skip
            self.left -= found.measured
            self.evaluations += found.evaluations
            if not (enough() or bold):
                return
            bold = enough()

    def best(self) -> Looked | None:
        """The cheapest measured allocation that holds; of equal costs the best."""
        holds = [at for at in self._within() if self.target.holds(at)]
        return min(
            holds,
            key=lambda at: (self._cost(at), at.overall(self.pool.metric), at.trial.key),
            default=None,
        )

    def failed(self, below: float) -> Looked | None:
        """The dearest measured allocation that fails and costs less than ``below``."""
        every = self._within()
        fails = [at for at in every if self._cost(at) < below and not self.target.holds(at)]
        return max(fails, key=self._cost, default=None)

    @property
    def keeps_all(self) -> bool:
        """Whether all layers may be kept."""
        kept = dict.fromkeys(self.costs.layers, KEEP)
        return fitting(self._problem(), [kept])[0]

    def predicted(self, schemes: Mapping[str, str]) -> float:
        """The total of ``table``."""
        return self._problem().total_loss(schemes)

    def _next(self, low: float, high: float, held: bool, run: int) -> float | None:
        """The cost to look at next; None where none is worth it, or all that there is must be.

        held: whether what costs ``high`` was measured, and holds. run: as of ``narrow``.
        """
        aimed = self._aimed(STEP ** (math.copysign(2.0 ** min(abs(run), MOST) - 1, run)))
        if not held and not aimed < high:
            return None
        limit = aimed if low < aimed < high else (low + high) / 2
        while high - low > RESOLVED * high:
            if not self._seen(self._at(limit)):
                return limit
            low = limit  # the least loss within it was measured, and failed
            limit = (low + high) / 2
        return None

    def _cost(self, at: Looked) -> float:
        return at.trial.costs[self.resource]

    def _problem(self, most: float | None = None, table: Sensitivities | None = None) -> Problem:
        found = build_problem(
            self.table if table is None else table, self.costs, self.budgets,
            groups=self.selection.groups, pins=self.selection.pins,
        )  # fmt: skip
        if most is None:
            return found
        limit = min(most, found.limits.get(self.resource, most))
        return replace(found, limits={**found.limits, self.resource: limit})

    def _within(self, most: float | None = None) -> list[Looked]:
        """What was measured within the budgets, and a cost."""
        return self.pool.within(self._problem(most))

    def _cheapest(self) -> float:
        """The least cost of any allocation."""
        problem = self._problem()
        costs = replace(problem, loss=problem.costs[self.resource])
        return allocate(costs).costs[self.resource]

    def _at(self, most: float) -> Allocation:
        return allocate(self._problem(most))

    def _seen(self, allocation: Allocation) -> bool:
        every = self.pool.possible(self._problem())
        return any(at.trial.schemes == allocation.schemes for at in every)

    def _aimed(self, factor: float) -> float:
        """The least cost at which ``factor`` times the loss that the bound allows is expected.

        nan where it never is.
        """
        if self.target.most <= 0:
            return math.nan
        problem = self._problem()
        seen = self.pool.possible(problem)
        corrected = recalibration(
            [problem.total_loss(at.trial.schemes) for at in seen],
            [at.overall(self.pool.metric) for at in seen],
        )
        return self._costing(corrected.predicted(self.target.most * factor))

    def _costing(self, loss: float) -> float:
        """The least cost at a predicted loss; nan where there is none so small."""
        try:
            return cheapest(self._problem(), self.resource, loss).costs[self.resource]
        except Infeasible:
            return math.nan

    def _paid(self, best: Looked) -> float:
        """The cost that is enough once the loss that ``best`` has to spare is spent."""
        worse, most = best.overall(self.pool.metric), self.target.most
        if not 0 < worse < most:
            return math.inf
        cost = self._costing(self._at(self._cost(best)).loss * min(most / worse, SPENT))
        return math.inf if math.isnan(cost) else cost

    def _look(self, most: float) -> bool | None:
        """Verify the least loss within a cost, and measure it: whether the bound holds of it.

        None where it was measured before.
        """
        left = None if self.allowance is None else self.allowance - len(self.fresh)
        if self.table.metric in self.study.task.metrics and left != 0:
            found = verified(
                self.study, self.table, lambda table: self._problem(most, table), "ilp",
                self.known, left, self.progress,
            )  # fmt: skip
            self.table = found.table
            self._predictor = Predictor(self.pool, self._problem())
            self.known |= set(found.fresh)
            self.fresh += found.fresh
            self.evaluations += len(found.fresh)
        allocation = self._at(most)
        if self._seen(allocation):
            return None
        return self._measured(allocation.schemes, "cheapest", "verified", bound=allocation.bound)

    def _last_resort(self, top: Allocation) -> None:
        """The least predicted loss of all; raises ``Infeasible`` where even that fails."""
        if not self._seen(top):
            self._measured(top.schemes, "cheapest", "verified", bound=top.bound)
        if self.best() is None:
            every = self._within()
            nearest = min(every, key=lambda at: (at.overall(self.pool.metric), at.trial.key))
            raise missed(self.target, nearest)

    def _moved(self, every: Sequence[Mapping[str, str]], progress: Progress) -> list[Trial]:
        return measured(
            self.study, [self._asked(schemes, "refine", "refined") for schemes in every], progress
        )

    def _measured(self, schemes: Mapping[str, str], solver: str, table: str, bound: float) -> bool:
        self.progress(WHAT, self._all - self.left, self._all)
        (trial,) = measured(self.study, [self._asked(schemes, solver, table, bound)])
        self.pool.add([trial])
        self.left -= 1
        self.evaluations += 1
        return self.target.holds(self.pool[trial.id])

    def _asked(
        self,
        schemes: Mapping[str, str],
        solver: str,
        table: str,
        bound: float = math.nan,
    ) -> Asked:
        expected = self._predictor.expected(schemes)
        known = {
            "bound": bound, "predicted": self.predicted(schemes),
            "settings": {**self.settings, "table": table, "expected": expected},
        }  # fmt: skip
        return Asked(
            schemes, solver, self.costs.total(schemes), evaluation=False,
            wholes=self.target.metric.wholes, known=known,
        )  # fmt: skip


def missed(target: Target, nearest: Looked) -> Infeasible:
    """The error where the best there is, ``nearest``, fails."""
    value = target.value(nearest)
    possible = replace(target.bound, amount=_loosened(value, target.bound.sign))
    return Infeasible(
        f"{target.bound} does not hold of the best possible, which measures {value:.4g} on the "
        f"calibration data (trial {nearest.trial.id})",
        f"hold {possible}, raise the budgets, or allow larger schemes, or keep",
    )


def _loosened(value: float, sign: str) -> float:
    """The next number of four digits of which a bound on ``value`` holds."""
    if value == 0:
        return value
    digits = 3 - math.floor(math.log10(abs(value)))
    up = math.ceil if sign == "<=" else math.floor
    return round(up(value * 10.0**digits) / 10.0**digits, max(digits, 0))
