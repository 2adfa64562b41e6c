"""From a request over HTTP to a job: checked as far as that is possible without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bitfront.budget import Budget
from bitfront.costfile import GivenCosts
from bitfront.errors import InvalidInput
from bitfront.giventask import Given
from bitfront.queries import check_metric
from bitfront.registry import check_names
from bitfront.scheme import Scheme
from bitfront.service.places import within_body
from bitfront.service.requests import MeasureBody, ProfileBody, SearchBody, TaskBody
from bitfront.storage import Job, Store
from bitfront.storage.studies import check_name
from bitfront.types import content_key, parse_schemes
from bitfront.within import Bound

from .bodies import ExportJob, JobRequest, ReportJob, task_of
from .problems import Problem
from .settings import Settings

PAGE = "report.html"


def submit(store: Store, settings: Settings, study: str, body: JobRequest) -> tuple[Job, bool]:
    """The job of a request, and whether it is new. Raises for what cannot or may not be done."""
    check_name(study)
    _check_words(body)
    request = body.model_dump(mode="json", exclude={"kind"})
    task = task_of(body)
    if task is not None:
        request["task"] = _task(store, settings, study, task)
    _check_recorded(store, study, body)
    if isinstance(body, ExportJob):
        folder = _place(settings, "export", study, request)
        request |= {"folder": str(folder), "overwrite": True}  # it is this job's own
    elif isinstance(body, ReportJob):
        folder = _place(settings, "report", study, request)
        folder.mkdir(parents=True, exist_ok=True)
        request = {"html": str(folder / PAGE), "metric": body.metric}
    _check_text(request)
    return store.submit(body.kind, study, request)


def _task(store: Store, settings: Settings, study: str, task: TaskBody) -> dict[str, Any]:
    """The task as its job gets it: of a known kind, all that it loads being allowed."""
    kind, recorded = Given(task.kind, task.arguments, _spelled).known(store, study)
    arguments = settings.policy.arguments(kind, task.arguments, recorded)
    return {"kind": task.kind, "arguments": arguments}


def _spelled(name: str) -> str:
    """A part of a task, as requests spell it."""
    return "task.kind" if name == "task" else f"task.arguments.{name}"


def _check_words(body: JobRequest) -> None:
    """Raises for schemes, budgets and bounds that cannot be read."""
    if isinstance(body, ProfileBody | SearchBody):
        with within_body("schemes"):
            if body.schemes is not None:
                parse_schemes(body.schemes)
            elif not body.choices.targets:
                raise InvalidInput(
                    "no schemes and no target were given", "give schemes, like 'w4 w8 keep'"
                )
        for i, text in enumerate(body.budgets):
            with within_body("budgets", i):
                Budget.parse(text)
    if isinstance(body, SearchBody) and body.hold is not None:
        with within_body("hold"):
            Bound.parse(body.hold)
    elif isinstance(body, SearchBody) and not body.budgets:
        raise InvalidInput("no budget was given", "give at least one, like 40%, or hold")
    if isinstance(body, ProfileBody) and (body.until is None) == bool(body.budgets):
        raise InvalidInput("until without budgets, or these without it", "give both, or neither")
    if isinstance(body, MeasureBody):
        for name, text in body.schemes.items():
            with within_body("schemes", name):
                Scheme.parse(text)
    _check_names(body)
    if isinstance(body, ProfileBody | SearchBody | MeasureBody):
        for name, text in body.choices.pins.items():
            with within_body("choices", "pins", name):
                Scheme.parse(text)
        if body.choices.costs is not None:
            with within_body("choices", "costs"):
                GivenCosts.of(body.choices.costs)


def _check_names(body: JobRequest) -> None:
    """Raises ``UnknownName`` for a solver, an explorer or a container that there is not.

    Profilers are known to workers alone: they need torch.
    """
    from bitfront.names import check_explorer
    from bitfront.quant.stored import STORED
    from bitfront.search import ALLOCATORS
    from bitfront.targets import all_aimed

    if isinstance(body, ProfileBody | SearchBody):
        with within_body("solver"):
            check_names((ALLOCATORS, body.solver))
    if isinstance(body, SearchBody):
        with within_body("explorer"):
            check_explorer(body.explorer)
    if isinstance(body, ExportJob):
        with within_body("format"):
            check_names((STORED, body.format))
    if isinstance(body, ProfileBody | SearchBody | MeasureBody):
        with within_body("choices", "container"):
            check_names((STORED, body.choices.container))
        with within_body("choices", "targets"):
            all_aimed(body.choices.targets)


def _check_recorded(store: Store, study: str, body: JobRequest) -> None:
    """Raises ``UnknownName`` for what a study must have and does not."""
    if isinstance(body, ExportJob):
        with within_body("trial"):
            store.trial(store.study(study), body.trial)
    elif isinstance(body, ReportJob):
        with within_body("metric"):
            check_metric(store.study(study), body.metric)


def _check_text(request: dict[str, Any]) -> None:
    """Raises ``InvalidInput`` for halves of characters, which JSON can spell and nothing can show,
    and for NUL, which PostgreSQL refuses."""
    try:
        text = json.dumps(request, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the request holds what is no text or number", str(error)) from None
    if "\\u0000" in text:
        raise InvalidInput("the request has a NUL character", "leave it out")


def _place(settings: Settings, kind: str, study: str, request: dict[str, Any]) -> Path:
    """A folder of the job's own, the same for the same request."""
    if settings.output is None:
        raise Problem(403, f"{kind} jobs are not taken here", "the operator may give --output")
    key = content_key({"kind": kind, "study": study, "request": request})
    settings.output.mkdir(parents=True, exist_ok=True)
    return settings.output.resolve() / f"{kind}-{key[:24]}"
