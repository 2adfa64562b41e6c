"""What jobs do: each kind's request, and how it is run. A new kind is one entry here.

An action runs in a worker. It measures through the verbs of ``bitfront``, so it records what it
measures when that is known, and goes on from there when it is run again.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from bitfront.documents import (
    answer_document,
    export_document,
    plain,
    profile_document,
    report_document,
    smallest_document,
    trial_document,
)
from bitfront.errors import InvalidInput, SchemeError, UnknownName
from bitfront.executors import Wanted
from bitfront.files import clear
from bitfront.giventask import Given
from bitfront.registry import Registry
from bitfront.scheme import KEEP, Scheme
from bitfront.study import Progress, Study

from .policy import Policy
from .requests import Body, ExportBody, MeasureBody, OfTask, ProfileBody, ReportBody, SearchBody

Document = dict[str, Any]
Asked = TypeVar("Asked", bound=Body)


@dataclass(frozen=True)
class Host:
    """Where a job is done: its database, what does its units, and what it may load, anything
    without a ``policy``."""

    db: str | None
    executor: Wanted = field(default_factory=Wanted)
    policy: Policy | None = None


@dataclass(frozen=True)
class Action(Generic[Asked]):
    """request: what it takes. run: (study, request, host, progress) -> its result."""

    request: type[Asked]
    run: Callable[[str, Asked, Host, Progress], Document]


ACTIONS: Registry[Action[Any]] = Registry("kind of job")


def run(kind: str, study: str, request: Document, host: Host, progress: Progress) -> Document:
    """Do what a job asks for; its result in JSON's types. Raises as the verb does."""
    action = ACTIONS[kind]
    found: Document = plain(action.run(study, action.request(**request), host, progress))
    return found


def opened(study: str, request: OfTask, host: Host, progress: Progress) -> Study:
    """The study, begun with the request's task if need be."""
    check = None if host.policy is None else host.policy.checked
    return Given(request.task.kind, request.task.arguments).open(
        study, host.db, progress, host.executor, check
    )


def profile(study: str, request: ProfileBody, host: Host, progress: Progress) -> Document:
    from bitfront.pipeline import profile as measured
    from bitfront.scored import chosen_profiler
    from bitfront.settling import profile_until

    profiler, choices = request.profiler.made(), request.choices.made()
    with opened(study, request, host, progress) as at:
        if request.until is None:
            used = chosen_profiler(at, profiler)
            tables = measured(at, request.schemes, used, progress=progress)
            return profile_document(used, tables)
        settled = profile_until(
            at, request.schemes, request.budgets, profiler, until=request.until,
            solver=request.solver, choices=choices, progress=progress,
        )  # fmt: skip
        return profile_document(settled.last.profiler, settled.tables, settled)


def search(study: str, request: SearchBody, host: Host, progress: Progress) -> Document:
    from bitfront.searching import search as find
    from bitfront.smallest import smallest

    options: dict[str, Any] = {
        "profiler": request.profiler.made(), "choices": request.choices.made(),
        "verify": request.verify, "max_measurements": request.max_measurements,
        "explore": request.explore, "progress": progress,
    }  # fmt: skip
    with opened(study, request, host, progress) as at:
        if request.hold is not None:
            found = smallest(
                at, request.schemes, request.hold, resource=request.minimize,
                budgets=request.budgets, **options,
            )  # fmt: skip
            return {"answers": [smallest_document(found)]}
        answers = find(
            at, request.schemes, request.budgets, solver=request.solver, metric=request.metric,
            explorer=request.explorer, shares=request.shares, **options,
        )  # fmt: skip
        return {"answers": [answer_document(answer) for answer in answers]}


def measure(study: str, request: MeasureBody, host: Host, progress: Progress) -> Document:
    from bitfront.measuring import measure as measured
    from bitfront.pipeline import cost, selected

    choices = request.choices.made()
    with opened(study, request, host, progress) as at:
        names = [layer.name for layer in selected(at, choices).layers]
        for name in request.schemes:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=3)
                raise UnknownName(
                    f"no layer {name!r} takes part",
                    f"did you mean {', '.join(near)}?" if near else "see 'bitfront doctor'",
                )
        schemes = {name: str(Scheme.parse(request.schemes.get(name, KEEP))) for name in names}
        costs = cost(at, list(dict.fromkeys([*schemes.values(), KEEP])), choices)
        for pair, why in costs.reasons.items():
            if schemes.get(pair[0]) == pair[1]:
                raise SchemeError(f"layer {pair[0]!r} cannot take {pair[1]}: {why}")
        _check_groups(at, schemes)
        progress("measuring", 0, 1)
        trial = measured(
            at, schemes, "given", costs.total(schemes),
            settings={"weights": costs.weights, "budgets": []},
        )  # fmt: skip
        progress("measuring", 1, 1)
        return {"trial": trial_document(trial)}


def export(study: str, request: ExportBody, host: Host, progress: Progress) -> Document:
    from bitfront.deploy import export as write

    with opened(study, request, host, progress) as at:
        progress("exporting", 0, 1)
        audit = write(
            at, request.trial, request.folder, format=request.format, cache=request.cache,
            overwrite=request.overwrite,
        )  # fmt: skip
        progress("exporting", 1, 1)
    return export_document(str(Path(request.folder).resolve()), audit)


def report(study: str, request: ReportBody, host: Host, progress: Progress) -> Document:
    from bitfront.reporting import report as write

    progress("writing the report", 0, 1)
    clear(Path(request.html))  # of this job alone
    found = write(study, request.html, metric=request.metric, db=host.db)
    progress("writing the report", 1, 1)
    return {"html": request.html, **report_document(found)}


def _check_groups(study: Study, schemes: dict[str, str]) -> None:
    for group in study.task.groups:
        taken = {name: schemes[name] for name in group if name in schemes}
        if len(set(taken.values())) > 1:
            said = ", ".join(f"{name} {scheme}" for name, scheme in taken.items())
            raise InvalidInput(f"layers that share a scheme differ: {said}", "give them one")


ACTIONS["profile"] = Action(ProfileBody, profile)
ACTIONS["search"] = Action(SearchBody, search)
ACTIONS["measure"] = Action(MeasureBody, measure)
ACTIONS["export"] = Action(ExportBody, export)
ACTIONS["report"] = Action(ReportBody, report)
