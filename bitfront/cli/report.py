"""``bitfront report``: what is recorded of a study, as one page."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitfront.documents import report_document

from . import remote
from .common import Db, StudyName
from .output import Json, check_file, emit, naming, quiet_stdout
from .progress import shown

if TYPE_CHECKING:
    from bitfront.remote import Server


def report(
    study: StudyName,
    html: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")],
    metric: Annotated[
        str, typer.Option(help="Of the front, and of what was measured one layer at a time.")
    ] = "kl",
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Write a page: sensitivities, roles, agreement of profilers, front; no model is needed."""
    check_file("--html", html)
    with quiet_stdout():
        if at := remote.server(db):
            document = _fetched(at, study, html, metric)
        else:
            from bitfront.reporting import report as write

            with naming(html):
                document = report_document(write(study, html, metric=metric, db=db))
    if as_json:
        emit({"study": study, "html": html, "metric": metric, **document})
        return
    tables, best = len(document["tables"]), len(document["front"])
    typer.echo(f"{html}: {tables} tables, {best} trials on the front")
    for line in (*document["missing"], *document["warnings"]):
        typer.echo(line)


def _fetched(at: Server, study: str, html: Path, metric: str) -> dict[str, Any]:
    """Let a service write the page of what is recorded now, and fetch it."""
    from bitfront.files import replacing

    with shown() as progress:
        body = {"kind": "report", "metric": metric, "edition": datetime.now(UTC).isoformat()}
        job = at.run(study, body, progress)
    (file,) = at.get(f"jobs/{job['id']}/files")["items"]
    with naming(html), replacing(html) as partial:
        at.fetch(f"jobs/{job['id']}/files/{file['path']}", partial, file["sha256"])
    return {name: value for name, value in job["result"].items() if name != "html"}
