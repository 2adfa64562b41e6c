"""Profile, allocate, verify, build, measure, record: the one place that knows every room.

Everything that is measured is committed when it is known and found again by its content, so a run
that was killed goes on with the same call, and a second run measures nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from bitfront.answering import UNIFORM, Answer, Point
from bitfront.budget import ACTIVATIONS
from bitfront.costfile import GivenCosts, given_costs, with_given
from bitfront.errors import BitfrontWarning, InvalidInput, SchemeError
from bitfront.exploration import REFINE, check_explorer
from bitfront.livecosts import with_activations
from bitfront.measuring import measure
from bitfront.problems import feasible, lossless, points
from bitfront.quant.costs import cost_tables, other_bytes
from bitfront.quant.exporters import EXPORTERS
from bitfront.recording import complete
from bitfront.scheme import KEEP
from bitfront.search import INTERACTING, require_additive
from bitfront.sensitivity import PROFILERS, Profiler, heavy_tail_warning
from bitfront.shares import SHARES
from bitfront.storage import Selection as Recorded
from bitfront.study import Progress, Study, silent
from bitfront.sweep import improved
from bitfront.tasks.liveness import liveness
from bitfront.tasks.numbers import require
from bitfront.tasks.roles import classes
from bitfront.tasks.selection import Selection, select
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
    parse_schemes,
)

FULL = "full"  # the solver of the trial that is the full model
EXPLORE = 20  # measured allocations of each point's exploration


@dataclass(frozen=True)
class Choices:
    """Which layers take part, and how: the options of ``bitfront.tasks.select``.

    average_over: the weights that average bits are taken over, those being ``allocated`` or
    ``all`` discovered ones. container: the exporter whose files bytes are counted in (default:
    the study's: compressed-tensors for language models that it can hold, else safetensors). costs:
    further costs, such as seconds on a target, or the file that has them (``costfile``).
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    pins: Mapping[str, str] = field(default_factory=dict)
    embeddings: bool | None = None
    head: bool | None = None
    groups: str = "auto"
    hand_groups: tuple[tuple[str, ...], ...] = ()
    average_over: Literal["allocated", "all"] = "allocated"
    container: str | None = None
    costs: str | Path | GivenCosts | None = None


_DETAILS = (
    "predicted", "bound", "table", "verified", "unverified", "evaluations", "judged",
    "noise", "measured",
)  # fmt: skip


def profile(
    study: Study,
    schemes: str | Iterable[str | Scheme],
    profiler: str | Profiler = "fisher",
    *,
    layers: Sequence[Layer] | None = None,
    progress: Progress = silent,
) -> dict[str, Sensitivities]:
    """Tables of a profiler, the most trustworthy first; only what is not recorded is measured.

    Pairs that cannot be are nan. Warns (``BitfrontWarning``) when a few samples hold most of the
    score. Raises ``UnknownName`` for a profiler that is not registered, ``SchemeError`` when no
    layer can take any of the schemes, and what the profiler raises.
    """
    chosen = PROFILERS[profiler]() if isinstance(profiler, str) else profiler
    layers = study.task.layers if layers is None else layers
    wanted, pairs = measurable(study, schemes, layers)
    recorded = complete(study, chosen, pairs, progress)
    tables = chosen.tables(recorded.values(), [la.name for la in layers], [str(s) for s in wanted])
    warn_of_tail(next(iter(tables.values())))
    return tables


def interactions_of(
    study: Study,
    schemes: str | Iterable[str | Scheme],
    profiler: Profiler,
    layers: Sequence[Layer],
    table: Sensitivities,
) -> Interactions | None:
    """What layers add to each other's loss, to go with ``table`` of ``profile``.

    None where the profiler does not know.
    """
    wanted, pairs = measurable(study, schemes, layers)
    recorded = complete(study, profiler, pairs, silent)
    names = [la.name for la in layers], [str(s) for s in wanted]
    return profiler.interactions(recorded.values(), *names, table)


def warn_of_tail(table: Sensitivities) -> None:
    """Warn the caller's caller (``BitfrontWarning``) where a few samples hold most of the score."""
    warning = heavy_tail_warning(table)
    if warning is not None:
        warnings.warn(warning, BitfrontWarning, stacklevel=3)


def measurable(
    study: Study, schemes: str | Iterable[str | Scheme], layers: Sequence[Layer]
) -> tuple[list[Scheme], list[tuple[Layer, Scheme]]]:
    """The schemes that a profiler measures, ``keep`` left out, and the pairs that can be.

    Raises ``SchemeError`` when there is nothing to measure.
    """
    wanted = [s for s in parse_schemes(schemes) if s.format != KEEP]
    if not wanted:
        raise SchemeError("keep alone leaves nothing to measure", "add a scheme like w4")
    barred = study.unsuitable(wanted)
    pairs = [(la, s) for la in layers for s in wanted if (la.name, str(s)) not in barred]
    if not pairs:
        first = str(wanted[0])
        why = "; ".join(dict.fromkeys(barred[layer.name, first] for layer in layers))
        raise SchemeError(f"no layer can take {first} ({why})", "give another scheme, like w4")
    return wanted, pairs


def search(
    study: Study,
    schemes: str | Iterable[str | Scheme],
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
    that are measured there (``tempering``, ``refinement``; not with the solver ``uniform``). The
    best of all answers the point, or one that another point led to (``sweep``). The full model is a
    trial as well, so that a front has its end.

    explorer: another than ``refine`` is one of ``bitfront.search.EXPLORERS``, which proposes what
    is measured from all that was measured (``exploration``).

    A solver of ``INTERACTING`` is given what layers add to each other's loss at the temperature of
    the table (``Profiler.interactions``); predicted losses are then its objective's.

    Where the best table has classes of layers (``decoupled``), the split of the budget between them
    is searched for first, by at most ``shares`` measurements (``shares``).

    Before anything is profiled, raises ``Infeasible`` for a point that cannot be met, and
    ``InvalidInput`` for a ``metric`` that the profiler gives no table of, and for a solver that
    needs interactions with a profiler without; ``UnknownName`` for an explorer there is none of.
    """
    chosen = PROFILERS[profiler]() if isinstance(profiler, str) else profiler
    wanted = parse_schemes(schemes)
    choices = choices or Choices()
    require(0, max_measurements=max_measurements, explore=explore, shares=shares)
    measured = [n for n in study.task.metrics if study.task.metric(n).whole is None]
    _check_metric(metric, chosen, measured)
    check_solver(solver, chosen)
    check_explorer(explorer)
    sweep = points(budgets)
    selection = selected(study, choices)
    costs = _costs(study, wanted, choices, selection, [b for point in sweep for b in point])
    request = {
        "schemes": [str(s) for s in wanted], "solver": solver, "profiler": chosen.settings_key,
        "metric": metric, "choices": plain_choices(choices), "verify": verify,
        "max_measurements": max_measurements, "explore": explore,
        **({"shares": shares} if chosen.by_class else {}),
        **({"explorer": explorer} if explorer != REFINE else {}),
    }  # fmt: skip
    keys = [content_key({**request, "budgets": [str(b) for b in point]}) for point in sweep]
    known = [study.store.selection(study.record, key) for key in keys]
    for point, found in zip(sweep, known, strict=True):
        if found is None:
            feasible(costs, point, groups=selection.groups, pins=selection.pins, solver=solver)
    tables: dict[str, Sensitivities] = {}  # made once, and only if some point is new
    interactions: dict[float, Interactions] = {}
    answers: list[Answer] = []
    for point, key, found in zip(sweep, keys, known, strict=True):
        if found is None:
            if not tables:
                tables = profile(study, wanted, chosen, layers=selection.layers, progress=progress)
                full_model(study, costs)
                if solver in INTERACTING:
                    interactions = _interactions(study, wanted, chosen, selection.layers, tables)
            left = None if max_measurements is None else max_measurements - _spent(answers)
            settings = {
                "profiler": chosen.name,
                "container": choices.container or study.container,
                "weights": costs.weights,
                "budgets": [str(b) for b in point],
            }
            place = Point(
                study, tables, costs, selection, point, solver, metric, explore, explorer, shares,
                settings, interactions,
            )  # fmt: skip
            answer = place.answer(left if verify else 0, earlier(study), progress)
            details = {name: getattr(answer, name) for name in _DETAILS}
            study.store.add_selection(study.record, key, answer.trial.id, details)
        else:
            answer = _recorded(study, point, found)
        answers.append(answer)
    if not explore or solver == UNIFORM:
        return answers

    def problem(point: Sequence[Budget]) -> Problem:
        return lossless(costs, point, groups=selection.groups, pins=selection.pins)

    def completed(trial: Trial) -> Trial:
        return measure(study, trial.schemes, trial.solver, costs.total(trial.schemes))

    return improved(study, answers, problem, earlier(study), completed)


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


def cost(
    study: Study,
    schemes: str | Iterable[str | Scheme],
    choices: Choices | None = None,
    budgets: Sequence[str | Budget] = (),
) -> Costs:
    """What the chosen layers cost under ``schemes``, counted as the container stores them.

    With the resource ``activations``, which takes a forward pass, where a budget is on it.
    """
    choices = choices or Choices()
    asked = [b if isinstance(b, Budget) else Budget.parse(b) for b in budgets]
    return _costs(study, parse_schemes(schemes), choices, selected(study, choices), asked)


def check_solver(solver: str, profiler: Profiler) -> None:
    """Refuse one that needs interactions where the profiler has none (``InvalidInput``)."""
    if not profiler.interacts:
        require_additive(
            solver,
            f"with {profiler.name}, which says nothing of interactions",
            "profile with fisher, or solve with another, like ilp",
        )


def _check_metric(metric: str | None, profiler: Profiler, measured: Sequence[str]) -> None:
    """Refuse a metric that no table will be of. measured: the task's, of batches."""
    empty = profiler.tables((), (), ())
    given = {table.metric for table in empty.values()} or set(measured)
    if metric is not None and metric not in given:
        raise InvalidInput(
            f"{profiler.name} gives no table of metric {metric!r}",
            f"choose from {', '.join(given)}",
        )


def _spent(answers: Iterable[Answer]) -> int:
    return sum(len(answer.verified) for answer in answers)


def _recorded(study: Study, budgets: tuple[Budget, ...], found: Recorded) -> Answer:
    details = dict(found.details)
    pairs = tuple((layer, scheme) for layer, scheme in details.pop("verified"))
    measured = tuple(details.pop("measured"))
    trial = study.trial(found.trial_id)
    return Answer(budgets, trial, verified=pairs, measured=measured, **details)


def earlier(study: Study) -> list[Trial]:
    """The trials that earlier answers were chosen among. Not all that is recorded, so that a search
    that was killed goes on as if it had not been."""
    answered = study.store.selections(study.record)
    ids = dict.fromkeys(id for found in answered for id in found.details.get("measured", ()))
    return [trial for trial in study.trials() if trial.id in ids]


def full_model(study: Study, costs: Costs, wholes: Collection[str] = ()) -> Trial:
    """The trial that keeps every layer. wholes: as of ``measure``."""
    schemes = dict.fromkeys(costs.layers, KEEP)
    return measure(
        study, schemes, FULL, costs.full, predicted=0.0, bound=0.0, wholes=wholes,
        settings={"weights": costs.weights, "budgets": []},
    )  # fmt: skip


def _costs(
    study: Study,
    schemes: Sequence[Scheme],
    choices: Choices,
    selection: Selection,
    budgets: Sequence[Budget],
) -> Costs:
    kept = [layer for layer in study.task.layers if layer.name in selection.kept_out]
    exporter = EXPORTERS[choices.container or study.container]
    counted = cost_tables(
        selection.layers,
        schemes,
        exporter.stored,
        other_bytes(study.task.model, study.task.layers),
        kept=kept,
        average_over=choices.average_over,
        reason=exporter.reason,
    )
    known = [layer.name for layer in study.task.layers]
    counted = with_given(counted, given_costs(choices.costs), known, [la.name for la in kept])
    if any(budget.whole == ACTIVATIONS for budget in budgets):
        counted = with_activations(counted, liveness(study.task), selection.groups)
    return replace(counted, classes=classes(study.task))


def selected(study: Study, choices: Choices) -> Selection:
    """The layers that take part."""
    return select(
        study.task, choices.include, choices.exclude, choices.pins, choices.embeddings,
        choices.head, choices.groups, choices.hand_groups,
    )  # fmt: skip


def plain_choices(choices: Choices) -> dict[str, Any]:
    """``choices`` in JSON's types, as part of a request."""
    return {
        "include": list(choices.include), "exclude": list(choices.exclude),
        "pins": {glob: str(s) for glob, s in choices.pins.items()},
        "embeddings": choices.embeddings, "head": choices.head, "groups": choices.groups,
        "hand_groups": [list(g) for g in choices.hand_groups],
        "average_over": choices.average_over, "container": choices.container,
        **({} if choices.costs is None else {"costs": given_costs(choices.costs).plain()}),
    }  # fmt: skip
