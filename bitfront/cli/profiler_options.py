"""The options that choose a profiler and its settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitfront.errors import InvalidInput

if TYPE_CHECKING:
    from bitfront.sensitivity import Profiler


def profiler_options(
    profiler: Annotated[
        str, typer.Option(help="fisher, perturb, mse, hutchinson, eigen, lrp or decoupled.")
    ] = "fisher",
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
        name, _, value = text.partition("=")
        if name not in known:
            there = ", ".join(known) or "none"
            raise InvalidInput(f"--setting {text!r}", f"the settings of {profiler} are {there}")
        given[name] = _read(text, value, known[name].default)
    return kind(**given)


def _read(text: str, value: str, default: Any) -> Any:
    """``value`` in the type of ``default``. Raises ``InvalidInput`` for one of another type."""
    try:
        found = json.loads(value)
    except ValueError:
        found = value  # words need no quotes
    if isinstance(found, int) and not isinstance(found, bool) and isinstance(default, float):
        found = float(found)
    if isinstance(default, tuple) and isinstance(found, list):
        found = tuple(found)
        same = all(isinstance(part, int | float) for part in found)
    else:
        same = type(found) is type(default)
    if not same:
        like = text.partition("=")[0] + "=" + json.dumps(default)
        raise InvalidInput(f"--setting {text!r}", f"write a value like {like}")
    return found
