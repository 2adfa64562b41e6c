"""``bitfront jobs``: what waits, runs and has ended; pausing, resuming, cancelling."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitfront.documents import event_document, job_document

from .common import Db
from .output import Json, emit, quiet_stdout, table
from .progress import duration

if TYPE_CHECKING:
    from bitfront.storage import Job, Store

app = typer.Typer(
    name="jobs", help="List, show, pause, resume and cancel jobs.", no_args_is_help=True
)
JobId = Annotated[int, typer.Argument(metavar="JOB", help="Number of a job.")]
States = Annotated[
    list[str] | None,
    typer.Option(metavar="STATE", help="queued, running, paused, succeeded, failed, cancelled."),
]


@app.command("list")
def listed(
    state: States = None,
    study: Annotated[str | None, typer.Option(metavar="STUDY", help="Of this study.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most so many.")] = 50,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """List jobs, the newest first."""
    with quiet_stdout(), _store(db) as store:
        from bitfront.errors import UnknownName
        from bitfront.storage.jobstates import STATES

        for name in state or ():
            if name not in STATES:
                raise UnknownName(f"no state {name!r} of jobs", f"choose from {', '.join(STATES)}")
        found = store.jobs(state or (), study, limit=limit)
    if as_json:
        emit([job_document(job) for job in found])
    elif found:
        rows = [
            [job.id, job.kind, job.study, job.state, _progress(job), job.updated[:19]]
            for job in found
        ]
        table(["job", "kind", "study", "state", "progress", "updated (UTC)"], rows)
    else:
        typer.echo("no jobs")


@app.command()
def show(job: JobId, db: Db = None, as_json: Json = False) -> None:
    """Everything about a job: request, state, progress, error or result."""
    with quiet_stdout(), _store(db) as store:
        found = store.job(job)
    document = job_document(found)
    if as_json:
        emit(document)
        return
    rows = [[name, _cell(value)] for name, value in document.items() if value is not None]
    table(["", ""], rows, f"job {job}")


@app.command()
def logs(
    job: JobId,
    after: Annotated[int, typer.Option(metavar="N", min=0, help="Only later than event N.")] = 0,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """The history of a job, oldest first."""
    with quiet_stdout(), _store(db) as store:
        found = store.events(job, after)
    if as_json:
        emit([event_document(event) for event in found])
        return
    for event in found:
        details = ", ".join(f"{name} {_cell(value)}" for name, value in event.details.items())
        typer.echo(f"{event.number:>4}  {event.created[:19]}  {event.kind}  {details}".rstrip())


def _moving(name: str, words: str) -> None:
    @app.command(name, help=words)
    def move(job: JobId, db: Db = None, as_json: Json = False) -> None:
        with quiet_stdout(), _store(db) as store:
            found = store.move(job, name)
        if as_json:
            emit(job_document(found))
        else:
            typer.echo(f"job {job} is {found.state}")


_moving("pause", "Stop a job when the unit that is measured now has ended.")
_moving("resume", "Let a job that was paused, cancelled or failed go on.")
_moving("cancel", "Stop a job, and do not go on; what it measured stays.")


def _store(db: str | None) -> Store:
    from bitfront.storage import Store

    return Store.open(db)


def _progress(job: Job) -> str | None:
    if job.progress is None:
        return None
    text = f"{job.progress.stage} {job.progress.done}/{job.progress.total}"
    left = job.progress.seconds_left
    return f"{text}, {duration(left)} left" if left and job.state == "running" else text


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
