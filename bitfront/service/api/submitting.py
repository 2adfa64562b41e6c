"""From a request over HTTP to a job: checked as far as that is possible without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bitfront.budget import Budget
from bitfront.errors import InvalidInput, UnknownName
from bitfront.service.requests import ProfileBody, SearchBody, TaskBody
from bitfront.storage import Job, Store
from bitfront.storage.studies import check_name
from bitfront.types import content_key, parse_schemes
from bitfront.within import Bound

from .bodies import ExportJob, JobRequest, ReportJob, task_of
from .policy import Policy
from .problems import Problem, within_body
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
    elif study not in store.names():
        store.study(study)  # raises, and says which are near
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
    begun = study in store.names()
    recorded = dict(store.study(study).settings.get("recipe") or {}) if begun else {}
    kind = task.kind or recorded.get("kind")
    if kind is None and begun:
        raise InvalidInput(
            f"study {study!r} was begun in Python with a live model or data", "give task.kind"
        )
    if kind is None:
        raise UnknownName(f"there is no study {study!r} yet", "give task.kind and its arguments")
    kept = recorded if recorded.get("kind") == kind else {}
    arguments = Policy(settings).arguments(kind, task.arguments, kept)
    return {"kind": task.kind, "arguments": arguments}


def _check_words(body: JobRequest) -> None:
    """Raises for schemes, budgets and bounds that cannot be read."""
    if isinstance(body, ProfileBody | SearchBody):
        with within_body("schemes"):
            parse_schemes(body.schemes)
        for i, text in enumerate(body.budgets):
            with within_body("budgets", i):
                Budget.parse(text)
    if isinstance(body, SearchBody) and body.hold is not None:
        with within_body("hold"):
            Bound.parse(body.hold)


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
