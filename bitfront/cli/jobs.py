"""``bitfront jobs``: what waits, runs and has ended; pausing, resuming, cancelling."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitfront.documents import event_document, job_document

from .common import Db
from .output import Json, emit, quiet_stdout, table
from .progress import duration
from .remote import server

if TYPE_CHECKING:
    from bitfront.remote import Server
    from bitfront.storage import Store

MOST = (1 << 31) - 1  # of what a database counts
app = typer.Typer(name="jobs")
JobId = Annotated[int, typer.Argument(metavar="JOB", help="Number of a job.")]
States = Annotated[
    list[str] | None,
    typer.Option(metavar="STATE", help="queued, running, paused, succeeded, failed, cancelled."),
]


@app.callback(invoke_without_command=True)
def jobs(context: typer.Context) -> None:
    """List, show, pause, resume and cancel jobs."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def listed(
    state: States = None,
    study: Annotated[str | None, typer.Option(metavar="STUDY", help="Of this study.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=MOST, help="At most so many.")] = 50,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """List jobs, the newest first."""
    with quiet_stdout():
        from bitfront.errors import UnknownName
        from bitfront.storage.jobstates import STATES

        for name in state or ():
            if name not in STATES:
                raise UnknownName(f"no state {name!r} of jobs", f"choose from {', '.join(STATES)}")
        if at := server(db):
            found = at.items("jobs", limit, state=state, study=study)
        else:
            with _store(db) as store:
                found = [job_document(job) for job in store.jobs(state or (), study, limit=limit)]
    if as_json:
        emit(found)
    elif found:
        columns = ("id", "kind", "study", "state")
        rows = [[*map(job.get, columns), _progress(job), job["updated"][:19]] for job in found]
        table(["job", "kind", "study", "state", "progress", "updated (UTC)"], rows)
    else:
        typer.echo("no jobs")


@app.command()
def show(job: JobId, db: Db = None, as_json: Json = False) -> None:
    """Everything about a job: request, state, progress, error or result."""
    with quiet_stdout():
        if at := server(db):
            document = at.get(f"jobs/{job}")
        else:
            with _store(db) as store:
                document = job_document(store.job(job))
    if as_json:
        emit(document)
        return
    rows = [[name, _cell(value)] for name, value in document.items() if value is not None]
    table(["", ""], rows, f"job {job}")


@app.command()
def logs(
    job: JobId,
    after: Annotated[
        int, typer.Option(metavar="N", min=0, max=MOST, help="Only later than event N.")
    ] = 0,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """The history of a job, oldest first."""
    with quiet_stdout():
        if at := server(db):
            found = _events(at, job, after)
        else:
            with _store(db) as store:
                found = [event_document(event) for event in store.events(job, after)]
    if as_json:
        emit(found)
        return
    for e in found:
        details = ", ".join(f"{name} {_cell(value)}" for name, value in e["details"].items())
        typer.echo(f"{e['number']:>4}  {e['created'][:19]}  {e['kind']}  {details}".rstrip())


def _moving(name: str, words: str) -> None:
    @app.command(name, help=words)
    def move(job: JobId, db: Db = None, as_json: Json = False) -> None:
        with quiet_stdout():
            if at := server(db):
                document = at.post(f"jobs/{job}/{name}")
            else:
                with _store(db) as store:
                    document = job_document(store.move(job, name))
        if as_json:
            emit(document)
        else:
            typer.echo(f"job {job} is {document['state']}")


_moving("pause", "Stop a job when the unit that is measured now has ended.")
_moving("resume", "Let a job that was paused, cancelled or failed go on.")
_moving("cancel", "Stop a job, and do not go on; what it measured stays.")


def _store(db: str | None) -> Store:
    from bitfront.storage import Store

    return Store.open(db)


def _events(at: Server, job: int, after: int) -> list[dict[str, Any]]:
    """All events of a service's job, which gives so many at a time."""
    found: list[dict[str, Any]] = []
    while more := at.get(f"jobs/{job}/events", after=after)["items"]:
        found += more
        after = more[-1]["number"]
    return found


def _progress(job: dict[str, Any]) -> str | None:
    progress = job["progress"]
    if progress is None:
        return None
    text = f"{progress['stage']} {progress['done']}/{progress['total']}"
    left = progress["seconds_left"]
    return f"{text}, {duration(left)} left" if left and job["state"] == "running" else text


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
