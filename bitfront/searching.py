"""A search: each point of a sweep by itself, then all of them with the whole front in view."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from bitfront.answering import UNIFORM, Answer, Point
from bitfront.deadlines import Lateness, in_time, sparing
from bitfront.errors import InvalidInput
from bitfront.heldout import evaluated
from bitfront.latency import timed
from bitfront.measuring import measure
from bitfront.names import REFINE, check_explorer
from bitfront.pipeline import (
    Choices,
    cost,
    full_model,
    interactions_of,
    plain_choices,
    profile,
    selected,
)
from bitfront.pool import Pool
from bitfront.problems import build_problem, feasible, lossless, points
from bitfront.scored import chosen_profiler, scored
from bitfront.search import INTERACTING, alike, fitting, require_additive
from bitfront.sensitivity import Profiler
from bitfront.shares import SHARES
from bitfront.storage import Selection as Recorded
from bitfront.study import Progress, Study, silent
from bitfront.sweep import first_share, improved, passed
from bitfront.targeting import targeted
from bitfront.targets import Aimed, all_aimed
from bitfront.tasks.numbers import require
from bitfront.tasks.selection import Selection
from bitfront.types import (
    Budget,
    Costs,
    Interactions,
    Layer,
    Problem,
    Scheme,
    Sensitivities,
    Trial,
    content_key,
)

EXPLORE = 20  # measured allocations of each point's exploration

_DETAILS = (
    "predicted", "bound", "table", "verified", "unverified", "evaluations", "judged",
    "noise", "measured",
)  # fmt: skip


def search(
    study: Study,
    schemes: str | Iterable[str | Scheme] | None,
    budgets: Sequence[str | Budget],
    *,
    solver: str = "ilp",
    profiler: str | Profiler = "fisher",
    metric: str | None = None,
    choices: Choices | None = None,
    verify: bool = True,
    max_measurements: int | None = None,
    explore: int = EXPLORE,
    explorer: str = REFINE,
    shares: int = SHARES,
    progress: Progress = silent,
) -> list[Answer]:
    """The best measured allocation for each point of ``budgets`` (``problems.points``).

    For each point the allocation of the profiler's best table is verified: the pairs that it chose
    are measured one at a time with the real metric, the measured values replace the estimates, and
    it is solved again until it rests on measured values only, or ``max_measurements`` (over the
    whole call) are spent. The allocations of the other tables, and the best uniform one, are
    candidates too. Every distinct candidate is built, measured and stored as a trial; the one with
    the best ``metric`` on the calibration data is explored from by at most ``explore`` allocations
    that are measured there (``tempering``, ``refinement``; not with the solver ``uniform``). Of
    several points each has a part of them first, and the rest once all points were answered, as
    long as the front moves (``sweep``). The best of all answers the point, or one that another
    point led to. The full model is a trial as well, so that a front has its end.

    explorer: another than ``refine`` is one of ``bitfront.search.EXPLORERS``, which proposes what
    is measured from all that was measured (``exploration``).

    A solver of ``INTERACTING`` is given what layers add to each other's loss at the temperature of
    the table (``Profiler.interactions``); predicted losses are then its objective's.

    Where the best table has classes of layers (``decoupled``), the split of the budget between them
    is searched for first, by at most ``shares`` measurements (``shares``).

    Where ``choices`` has targets, what they cannot run is barred and their seconds are costs, timed
    first where they are not recorded; ``schemes`` may then be None, for those that they offer, and
    the answers are timed as whole models (``latency``). One that takes longer than a limit on its
    seconds is searched for again within less (``deadlines``).

    By scores that were imported, pairs without one are no candidates (``scored``).

    Before anything is profiled, raises ``Infeasible`` for a point that cannot be met, and
    ``InvalidInput`` for a layer that an import has no score of, for a ``metric`` that the profiler
    gives no table of, and for a solver that needs interactions with a profiler without;
    ``UnknownName`` for an explorer there is none of.
    """
    chosen = chosen_profiler(study, profiler)
    require(0, max_measurements=max_measurements, explore=explore, shares=shares)
    measured = [n for n in study.task.metrics if study.task.metric(n).whole is None]
    _check_metric(study, metric, chosen, measured)
    check_solver(solver, chosen)
    check_explorer(explorer)
    sweep = points(budgets)
    wanted, choices = targeted(study, schemes, choices or Choices(), progress)
    selection = selected(study, choices)
    costs = cost(study, wanted, choices, [b for point in sweep for b in point])
    costs = scored(study, chosen, costs, selection.pins)
    found = _Search(
        study, wanted, chosen, costs, selection, choices, solver, metric, verify, explore, explorer,
        shares, progress,
    )  # fmt: skip
    answers = found.answers(sweep, max_measurements)
    left = None if max_measurements is None else max(max_measurements - _spent(answers), 0)
    tightened = sparing(found.tightened, left)
    return [
        in_time(answer, found.aims, costs, tightened, partial(found.alike, answer))
        for answer in answers
    ]


@dataclass(frozen=True, eq=False)
class _Search:
    """What a search's points have in common, checked and priced."""

    study: Study
    schemes: tuple[Scheme, ...]
    profiler: Profiler
    costs: Costs
    selection: Selection
    choices: Choices
    solver: str
    metric: str | None
    verify: bool
    explore: int
    explorer: str
    shares: int
    progress: Progress

    def answers(
        self,
        sweep: Sequence[tuple[Budget, ...]],
        max_measurements: int | None,
        tightened: bool = False,
    ) -> list[Answer]:
        """The answer of each point, timed on the targets.

        tightened: the limits are below those that were asked for; what is measured is not passed
        on to other searches, as they may have been before it.
        """
        study, costs, explore = self.study, self.costs, self.explore
        exploring = bool(explore) and self.solver != UNIFORM
        refining = exploring and self.explorer == REFINE
        first = first_share(explore, len(sweep)) if refining else explore
        request = {
            **self._request, "max_measurements": max_measurements,
            **({"first": first} if first < explore else {}),
            **({"tightened": True} if tightened else {}),
        }  # fmt: skip
        asked = [[str(b) for b in point] for point in sweep]
        keys = [content_key({**request, "budgets": budgets}) for budgets in asked]
        known = [study.store.selection(study.record, key) for key in keys]
        for point, found in zip(sweep, known, strict=True):
            if found is None:
                feasible(
                    costs, point, groups=self.selection.groups, pins=self.selection.pins,
                    solver=self.solver,
                )  # fmt: skip

        answers: list[Answer] = []
        for point, key, found in zip(sweep, keys, known, strict=True):
            if found is None:
                left = None if max_measurements is None else max_measurements - _spent(answers)
                place = self._point(point, first)
                answers.append(place.answer(left, earlier(study), self.progress))
                _record(study, key, answers[-1], tightened)
            else:
                answers.append(_recorded(study, point, found))
        if not exploring:
            return self._timed(answers)

        pool = Pool(study, answers[0].judged)
        if first < explore:
            finals = [content_key({**request, "budgets": b, "sweep": asked}) for b in asked]
            recorded = [study.store.selection(study.record, key) for key in finals]
            if None in recorded:
                pool.add(earlier(study, besides=finals))
                places = [self._point(point, first) for point in sweep]
                answers = passed(pool, places, answers, self._problem, explore, self.progress)
                for key, answer in zip(finals, map(self._complete, answers), strict=True):
                    _record(study, key, answer, tightened)
                recorded = [study.store.selection(study.record, key) for key in finals]
            answers = [
                _recorded(study, point, found)
                for point, found in zip(sweep, recorded, strict=True)
                if found is not None
            ]
        pool.add(earlier(study))
        answers = improved(pool, answers, self._problem)
        return self._timed([self._complete(answer) for answer in answers])

    def tightened(self, point: tuple[Budget, ...], max_measurements: int | None) -> Answer:
        """The answer of one point whose limits are below those that were asked for."""
        (answer,) = self.answers([point], max_measurements, tightened=True)
        return answer

    @cached_property
    def aims(self) -> tuple[Aimed, ...]:
        """The targets."""
        return all_aimed(self.choices.targets)

    def alike(self, answer: Answer, lateness: Lateness) -> Answer | None:
        """In place of ``answer`` the best of those in time that have all layers under one scheme,
        whatever was predicted, or the least late; None where none is within the other budgets.
        """
        seconds = {aim.resource for aim in self.aims}
        others = [budget for budget in answer.budgets if budget.resource not in seconds]
        tables, _ = self._profiled
        problem = build_problem(
            next(iter(tables.values())), self.costs, others, groups=self.selection.groups,
            pins=self.selection.pins,
        )  # fmt: skip
        every = alike(problem)
        wholes = self.study.task.metric(answer.judged).wholes
        settings = {**self._settings(answer.budgets), "table": UNIFORM}
        trials = [
            measure(
                self.study, schemes, UNIFORM, self.costs.total(schemes), wholes=wholes,
                predicted=problem.objective(schemes), settings=settings,
            )
            for schemes, fits in zip(every, fitting(problem, every), strict=True)
            if fits
        ]  # fmt: skip
        trials = timed(self.study, self.aims, trials, self.progress)
        pool = Pool(self.study, answer.judged)
        if not trials:
            return None
        least = min(map(lateness, trials))
        pool.add(trial for trial in trials if lateness(trial) == least)
        best = pool.best(problem)
        trial = best.looked.trial
        return replace(
            answer, trial=trial, predicted=problem.objective(trial.schemes), bound=float("nan"),
            table=UNIFORM, verified=(), evaluations=2 * len({t.id for t in trials}),
            unverified=self._point(answer.budgets, 0).unverified(trial.schemes), noise=best.noise,
            measured=tuple(pool.ids()),
        )  # fmt: skip

    @property
    def _request(self) -> dict[str, Any]:
        """What decides the answers, besides the budgets."""
        return {
            "schemes": [str(s) for s in self.schemes], "solver": self.solver,
            "profiler": self.profiler.settings_key, "metric": self.metric,
            "choices": plain_choices(self.choices), "verify": self.verify, "explore": self.explore,
            **({"shares": self.shares} if self.profiler.by_class else {}),
            **({"explorer": self.explorer} if self.explorer != REFINE else {}),
        }  # fmt: skip

    @cached_property
    def _profiled(self) -> tuple[dict[str, Sensitivities], dict[float, Interactions]]:
        study, layers = self.study, self.selection.layers
        tables = profile(
            study, self.schemes, self.profiler, layers=layers, progress=self.progress
        )  # fmt: skip
        full_model(study, self.costs)
        if self.solver not in INTERACTING:
            return tables, {}
        return tables, _interactions(study, self.schemes, self.profiler, layers, tables)

    def _point(self, budgets: tuple[Budget, ...], explore: int) -> Point:
        tables, interactions = self._profiled
        return Point(
            self.study, tables, self.costs, self.selection, budgets, self.solver, self.metric,
            self.verify, explore, self.explorer, self.shares, self._settings(budgets), interactions,
        )  # fmt: skip

    def _settings(self, budgets: Sequence[Budget]) -> dict[str, Any]:
        """Of each trial that is measured for ``budgets``."""
        return {
            "profiler": self.profiler.name,
            "container": self.choices.container or self.study.container,
            "weights": self.costs.weights,
            "budgets": [str(b) for b in budgets],
        }

    def _problem(self, budgets: Sequence[Budget]) -> Problem:
        selection = self.selection
        return lossless(self.costs, budgets, groups=selection.groups, pins=selection.pins)

    def _complete(self, answer: Answer) -> Answer:
        """``answer``, measured on the evaluation data too."""
        trial = answer.trial
        if evaluated(trial):
            return answer
        costs = self.costs.total(trial.schemes)
        trial = measure(self.study, trial.schemes, trial.solver, costs)
        return replace(answer, trial=trial, evaluations=answer.evaluations + 1)

    def _timed(self, answers: Sequence[Answer]) -> list[Answer]:
        trials = timed(self.study, self.aims, [answer.trial for answer in answers], self.progress)
        return [replace(answer, trial=trial) for answer, trial in zip(answers, trials, strict=True)]


