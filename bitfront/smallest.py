"""The smallest model whose measured metric holds, by as few measurements as possible."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from bitfront.answering import known_pairs
from bitfront.deadlines import in_time, sparing
from bitfront.errors import UnknownName
from bitfront.latency import timed
from bitfront.measuring import measure
from bitfront.narrowing import Narrowing, missed
from bitfront.pipeline import Choices, cost, full_model, plain_choices, profile, selected
from bitfront.pool import Pool
from bitfront.problems import feasible
from bitfront.scored import chosen_profiler, scored
from bitfront.searching import EXPLORE, earlier
from bitfront.sensitivity import Profiler
from bitfront.storage import Selection as Recorded
from bitfront.study import Progress, Study, silent
from bitfront.target import looked_at, require_target, target
from bitfront.targeting import targeted
from bitfront.targets import all_aimed
from bitfront.tasks.numbers import require
from bitfront.tasks.selection import Selection
from bitfront.types import Budget, Costs, Scheme, Trial, content_key
from bitfront.verification import Pair
from bitfront.within import Bound


@dataclass(frozen=True, eq=False)
class Smallest:
    """What was found for a bound on a measured metric.

    hold: the bound. resource: whose total is the least found. budgets: that hold besides. trial:
    the cheapest one measured of which the bound holds, on calibration data and data held back
    together, where its metric is ``value``. failed: number of the dearest cheaper trial of which it
    does not, and ``failed_cost`` what that costs; None where there is none. predicted: of the
    trial, by the table with what was verified. verified: pairs that were measured, in order.
    allocations: how many were measured for it. evaluations: passes that these, and verifying, took
    over calibration or evaluation data. measured: numbers of the trials that it was chosen among.
    """

    hold: Bound
    resource: str
    budgets: tuple[Budget, ...]
    trial: Trial
    value: float
    failed: int | None
    failed_cost: float | None
    predicted: float
    verified: tuple[Pair, ...]
    allocations: int
    evaluations: int
    measured: tuple[int, ...]

    @property
    def expected(self) -> float:
        """``Trial.expected`` of the one found."""
        return self.trial.expected

    @property
    def table(self) -> str:
        """What it came from: ``verified``, ``refined``, or what an earlier search says."""
        return str(self.trial.settings.get("table", self.trial.solver))

    @property
    def judged(self) -> str:
        """The metric."""
        return self.hold.name

    @property
    def holds_on_evaluation(self) -> bool:
        """Whether the bound holds on the evaluation data too."""
        return self.hold.holds(self.trial)


_DETAILS = (
    "value", "failed", "failed_cost", "predicted", "verified", "allocations", "evaluations",
    "measured",
)  # fmt: skip


def smallest(
    study: Study,
    schemes: str | Iterable[str | Scheme] | None,
    hold: str | Bound,
    *,
    resource: str = "bytes",
    budgets: Sequence[str | Budget] = (),
    profiler: str | Profiler = "fisher",
    choices: Choices | None = None,
    verify: bool = True,
    max_measurements: int | None = None,
    explore: int = EXPLORE,
    progress: Progress = silent,
) -> Smallest:
    """The allocation with the least total of ``resource`` of which ``hold`` was measured to hold.

    hold: a bound on a metric of the task, like ``kl<=0.05`` or ``top1>=0.9``. It is judged on the
    calibration data, what is held back of it included; the evaluation data are only reported.
    resource: of ``cost``, such as ``bytes``, ``bits``, ``bops``. budgets: all hold besides.
    explore: at most so many allocations are measured, on the calibration data.
    verify, max_measurements: as of ``search``. How it is found: ``narrowing``. With targets it is
    timed as a whole model, and kept in time, as the answers of ``search`` are.

    Raises ``Infeasible`` when nothing is within the budgets, and when the bound does not hold even
    of the least loss (of the full model, where all layers may be kept), with what that measured;
    ``UnknownName`` for a metric or resource there is none of; ``InvalidInput`` for a bound that
    cannot be read, or is on the wrong side.
    """
    bound = hold if isinstance(hold, Bound) else Bound.parse(hold)
    require_target(study, bound)
    require(1, explore=explore)
    require(0, max_measurements=max_measurements)
    chosen = chosen_profiler(study, profiler)
    wanted, choices = targeted(study, schemes, choices or Choices(), progress)
    limits = tuple(b if isinstance(b, Budget) else Budget.parse(b) for b in budgets)
    selection = selected(study, choices)
    costs = scored(study, chosen, cost(study, wanted, choices, limits), selection.pins)
    require_resource(resource, costs.tables)
    asked = _Asked(
        study, wanted, bound, resource, chosen, costs, selection, choices, verify, explore, progress
    )
    answer = asked.within(limits, max_measurements)
    left = None if max_measurements is None else max(max_measurements - len(answer.verified), 0)
    tightened = sparing(partial(asked.within, tightened=True), left)
    return in_time(answer, all_aimed(choices.targets), costs, tightened)


@dataclass(frozen=True, eq=False)
class _Asked:
    """What was asked for but the budgets, checked and priced."""

    study: Study
    schemes: tuple[Scheme, ...]
    hold: Bound
    resource: str
    profiler: Profiler
    costs: Costs
    selection: Selection
    choices: Choices
    verify: bool
    explore: int
    progress: Progress

    def within(
        self, budgets: tuple[Budget, ...], max_measurements: int | None, tightened: bool = False
    ) -> Smallest:
        """What is found within ``budgets``, timed on the targets. tightened: as of ``search``."""
        study, bound, selection, costs = self.study, self.hold, self.selection, self.costs
        request: dict[str, Any] = {
            "hold": str(bound), "resource": self.resource, "budgets": [str(b) for b in budgets],
            "schemes": [str(s) for s in self.schemes], "profiler": self.profiler.settings_key,
            "choices": plain_choices(self.choices), "verify": self.verify,
            "max_measurements": max_measurements, "explore": self.explore,
            **({"tightened": True} if tightened else {}),
        }  # fmt: skip
        key = content_key(request)
        recorded = study.store.selection(study.record, key)
        if recorded is not None:
            return self._timed(_recorded(study, bound, self.resource, budgets, recorded))

        feasible(costs, budgets, groups=selection.groups, pins=selection.pins)
        full = full_model(study, costs, study.task.metric(bound.name).wholes)
        pool = Pool(study, bound.name)
        pool.add([full])
        wall = target(study, bound, looked_at(pool, full.id, bound.name))
        tables = profile(
            study, self.schemes, self.profiler, layers=selection.layers, progress=self.progress
        )
        first = next((n for n, t in tables.items() if t.metric == bound.name), next(iter(tables)))
        pool.add(earlier(study))
        found = Narrowing(
            study, tables[first], costs, selection, budgets, wall, self.resource, pool,
            known_pairs(study), self.explore, max_measurements if self.verify else 0,
            {
                "profiler": self.profiler.name,
                "container": self.choices.container or study.container,
                "weights": costs.weights, "budgets": [*map(str, budgets), str(bound)],
                "estimates": first,
            },
            self.progress,
        )  # fmt: skip
        if found.keeps_all and not wall.holds(pool[full.id]):
            raise missed(wall, pool[full.id])
        found.narrow()
        found.refine()
        best = found.best()
        assert best is not None  # narrowing ended
        failed = found.failed(best.trial.costs[self.resource])
        trial = measure(study, best.trial.schemes, best.trial.solver, best.trial.costs)
        answer = Smallest(
            hold=bound,
            resource=self.resource,
            budgets=budgets,
            trial=trial,
            value=wall.value(best),
            failed=None if failed is None else failed.trial.id,
            failed_cost=None if failed is None else failed.trial.costs[self.resource],
            predicted=found.predicted(trial.schemes),
            verified=tuple(found.fresh),
            allocations=self.explore - found.left,
            evaluations=found.evaluations + 1,
            measured=tuple(pool.ids()),
        )
        details = {name: getattr(answer, name) for name in _DETAILS}
        if tightened:
            details["tightened"] = True
        study.store.add_selection(study.record, key, trial.id, details)
        return self._timed(answer)

    def _timed(self, found: Smallest) -> Smallest:
        aims = all_aimed(self.choices.targets)
        (trial,) = timed(self.study, aims, [found.trial], self.progress)
        return replace(found, trial=trial)


def require_resource(resource: str, counted: Iterable[str]) -> None:
    """Raises ``UnknownName`` for a resource that is no sum over layers which is counted here."""
    known = tuple(counted)
    if resource not in known:
        raise UnknownName(
            f"the least total of {resource!r}, which is not counted here",
            f"choose from {', '.join(known)}",
        )


def _recorded(
    study: Study, hold: Bound, resource: str, budgets: tuple[Budget, ...], found: Recorded
) -> Smallest:
    details: dict[str, Any] = dict(found.details)
    pairs = tuple((layer, scheme) for layer, scheme in details.pop("verified"))
    measured = tuple(details.pop("measured"))
    details.pop("tightened", None)
    trial = study.trial(found.trial_id)
    return Smallest(hold, resource, budgets, trial, verified=pairs, measured=measured, **details)
