"""``bitfront report``: what is recorded of a study, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Db, StudyName
from .output import Json, check_file, emit, naming, quiet_stdout


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
        from bitfront.reporting import report as write

        with naming(html):
            found = write(study, html, metric=metric, db=db)
    if as_json:
        emit(
            {
                "study": study,
                "html": html,
                "metric": metric,
                "tables": [t.name for t in found.tables],
                "front": [t.id for t in found.best],
                "parted": found.parted,
                "missing": found.missing,
            }
        )
        return
    typer.echo(f"{html}: {len(found.tables)} tables, {len(found.best)} trials on the front")
    for line in (*found.missing, *found.warnings):
        typer.echo(line)