def check_solver(solver: str, profiler: Profiler) -> None:
    """Refuse one that needs interactions where the profiler has none (``InvalidInput``)."""
    if not profiler.interacts:
        require_additive(
            solver,
            f"with {profiler.name}, which says nothing of interactions",
            "profile with fisher, or solve with another, like ilp",
        )


def earlier(study: Study, besides: Collection[str] = ()) -> list[Trial]:
    """The trials that earlier answers were chosen among, by key: their numbers say who was first to
    be measured, which nothing may depend on. Not all that is recorded, so that a search that was
    killed goes on as if it had not been; nor what led to the answers within tightened limits, which
    may have been found before or after.

    besides: keys of requests whose answers are left out.
    """
    answered = study.store.selections(study.record)
    ids = dict.fromkeys(
        id
        for found in answered
        if found.request_key not in besides and not found.details.get("tightened")
        for id in found.details.get("measured", ())
    )
    return sorted((t for t in study.trials() if t.id in ids), key=lambda trial: trial.key)


def _check_metric(
    study: Study, metric: str | None, profiler: Profiler, measured: Sequence[str]
) -> None:
    """Refuse a metric that no table will be of. measured: the task's, of batches."""
    key = profiler.settings_key
    imported = () if profiler.measures else study.measurements(profiler.name, key).values()
    empty = profiler.tables(imported, (), ())
    given = {table.metric for table in empty.values()} or set(measured)
    if metric is not None and metric not in given:
        raise InvalidInput(
            f"{profiler.name} gives no table of metric {metric!r}",
            f"choose from {', '.join(given)}",
        )


def _interactions(
    study: Study,
    schemes: Sequence[Scheme],
    profiler: Profiler,
    layers: Sequence[Layer],
    tables: Mapping[str, Sensitivities],
) -> dict[float, Interactions]:
    """Temperature -> interactions, for tables that have one."""
    of = {table.notes["temperature"]: table for table in tables.values()}
    found = {T: interactions_of(study, schemes, profiler, layers, of[T]) for T in sorted(of)}
    return {T: known for T, known in found.items() if known is not None}


def _spent(answers: Iterable[Answer]) -> int:
    return sum(len(answer.verified) for answer in answers)


def _record(study: Study, key: str, answer: Answer, tightened: bool) -> None:
    details = {name: getattr(answer, name) for name in _DETAILS}
    if tightened:
        details["tightened"] = True
    study.store.add_selection(study.record, key, answer.trial.id, details)


def _recorded(study: Study, budgets: tuple[Budget, ...], found: Recorded) -> Answer:
    details = dict(found.details)
    pairs = tuple((layer, scheme) for layer, scheme in details.pop("verified"))
    measured = tuple(details.pop("measured"))
    details.pop("tightened", None)
    trial = study.trial(found.trial_id)
    return Answer(budgets, trial, verified=pairs, measured=measured, **details)
