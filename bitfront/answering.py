"""One point of a search: candidates, each measured, the best one refined.

Candidates come from the allocations of several tables; which one answers is decided on the
calibration data, where all of them are measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from bitfront.errors import Infeasible
from bitfront.heldout import CALIBRATION
from bitfront.measuring import measure
from bitfront.problems import build_problem
from bitfront.refinement import Refined, refined
from bitfront.scheme import KEEP
from bitfront.search import allocate
from bitfront.sensitivity import PROFILERS
from bitfront.sensitivity.perturb import Perturb
from bitfront.shares import Shared, shared, shares_of
from bitfront.study import Progress, Study
from bitfront.tasks.selection import Selection
from bitfront.types import (
    Allocation,
    Budget,
    Costs,
    Interactions,
    Problem,
    Sensitivities,
    Trial,
)
from bitfront.verification import Pair, verified


@dataclass(frozen=True, eq=False)
class Answer:
    """What a search found for one point: budgets that hold together, and the trial chosen.

    predicted, bound: of the allocation by the table it was chosen by. table: that table's name, or
    ``verified``, ``shares`` (of the budget by class), ``uniform`` or ``refined`` (predicted then by
    the table that was refined from).
    verified: pairs that were measured for this point, in order. unverified: how many of the
    allocation's pairs rest on an estimate. evaluations: passes over calibration or evaluation data
    that the point took beyond profiling, two for each trial.
    """

    budgets: tuple[Budget, ...]
    trial: Trial
    predicted: float
    bound: float
    table: str
    verified: tuple[Pair, ...]
    unverified: int
    evaluations: int


@dataclass(frozen=True, eq=False)
class Point:
    """One point of a sweep, and all that decides its answer.

    interactions: temperature -> what layers add to each other's loss, for tables of it.
    """

    study: Study
    tables: Mapping[str, Sensitivities]
    costs: Costs
    selection: Selection
    budgets: tuple[Budget, ...]
    solver: str
    metric: str | None
    refine: int
    shares: int
    settings: Mapping[str, Any]
    interactions: Mapping[float, Interactions] = field(default_factory=dict)

    def answer(self, allowance: int | None, progress: Progress) -> Answer:
        """Candidates, each measured; the best one. allowance: measurements for verifying."""
        best_table = next(iter(self.tables.values()))
        target = self.metric or best_table.metric
        sources = {name: t for name, t in self.tables.items() if t.metric == target}
        first = next(iter(sources))
        table = sources[first]
        candidates: dict[str, Allocation] = {}
        fresh: tuple[Pair, ...] = ()
        if target in self.study.task.metrics and allowance != 0:
            found = verified(
                self.study, table, self._problem, self.solver, _known(self.study), allowance,
                progress,
            )  # fmt: skip
            candidates["verified"], fresh, table = found.allocation, found.fresh, found.table
        for name, source in sources.items():
            candidates[name] = allocate(self._problem(source), self.solver)
        looked, judged = 0, self._judged
        if table.classes and self.shares and self.solver != "uniform":
            split = self._split(table, judged, first, progress)
            candidates["shares"] = split.allocation
            completed = {candidates[first].choice, split.allocation.choice}
            looked = split.measured - len(completed)  # those are measured in full, and counted so
        with suppress(Infeasible):  # where only a mixture fits
            candidates["uniform"] = allocate(self._problem(best_table), "uniform")
        trials = self._measured(candidates, first, progress)
        best = min(trials, key=lambda name: self._rank(trials[name], judged))
        made = {
            t.id for t in trials.values() if t.settings.get("budgets") == self.settings["budgets"]
        }
        chosen, evaluations = trials[best], len(fresh) + looked + 2 * len(made)
        predicted, bound = candidates[best].loss, candidates[best].bound
        if self.refine and self.solver != "uniform":
            problem = self._problem(table)
            better = self._refined(chosen, problem, judged, first, progress)
            evaluations += better.evaluations
            if better.trial.id != chosen.id:
                best, chosen = "refined", self._complete(better.trial)
                evaluations += 1
                predicted = problem.objective(chosen.schemes)
                bound = candidates.get("verified", candidates[first]).bound  # of that problem
        return Answer(
            budgets=self.budgets,
            trial=chosen,
            predicted=predicted,
            bound=bound,
            table=best,
            verified=fresh,
            unverified=self._unverified(chosen.schemes),
            evaluations=evaluations,
        )

    @property
    def _judged(self) -> str:
        """The metric of the task that candidates are judged by."""
        best = next(iter(self.tables.values()))
        wanted = (self.metric or best.metric, best.target, "kl")
        return next(name for name in wanted if name in self.study.task.metrics)

    def _measure(self, schemes: Mapping[str, str], solver: str, **known: Any) -> Trial:
        """A trial with the metric that is judged by, on the calibration data at least."""
        judged = self.study.task.metric(self._judged)
        wholes = () if judged.whole is None else (judged.name,)
        costs = self.costs.total(schemes)
        return measure(self.study, schemes, solver, costs, wholes=wholes, **known)

    def _split(self, table: Sensitivities, metric: str, first: str, progress: Progress) -> Shared:
        """What the outer search for the classes' shares of the budget leads to."""

        def look(allocation: Allocation, factors: Mapping[str, float]) -> Trial:
            spent = shares_of(self.costs, self.budgets[0].resource, table, allocation)
            return self._measure(
                allocation.schemes, self.solver, evaluation=False,
                predicted=self._problem(table).objective(allocation.schemes),
                settings={
                    **self.settings, "table": "shares", "estimates": first,
                    "factors": factors, "shares": spent,
                },
            )  # fmt: skip

        return shared(
            self.study, table, self._problem, self.solver, metric, look, self.shares, progress
        )

    def _refined(
        self, start: Trial, problem: Problem, metric: str, first: str, progress: Progress
    ) -> Refined:
        """What moves from ``start`` lead to; each is measured on the calibration data."""
        settings = {**self.settings, "table": "refined", "estimates": first}

        def look(schemes: Mapping[str, str]) -> Trial:
            return self._measure(
                schemes, "refine", evaluation=False,
                predicted=problem.objective(schemes), settings=settings,
            )  # fmt: skip

        return refined(
            self.study, start, self._problem, problem, metric, look, self.refine, progress
        )

    def _complete(self, trial: Trial) -> Trial:
        """``trial``, measured on the evaluation data too."""
        return self._measure(trial.schemes, trial.solver)

    def _problem(self, table: Sensitivities) -> Problem:
        selection = self.selection
        return build_problem(
            table, self.costs, self.budgets, groups=selection.groups, pins=selection.pins,
            interactions=self.interactions.get(table.notes.get("temperature", 0.0)),
        )  # fmt: skip

    def _measured(
        self, candidates: Mapping[str, Allocation], first: str, progress: Progress
    ) -> dict[str, Trial]:
        trials = {}
        for done, (name, allocation) in enumerate(candidates.items()):
            progress("measuring allocations", done, len(candidates))
            source = {"table": name, "estimates": name if name in self.tables else first}
            trials[name] = self._measure(
                allocation.schemes,
                allocation.solver,
                predicted=allocation.loss,
                bound=allocation.bound,
                settings={**self.settings, **source},
            )
        progress("measuring allocations", len(candidates), len(candidates))
        return trials

    def _rank(self, trial: Trial, metric: str) -> float:
        value = trial.metrics[CALIBRATION + metric].value
        return -value if self.study.task.metric(metric).better == "higher" else value

    def _unverified(self, schemes: Mapping[str, str]) -> int:
        if not PROFILERS[self.settings["profiler"]].one_pass:
            return 0  # its pairs were measured one at a time
        measured = self.study.measurements("perturb", Perturb().settings_key)
        return sum(s != KEEP and (layer, s) not in measured for layer, s in schemes.items())


def _known(study: Study) -> set[Pair]:
    """Pairs that earlier answers rest on. Not all that is recorded: see ``verification``."""
    answered = study.store.selections(study.record)
    return {(layer, s) for found in answered for layer, s in found.details.get("verified", ())}
