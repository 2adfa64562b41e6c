"""Jobs: submitted, listed, moved, and followed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Header, Query, Request, Response
from pydantic import BaseModel

from bitfront.documents import event_document, job_document, plain
from bitfront.remote import API
from bitfront.storage import Job

from .bodies import JobRequest, Kind
from .common import LARGEST, After, Db, In, JobId, Limit, Page, StudyName, Word, page
from .cursors import cursor, position
from .outer import prefix_of
from .problems import Problem, documented
from .streams import Stream
from .submitting import submit as submitted

router = APIRouter(tags=["jobs"])
EVENTS = 1000  # of an answer
State = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]


class Progress(BaseModel):
    """How far the present stage is. rate: units a second. seconds_left: until the stage ends."""

    stage: str
    done: int
    total: int
    rate: float | None
    seconds_left: float | None


class JobDocument(BaseModel):
    """A job. attempt: how often a worker claimed it. failures: in a row, of one unit."""

    id: int
    kind: str
    study: str
    state: State
    request: dict[str, Any]
    progress: Progress | None
    error: dict[str, Any] | None
    result: dict[str, Any] | None
    worker: str | None
    attempt: int
    failures: int
    created: str
    updated: str


class Jobs(Page):
    items: list[JobDocument]


class Event(BaseModel):
    number: int
    kind: str
    created: str
    details: dict[str, Any]


class Events(BaseModel):
    """A part of a job's history, and how far the job is. after: to ask for what comes next."""

    items: list[Event]
    after: int
    state: str
    progress: Progress | None


def json_only(content_type: Annotated[str, Header()] = "") -> None:
    """Refuse bodies of other media types, so that no form of a web page is a request."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Problem(415, f"a body of type {content_type!r}")


LOCATION = {"Location": {"description": "The job.", "schema": {"type": "string"}}}
TAKEN: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The job of the same request, submitted before.",
        "headers": LOCATION,
        "model": JobDocument,
    },
    202: {"description": "The job is new, and waits for a worker.", "headers": LOCATION},
}


@router.post(
    "/studies/{name}/jobs", status_code=202, response_model=JobDocument,
    responses={**documented(404, 409, 413, 415), **TAKEN},
    dependencies=[Depends(json_only)],
)  # fmt: skip
def submit(
    service: In,
    name: StudyName,
    body: Annotated[JobRequest, Body()],
    request: Request,
    response: Response,
) -> Any:
    """Ask for a job. The same request again is the same job, whatever became of it (200)."""
    job, new = submitted(service.store, service.settings, name, body)
    response.headers["Location"] = f"{prefix_of(request)}{API}/jobs/{job.id}"
    response.status_code = 202 if new else 200
    return _document(job)


@router.get("/jobs", response_model=Jobs, responses=documented())
def jobs(
    store: Db,
    state: Annotated[list[State], Query(description="Repeatable.", max_length=10)] = [],  # noqa: B006
    study: Word | None = None,
    kind: Kind | None = None,
    limit: Limit = 100,
    at: After = None,
) -> Any:
    """Jobs, the newest first."""
    query = {"of": "jobs", "state": sorted(set(state)), "study": study, "kind": kind}
    before = position(at, query, int)
    found = store.jobs(state, study, kind, limit + 1, None if before is None else before[0])
    more = cursor(query, [found[limit - 1].id]) if len(found) > limit else None
    return page([_document(job) for job in found[:limit]], more)


@router.get("/jobs/{id}", response_model=JobDocument, responses=documented(404))
def job(store: Db, id: JobId) -> Any:
    """A job: request, state, progress, error or result."""
    return _document(store.job(id))


def _moving(move: str, words: str) -> None:
    @router.post(
        f"/jobs/{{id}}/{move}", response_model=JobDocument, responses=documented(404, 409, 413),
        name=move, operation_id=f"{move}_job", description=words,
    )  # fmt: skip
    def moved(store: Db, id: JobId) -> Any:
        return _document(store.move(id, move))


_moving("pause", "Stop a job when the unit that is measured now has ended.")
_moving("resume", "Let a job that was paused, cancelled or failed go on.")
_moving("cancel", "Stop a job, and do not go on; what it measured stays.")

STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A part of the history; or a stream of it, by the header Accept.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.get("/jobs/{id}/events", response_model=Events, responses={**documented(404), **STREAM})
def events(
    service: In,
    id: JobId,
    after: Annotated[int, Query(ge=0, le=LARGEST, description="Only later events.")] = 0,
    accept: Annotated[str, Header()] = "*/*",
    last_event_id: Annotated[
        int | None, Header(ge=0, le=LARGEST, description="As browsers send it: in place of after.")
    ] = None,
) -> Any:
    """The history of a job from event ``after`` on.

    With Accept: text/event-stream it is a stream which goes on until the job has ended: events
    under their kinds, with their numbers as ids; ``progress`` as it changes; ``end`` with the job.
    """
    begin = after if last_event_id is None else last_event_id
    job = service.store.job(id)  # before its events, so that the last ones are not missed
    if "text/event-stream" in accept.lower():
        return Stream(service, id, begin)
    found = service.store.events(id, begin)[:EVENTS]
    return plain({
        "items": [event_document(event) for event in found],
        "after": found[-1].number if found else begin,
        "state": job.state, "progress": job_document(job)["progress"],
    })  # fmt: skip


def _document(job: Job) -> Any:
    return plain(job_document(job))
