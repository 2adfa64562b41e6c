"""One point of a search: candidates, each measured, and explorations from the best of them.

Candidates come from the allocations of several tables; which one answers is decided on the
calibration data, where all of them are measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from bitfront.errors import Infeasible
from bitfront.exploration import explored
from bitfront.limits import first_plain
from bitfront.measuring import Asked, measured
from bitfront.names import REFINE
from bitfront.pool import Pool
from bitfront.problems import build_problem
from bitfront.pruning import Hopeless
from bitfront.recalibration import Predictor
from bitfront.refinement import Refined, refined
from bitfront.scheme import KEEP
from bitfront.search import allocate
from bitfront.sensitivity import PROFILERS
from bitfront.sensitivity.perturb import Perturb
from bitfront.shares import Shared, shared, shares_of
from bitfront.study import Progress, Study
from bitfront.tasks.selection import Selection
from bitfront.tempering import tempered
from bitfront.types import (
    Allocation,
    Budget,
    Costs,
    Interactions,
    Problem,
    Sensitivities,
    Trial,
)
from bitfront.verification import Pair, Verified, verified

UNIFORM = "uniform"


@dataclass(frozen=True, eq=False)
class Answer:
    """What a search found for one point: budgets that hold together, and the trial chosen.

    predicted, bound: of the allocation by the table it was chosen by. table: that table's name, or
    ``verified``, ``shares`` (of the budget by class), ``uniform``, ``tempered`` (by a power of a
    table), ``refined`` or ``explored`` (predicted then by the table that was explored from).
    judged: the metric that candidates were judged by, on the calibration data.
    noise: whether another allocation that was measured is worse by less than its standard error.
    measured: numbers of the trials that it was chosen among.
    verified: pairs that were measured for this point, in order. unverified: how many of the
    allocation's pairs rest on an estimate. evaluations: passes over calibration or evaluation data
    that the point took beyond profiling, two for each trial; one that exploring gave up after a
    part of the data counts as one.
    """

    budgets: tuple[Budget, ...]
    trial: Trial
    predicted: float
    bound: float
    table: str
    verified: tuple[Pair, ...]
    unverified: int
    evaluations: int
    judged: str
    noise: bool
    measured: tuple[int, ...]

    @property
    def expected(self) -> float:
        """``Trial.expected`` of the one chosen."""
        return self.trial.expected


@dataclass(frozen=True, eq=False)
class Point:
    """One point of a sweep, and all that decides its answer.

    explore: measurements of the first exploration. interactions: temperature -> what layers add to
    each other's loss, for tables of it.
    """

    study: Study
    tables: Mapping[str, Sensitivities]
    costs: Costs
    selection: Selection
    budgets: tuple[Budget, ...]
    solver: str
    metric: str | None
    verify: bool
    explore: int
    explorer: str
    shares: int
    settings: Mapping[str, Any]
    interactions: Mapping[float, Interactions] = field(default_factory=dict)

    def answer(self, allowance: int | None, known: Sequence[Trial], progress: Progress) -> Answer:
        """Candidates, each measured, and what explorations from the best of them lead to.

        allowance: measurements for verifying. known: what earlier points measured.
        """
        sources = self._sources
        first, table = next(iter(sources.items()))
        candidates: dict[str, Allocation] = {}
        fresh: tuple[Pair, ...] = ()
        found = self._verified(table, allowance, progress) if allowance != 0 else None
        if found is not None:
            candidates["verified"], fresh, table = found.allocation, found.fresh, found.table
            sources = {"verified": table, **sources}
        for name, source in self.tables.items():
            if name in sources:
                candidates[name] = allocate(self._problem(source), self.solver)
        problem = self._problem(table)
        everything = Pool(self.study, self._judged)
        predictor = Predictor(everything, problem)
        predictor.learn(known)
        looked = 0
        if table.classes and self.shares and self.solver != UNIFORM:
            split = self._split(problem, table, predictor, first, progress)
            candidates["shares"] = split.allocation
            completed = {candidates[first].choice, split.allocation.choice}
            looked = split.measured - len(completed)  # those are measured in full, and counted so
        with suppress(Infeasible):  # where only a mixture fits
            candidates[UNIFORM] = allocate(self._problem(next(iter(self.tables.values()))), UNIFORM)
        trials = self._measured(candidates, predictor, first, progress)
        made = {
            t.id for t in trials.values() if t.settings.get("budgets") == self.settings["budgets"]
        }
        evaluations = len(fresh) + looked + 2 * len(made)
        pool = everything.beside()  # what may answer: not the splits of a budget
        pool.add(trials.values())
        if self.explore and self.solver != UNIFORM:
            pool.add(known)
            problems = {name: self._problem(source) for name, source in sources.items()}
            evaluations += self._explored(
                pool, problem, problems, predictor, trials, first, progress
            )
        chosen = pool.best(problem)
        best = chosen.looked.trial
        origin = next((name for name, trial in trials.items() if trial.id == best.id), None)
        if origin is None:
            best, evaluations = self._complete(best), evaluations + 1
            predicted = problem.objective(best.schemes)
            bound = next(iter(candidates.values())).bound  # of that problem
        else:
            predicted, bound = candidates[origin].loss, candidates[origin].bound
        return Answer(
            budgets=self.budgets,
            trial=best,
            predicted=predicted,
            bound=bound,
            table=origin or str(best.settings.get("table", best.solver)),
            verified=fresh,
            unverified=self.unverified(best.schemes),
            evaluations=evaluations,
            judged=self._judged,
            noise=chosen.noise,
            measured=tuple(pool.ids()),
        )

    def further(self, answer: Answer, allowance: int, pool: Pool, progress: Progress) -> Answer:
        """``answer``, after refinement went on from the best of ``pool``.

        allowance: allocations that may be measured, which are added to ``pool``. The trial may lack
        figures on the evaluation data.
        """
        first, table = next(iter(self._sources.items()))
        found = self._verified(table, 0, progress)
        problem = self._problem(table if found is None else found.table)
        bound = (allocate(problem, self.solver) if found is None else found.allocation).bound
        predictor = Predictor(pool, problem)
        spent = self._refined(pool, problem, predictor, first, allowance, progress).evaluations
        chosen = pool.best(problem)
        trial = chosen.looked.trial
        answer = replace(
            answer, evaluations=answer.evaluations + spent, measured=tuple(pool.ids()),
            noise=chosen.noise,
        )  # fmt: skip
        if trial.id == answer.trial.id:
            return answer
        return replace(
            answer, trial=trial, predicted=problem.objective(trial.schemes), bound=bound,
            table=str(trial.settings.get("table", trial.solver)),
            unverified=self.unverified(trial.schemes),
        )  # fmt: skip

    @property
    def _sources(self) -> dict[str, Sensitivities]:
        """The tables of the metric that is to be kept low, the most trustworthy first."""
        target = self.metric or next(iter(self.tables.values())).metric
        return {name: t for name, t in self.tables.items() if t.metric == target}

    def _verified(
        self, table: Sensitivities, allowance: int | None, progress: Progress
    ) -> Verified | None:
        """The allocation of measured values; None where values are not to be measured, or cannot.

        allowance: pairs that may be measured beyond those that earlier answers rest on.
        """
        if not self.verify or table.metric not in self.study.task.metrics:
            return None
        return verified(
            self.study, table, self._problem, self.solver, known_pairs(self.study), allowance,
            progress,
        )  # fmt: skip

    def _explored(
        self,
        pool: Pool,
        problem: Problem,
        problems: Mapping[str, Problem],
        predictor: Predictor,
        trials: Mapping[str, Trial],
        first: str,
        progress: Progress,
    ) -> int:
        """Adds to ``pool`` what measuring on leads to; how many passes that took."""

        def look(schemes: Mapping[str, str], hopeless: Hopeless) -> Trial:
            return self._look(
                schemes, self.explorer, problem, predictor, hopeless, table="explored",
                estimates=first,
            )  # fmt: skip

        if self.explorer != REFINE:
            return explored(self.study, pool, problem, self.explorer, look, self.explore, progress)

        def temper(allocation: Allocation, table: str, power: float) -> Trial:
            return self._look(
                allocation.schemes, self.solver, problem, predictor, table="tempered",
                estimates=table if table in self.tables else first, power=power,
            )  # fmt: skip

        spent = tempered(pool, problems, trials, self.solver, temper, self.explore)
        left = self.explore - spent
        found = self._refined(pool, problem, predictor, first, left, progress)
        return spent + found.evaluations

    def _refined(
        self,
        pool: Pool,
        problem: Problem,
        predictor: Predictor,
        first: str,
        allowance: int,
        progress: Progress,
    ) -> Refined:
        def move(every: Sequence[Mapping[str, str]], progress: Progress) -> list[Trial]:
            asked = [
                self._looking(schemes, REFINE, problem, predictor, table="refined", estimates=first)
                for schemes in every
            ]
            trials = measured(self.study, asked, progress)
            predictor.learn(trials)
            return trials

        return refined(
            self.study, pool, self._problem, problem, move, predictor.expected, allowance, progress
        )

    def _look(
        self,
        schemes: Mapping[str, str],
        solver: str,
        problem: Problem,
        predictor: Predictor,
        hopeless: Hopeless | None = None,
        **settings: Any,
    ) -> Trial:
        """An allocation measured on the calibration data only.

        What was measured before says what is expected of it.
        """
        asked = self._looking(schemes, solver, problem, predictor, hopeless, **settings)
        trials = measured(self.study, [asked])
        predictor.learn(trials)
        return trials[0]

    def _looking(
        self,
        schemes: Mapping[str, str],
        solver: str,
        problem: Problem,
        predictor: Predictor,
        hopeless: Hopeless | None = None,
        **settings: Any,
    ) -> Asked:
        settings["expected"] = predictor.expected(schemes)
        return self._asked(
            schemes, solver, evaluation=False, hopeless=hopeless,
            predicted=problem.objective(schemes), settings={**self.settings, **settings},
        )  # fmt: skip

    @property
    def _judged(self) -> str:
        """The metric of the task that candidates are judged by."""
        best = next(iter(self.tables.values()))
        wanted = (self.metric or best.metric, best.target, "kl")
        return next(name for name in wanted if name in self.study.task.metrics)

    def _asked(
        self,
        schemes: Mapping[str, str],
        solver: str,
        evaluation: bool = True,
        hopeless: Hopeless | None = None,
        **known: Any,
    ) -> Asked:
        """To be measured by the metric that is judged by, on the calibration data at least."""
        wholes = self.study.task.metric(self._judged).wholes
        costs = self.costs.total(schemes)
        return Asked(schemes, solver, costs, evaluation, wholes, hopeless, known)

    def _split(
        self,
        problem: Problem,
        table: Sensitivities,
        predictor: Predictor,
        first: str,
        progress: Progress,
    ) -> Shared:
        """What the outer search for the classes' shares of the budget leads to."""

        def look(allocation: Allocation, factors: Mapping[str, float]) -> Trial:
            resource = first_plain(self.budgets, self.costs)
            spent = shares_of(self.costs, resource, table, allocation)
            return self._look(
                allocation.schemes, self.solver, problem, predictor,
                table="shares", estimates=first, factors=factors, shares=spent,
            )  # fmt: skip

        return shared(
            self.study, table, self._problem, self.solver, self._judged, look, self.shares, progress
        )

    def _complete(self, trial: Trial) -> Trial:
        """``trial``, measured on the evaluation data too."""
        return measured(self.study, [self._asked(trial.schemes, trial.solver)])[0]

    def _problem(self, table: Sensitivities) -> Problem:
        selection = self.selection
        return build_problem(
            table, self.costs, self.budgets, groups=selection.groups, pins=selection.pins,
            interactions=self.interactions.get(table.notes.get("temperature", 0.0)),
        )  # fmt: skip

    def _measured(
        self,
        candidates: Mapping[str, Allocation],
        predictor: Predictor,
        first: str,
        progress: Progress,
    ) -> dict[str, Trial]:
        trials = {}
        for done, (name, allocation) in enumerate(candidates.items()):
            progress("measuring allocations", done, len(candidates))
            source = {
                "table": name,
                "estimates": name if name in self.tables else first,
                "expected": predictor.expected(allocation.schemes),
            }
            asked = self._asked(
                allocation.schemes, allocation.solver, predicted=allocation.loss,
                bound=allocation.bound, settings={**self.settings, **source},
            )  # fmt: skip
            (trials[name],) = measured(self.study, [asked])
            predictor.learn([trials[name]])
        progress("measuring allocations", len(candidates), len(candidates))
        return trials

    def unverified(self, schemes: Mapping[str, str]) -> int:
        """How many of the allocation's pairs rest on an estimate."""
        if not PROFILERS[self.settings["profiler"]].one_pass:
            return 0  # its pairs were measured one at a time
        measured = self.study.measurements("perturb", Perturb().settings_key)
        return sum(s != KEEP and (layer, s) not in measured for layer, s in schemes.items())


def known_pairs(study: Study) -> set[Pair]:
    """Pairs that earlier answers rest on. Not all that is recorded: see ``verification``."""
    answered = study.store.selections(study.record)
    return {(layer, s) for found in answered for layer, s in found.details.get("verified", ())}
