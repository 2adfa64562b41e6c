"""``bitfront worker``: runs the jobs of a database, one after another."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from bitfront.errors import InvalidInput

from .common import AllowFunctions, AllowHub, Db, Roots
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
            max=86400.0,
            help="After which another takes over the job of a dead one.",
        ),
    ] = 30.0,
    once: Annotated[
        bool, typer.Option("--once", help="End when no job waits, instead of waiting for more.")
    ] = False,
    root: Roots = None,
    allow_hub: AllowHub = False,
    allow_functions: AllowFunctions = False,
    db: Db = None,
) -> None:
    """Run jobs until interrupted; the unit that is measured then is finished first.

    With --root, jobs load only what is under a root when they begin.
    """
    refuse("worker")
    for allowed, option in ((allow_hub, "--allow-hub"), (allow_functions, "--allow-functions")):
        if allowed and not root:
            raise InvalidInput(
                f"{option} without --root", "add --root, or leave it out: all is allowed then"
            )
    with quiet_stdout():
        from bitfront.service.policy import Policy, check_roots
        from bitfront.service.worker import Worker

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        check_roots(root or ())
        policy = Policy(root, allow_hub, allow_functions) if root else None
        working = Worker(db, name, lease, executor, policy)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: working.stop())
        driven = working.run(idle=not once)
    typer.echo(f"{working.name}: {driven} job{'' if driven == 1 else 's'} driven")
