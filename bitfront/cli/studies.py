"""``bitfront studies``: what a database holds."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import typer

from bitfront.documents import study_document

from .common import Db
from .output import Json, emit, quiet_stdout, table
from .remote import server


def studies(db: Db = None, as_json: Json = False) -> None:
    """List the studies of a database or service."""
    from bitfront.queries import studies as ask

    with quiet_stdout():
        at = server(db)
        found = (
            [_known(s) for s in at.items("studies")] if at else [study_document(s) for s in ask(db)]
        )
    if as_json:
        emit(found)
        return
    if not found:
        typer.echo("no studies yet")
        return
    rows = []
    for s in found:
        least, most = s["metrics"].get("kl", (None, None))
        span = None if least is None else f"{least:.4g} to {most:.4g}"
        rows.append([s["name"], s["created"][:19], s["measurements"], s["trials"], span])
    table(["study", "created (UTC)", "measurements", "trials", "kl"], rows)


def _known(line: dict[str, Any]) -> dict[str, Any]:
    """What a database tells too, of a service's line about a study."""
    from bitfront.storage.records import StudySummary

    return {field.name: line[field.name] for field in fields(StudySummary)}
