"""Profile, allocate, verify, build, measure, record: the one place that knows every room.

Everything that is measured is committed when it is known and found again by its content, so a run
that was killed goes on with the same call, and a second run spends no forward pass.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from numpy.typing import NDArray

from bitfront.errors import InvalidInput
from bitfront.problems import build_problem, points
from bitfront.quant.costs import cost_tables, other_bytes
from bitfront.quant.exporters import EXPORTERS
from bitfront.quant.surgery import applied
from bitfront.scheme import KEEP
from bitfront.search import allocate
from bitfront.sensitivity import PROFILERS, Profiler
from bitfront.sensitivity.perturb import Perturb
from bitfront.sensitivity.taps import evaluating
from bitfront.study import Progress, Study, silent
from bitfront.tasks.selection import Selection, select
from bitfront.types import (
    Allocation,
    Budget,
    Costs,
    Estimate,
    Layer,
    Measurement,
    Problem,
    Scheme,
    Sensitivities,
    Trial,
    content_key,
    parse_schemes,
)


@dataclass(frozen=True)
class Choices:
    """Which layers take part, and how: the options of ``bitfront.tasks.select``.

    average_over: the weights that average bits are taken over, those being ``allocated`` or
    ``all`` discovered ones. container: the exporter whose files bytes are counted in (default:
    compressed-tensors for language models, safetensors for all others).
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


@dataclass(frozen=True, eq=False)
class Answer:
    """What a search found for one point: budgets that hold together, and the trial chosen.

    predicted: of the allocation by the table it was chosen by. unverified: how many of its (layer,
    scheme) pairs rest on an estimate. evaluations: passes over calibration or evaluation data that
    this point cost beyond profiling.
    """

    budgets: tuple[Budget, ...]
    trial: Trial
    predicted: float
    bound: float
    table: str
    unverified: int
    evaluations: int


def profile(
    study: Study,
    schemes: str | Iterable[str | Scheme],
    profiler: str | Profiler = "fisher",
    *,
    layers: Sequence[Layer] | None = None,
    progress: Progress = silent,
) -> dict[str, Sensitivities]:
    """Tables of a profiler, the most trustworthy first; only what is not recorded is measured.

    Pairs that cannot be are nan. Raises ``UnknownName`` for a profiler that is not registered, and
    what the profiler raises.
    """
    chosen = PROFILERS[profiler]() if isinstance(profiler, str) else profiler
    layers = study.task.layers if layers is None else layers
    wanted = [s for s in parse_schemes(schemes) if s.format != KEEP]
    barred = study.unsuitable(wanted)
    pairs = [(la, s) for la in layers for s in wanted if (la.name, str(s)) not in barred]
    recorded = study.measurements(chosen.name, chosen.settings_key, vectors=True)
    missing = [(la, s) for la, s in pairs if (la.name, str(s)) not in recorded]
    for m in _measure(study, chosen, missing, progress):
        recorded[m.layer, m.scheme] = m
    names = [layer.name for layer in layers]
    return chosen.tables(recorded.values(), names, [str(s) for s in wanted])


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
    progress: Progress = silent,
) -> list[Answer]:
    """The best measured allocation for each point of ``budgets`` (``problems.points``).

    For each point the allocation of the profiler's best table is verified: the pairs that it chose
    are measured one at a time with the real metric, the measured values replace the estimates, and
    it is solved again until it rests on measured values only, or ``max_measurements`` (over the
    whole call) are spent. The allocations of the other tables are candidates too. Every distinct
    candidate is built, measured and stored as a trial; the one of least ``metric`` on the
    calibration data answers the point.

    Raises ``Infeasible`` when a point cannot be met, before any allocation is measured for it.
    """
    chosen = PROFILERS[profiler]() if isinstance(profiler, str) else profiler
    wanted = parse_schemes(schemes)
    choices = choices or Choices()
    sweep = points(budgets)
    selection = _select(study, choices)
    costs = _costs(study, wanted, choices, selection)
    left = [max_measurements if verify else 0]
    answers = []
    tables: dict[str, Sensitivities] = {}  # made once, and only if some point is new
    for budget in sweep:
        request = {
            "schemes": [str(s) for s in wanted], "budgets": [str(b) for b in budget],
            "solver": solver, "profiler": chosen.settings_key, "metric": metric,
            "choices": _plain(choices), "verify": verify, "max_measurements": max_measurements,
        }  # fmt: skip
        known = study.store.selection(study.record, content_key(request))
        if known is not None:
            trial = study.trial(known.trial_id)
            answers.append(Answer(budget, trial, **known.details))
            continue
        if not tables:
            tables = profile(study, wanted, chosen, layers=selection.layers, progress=progress)
        answer = _point(study, tables, costs, selection, budget, solver, metric, left, progress)
        details = {
            name: getattr(answer, name)
            for name in ("predicted", "bound", "table", "unverified", "evaluations")
        }
        study.store.add_selection(study.record, content_key(request), answer.trial.id, details)
        answers.append(answer)
    return answers


