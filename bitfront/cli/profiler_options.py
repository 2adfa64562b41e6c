"""The options that choose a profiler and its settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from bitfront.errors import InvalidInput

if TYPE_CHECKING:
    from bitfront.sensitivity import Profiler


def profiler_options(
    profiler: Annotated[str, typer.Option(help="fisher, perturb or mse.")] = "fisher",
    setting: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Of the profiler, as JSON: draws=4, temperatures=[1,2,4]; may be repeated.",
        ),
    ] = None,
) -> Profiler:
    """The profiler with its settings; docs/profilers.md lists them."""
    from dataclasses import fields

    from bitfront.sensitivity import PROFILERS

    kind = PROFILERS[profiler]
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    given = {}
    for text in setting or ():
        name, equals, value = text.partition("=")
        if name not in known:
            there = ", ".join(known) or "none"
            raise InvalidInput(f"--setting {text!r}", f"the settings of {profiler} are {there}")
        try:
            read = json.loads(value) if equals else None
        except ValueError:
            read = value  # words need no quotes
        default = known[name].default
        if isinstance(read, list):
            read = tuple(read)
        number = isinstance(read, int | float) and isinstance(default, int | float)
        if type(read) is not type(default) and not (number and not isinstance(default, int)):
            shape = json.dumps(default)
            raise InvalidInput(f"--setting {text!r}", f"write a value like {name}={shape}")
        given[name] = read
    return kind(**given)
