"""The options that choose a profiler and its settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bitfront.sensitivity import Profiler


def profiler_options(
    profiler: Annotated[
        str,
        typer.Option(
            help="fisher, perturb, mse, hutchinson, eigen, lrp, decoupled, or imported (scores of "
            "bitfront import)."
        ),
    ] = "fisher",
    setting: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Of the profiler, as JSON: draws=4, temperatures=[1,2,4], imported: label=NAME; "
            "may be repeated.",
        ),
    ] = None,
) -> Profiler:
    """The profiler with its settings; docs/profilers.md lists them."""
    from bitfront.sensitivity import configured

    given = {}
    for text in setting or ():
        name, _, value = text.partition("=")
        try:
            given[name] = json.loads(value)
        except ValueError:
            given[name] = value  # words need no quotes
    return configured(profiler, given)