def cost(study: Study, schemes: Sequence[Scheme], choices: Choices | None = None) -> Costs:
    """What the chosen layers cost under ``schemes``, counted as the container stores them."""
    choices = choices or Choices()
    return _costs(study, schemes, choices, _select(study, choices))


def _costs(
    study: Study, schemes: Sequence[Scheme], choices: Choices, selection: Selection
) -> Costs:
    kept = [layer for layer in study.task.layers if layer.name in selection.kept_out]
    exporter = EXPORTERS[choices.container or study.container]
    return cost_tables(
        selection.layers,
        schemes,
        exporter.stored,
        other_bytes(study.task.model, study.task.layers),
        kept=kept,
        average_over=choices.average_over,
    )


def measure(
    study: Study, schemes: Mapping[str, str], solver: str, costs: Mapping[str, float], **known: Any
) -> Trial:
    """Build an allocation and measure it on the evaluation and the calibration data, once.

    schemes: layer -> scheme. Metrics on calibration data are recorded as ``calibration/NAME``.
    known: further fields of the ``Trial``.
    """
    found = study.store.find_trial(study.record, schemes)
    if found is not None:
        return found
    began = time.perf_counter()
    changed = {name: Scheme.parse(s) for name, s in schemes.items() if s != KEEP}
    study.builder.prepare(changed.items())
    quantized = {name: study.builder.quantized(name, s) for name, s in changed.items()}
    metrics: dict[str, Estimate] = {}
    with evaluating(study.task.model), torch.no_grad():
        judges = (study.judge, study.subject.evaluator)  # their references need the full model
        with applied(study.task.model, quantized, study.scratch):
            for prefix, judge in zip(("", "calibration/"), judges, strict=True):
                estimates = judge.measure().estimates()
                metrics |= {prefix + name: value for name, value in estimates.items()}
    seconds = time.perf_counter() - began
    known = {"predicted": float("nan"), "bound": float("nan"), **known}
    trial = Trial(
        schemes=schemes, solver=solver, costs=costs, metrics=metrics, seconds=seconds, **known
    )
    return study.store.add_trial(study.record, trial)


def _point(
    study: Study,
    tables: Mapping[str, Sensitivities],
    costs: Costs,
    selection: Selection,
    budgets: tuple[Budget, ...],
    solver: str,
    metric: str | None,
    left: list[int | None],
    progress: Progress,
) -> Answer:
    def problem(table: Sensitivities) -> Problem:
        return build_problem(table, costs, budgets, groups=selection.groups, pins=selection.pins)

    name, table = next(iter(tables.items()))
    target = metric or table.metric
    candidates: dict[str, Allocation] = {}
    evaluations = unverified = 0
    if target in study.task.metrics and table.metric == target and left[0] != 0:
        allocation, unverified, evaluations = _verified(
            study, table, problem, solver, left, progress
        )
        candidates["verified"] = allocation
    for name, table in tables.items():
        if table.metric == target or target not in study.task.metrics:
            candidates.setdefault(name, allocate(problem(table), solver))
    if not candidates:
        known = ", ".join(dict.fromkeys(t.metric for t in tables.values()))
        raise InvalidInput(f"no table of metric {target!r}", f"this profiler gives {known}")
    trials: dict[str, Trial] = {}
    for done, (name, allocation) in enumerate(candidates.items()):
        progress("measuring allocations", done, len(candidates))
        before = study.store.find_trial(study.record, allocation.schemes)
        evaluations += 0 if before else 2
        trials[name] = measure(
            study, allocation.schemes, solver, costs.total(allocation.schemes),
            predicted=allocation.loss, bound=allocation.bound,
            settings={"table": name, "budgets": [str(b) for b in budgets]},
        )  # fmt: skip
    judged = target if target in study.task.metrics else "kl"
    best = min(trials, key=lambda name: trials[name].metrics[f"calibration/{judged}"].value)
    return Answer(
        budgets, trials[best], candidates[best].loss, candidates[best].bound, best,
        unverified if best == "verified" else len(costs.layers), evaluations,
    )  # fmt: skip


