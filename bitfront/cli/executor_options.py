"""The options that say what measures: this process, several of them, or a Ray cluster."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bitfront.executors import Wanted

_option = partial(typer.Option, rich_help_panel="Where units are done", show_default=False)


def executor_options(
    executor: Annotated[str, _option(help="local (default), or ray: docs/cluster.md.")] = "local",
    processes: Annotated[
        int | None,
        _option(metavar="N", min=1, help="local: in so many processes, which share the weights."),
    ] = None,
    ray_address: Annotated[
        str | None,
        _option(metavar="HOST:PORT", help="ray: of the head; auto (default): this machine's."),
    ] = None,
    unit_cpus: Annotated[
        int | None, _option(metavar="N", min=1, help="ray: cores and threads of a unit (1).")
    ] = None,
    unit_gpus: Annotated[
        float | None, _option(metavar="SHARE", min=0, max=1, help="ray: GPU of a unit (0).")
    ] = None,
    unit_memory: Annotated[
        str | None, _option(metavar="SIZE", help="ray: memory kept free for a unit, like 2GB.")
    ] = None,
) -> Wanted:
    """What measures; every option may be left out."""
    from bitfront.executors import Wanted

    given = {
        "processes": processes, "ray_address": ray_address, "unit_cpus": unit_cpus,
        "unit_gpus": unit_gpus, "unit_memory": unit_memory,
    }  # fmt: skip
    return Wanted(executor, {n: v for n, v in given.items() if v is not None}, spelled)


def spelled(name: str) -> str:
    return f"--{name.replace('_', '-')}"
