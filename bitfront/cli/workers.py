"""``bitfront workers``: who does the jobs of a database."""

from __future__ import annotations

import typer

from bitfront.documents import worker_document

from .common import Db
from .output import Json, emit, quiet_stdout, table
from .remote import server


def workers(db: Db = None, as_json: Json = False) -> None:
    """List the workers of a database or service: idle, busy, or lost in the last day."""
    with quiet_stdout():
        from bitfront.storage import Store

        if at := server(db):
            found = at.get("workers")["items"]
        else:
            with Store.open(db) as store:
                found = [worker_document(worker) for worker in store.workers()]
    if as_json:
        emit(found)
        return
    if not found:
        typer.echo("no workers")
        return
    columns = ("name", "host", "state", "job", "version")
    rows = [[*map(w.get, columns), w["started"][:19], w["seen"][:19]] for w in found]
    table(["worker", "host", "state", "job", "version", "started (UTC)", "seen (UTC)"], rows)