def _verified(
    study: Study,
    table: Sensitivities,
    problem: Any,
    solver: str,
    left: list[int | None],
    progress: Progress,
) -> tuple[Allocation, int, int]:
    """Solve, measure what was chosen, put it in the table, solve again: until nothing is new."""
    perturb = Perturb()
    layers = {layer.name: layer for layer in study.task.layers}
    recorded = study.measurements(perturb.name, perturb.settings_key)
    spent = 0
    while True:  # each round measures a new pair, and pairs are finite
        table = _replaced(table, recorded)
        allocation = allocate(problem(table), solver)
        chosen = [(n, s) for n, s in allocation.schemes.items() if s != KEEP]
        missing = [pair for pair in chosen if pair not in recorded]
        affordable = missing if left[0] is None else missing[: left[0]]
        if not affordable:
            return allocation, len(missing), spent
        units = [(layers[n], Scheme.parse(s)) for n, s in affordable]
        for m in _measure(study, perturb, units, progress):
            recorded[m.layer, m.scheme] = m
        spent += len(units)
        if left[0] is not None:
            left[0] -= len(units)


def _replaced(
    table: Sensitivities, recorded: Mapping[tuple[str, str], Measurement]
) -> Sensitivities:
    values, stderr = table.values.copy(), table.stderr.copy()
    for i, layer in enumerate(table.layers):
        for j, scheme in enumerate(table.schemes):
            m = recorded.get((layer, scheme))
            if m is not None and table.metric in m.values:
                values[i, j] = m.values[table.metric].value
                stderr[i, j] = m.values[table.metric].stderr
    return replace(table, values=values, stderr=stderr)


class _Stored:
    """Checkpoints of one pass, in the study's database."""

    def __init__(self, study: Study, key: str, progress: Progress, what: str) -> None:
        self._study, self._key, self._progress, self._what = study, key, progress, what
        self._done = 0

    def load(self) -> dict[int, dict[str, NDArray[Any]]]:
        found = self._study.store.checkpoints(self._study.record, self._key)
        self._done = len(found)
        return found

    def save(self, index: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._study.store.add_checkpoint(self._study.record, self._key, index, arrays)
        self._done += 1
        self._progress(self._what, self._done, len(self._study.task.calibration))


def _measure(
    study: Study,
    profiler: Profiler,
    pairs: Sequence[tuple[Layer, Scheme]],
    progress: Progress,
) -> list[Measurement]:
    """Measure and record ``pairs``; a pass that was interrupted goes on after its last batch."""
    if not pairs:
        return []
    named = [[layer.name, str(scheme)] for layer, scheme in pairs]
    key = content_key([profiler.settings_key, named])
    what = f"profiling ({profiler.name})"
    found: list[Measurement] = []
    for part in profiler.measure(study.subject, pairs, _Stored(study, key, progress, what)):
        if profiler.one_pass:
            study.store.finish_pass(study.record, key, part)
        else:
            study.store.add_measurements(study.record, part)
            progress(what, len(found) + len(part), len(pairs))
        found += part
    return found


def _select(study: Study, choices: Choices) -> Selection:
    return select(
        study.task, choices.include, choices.exclude, choices.pins, choices.embeddings,
        choices.head, choices.groups, choices.hand_groups,
    )  # fmt: skip


def _plain(choices: Choices) -> dict[str, Any]:
    return {
        "include": list(choices.include), "exclude": list(choices.exclude),
        "pins": {glob: str(s) for glob, s in choices.pins.items()},
        "embeddings": choices.embeddings, "head": choices.head, "groups": choices.groups,
        "hand_groups": [list(g) for g in choices.hand_groups],
        "average_over": choices.average_over, "container": choices.container,
    }  # fmt: skip
