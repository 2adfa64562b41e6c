"""``bitfront worker``: runs the jobs of a database, one after another."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Db
from .composing import with_options
from .executor_options import executor_options
from .output import quiet_stdout
from .remote import refuse

if TYPE_CHECKING:
    from bitfront.executors import Wanted


@with_options(executor=executor_options)
def worker(
    executor: Wanted,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="In histories (default: host, process, random)."),
    ] = None,
    lease: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=1.0,
            help="After which another takes over the job of a dead one.",
        ),
    ] = 30.0,
    once: Annotated[
        bool, typer.Option("--once", help="End when no job waits, instead of waiting for more.")
    ] = False,
    db: Db = None,
) -> None:
    """Run jobs until interrupted; the unit that is measured then is finished first."""
    refuse("worker")
    with quiet_stdout():
        from bitfront.service.worker import Worker

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        working = Worker(db, name, lease, executor)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: working.stop())
        driven = working.run(idle=not once)
    typer.echo(f"{working.name}: {driven} job{'' if driven == 1 else 's'} driven")
