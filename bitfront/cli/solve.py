"""``bitfront solve``: an allocation problem from a file."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from bitfront.errors import InvalidInput

from .output import Json, emit, quiet_stdout, table, word


def solve(
    problem: Annotated[
        Path,
        typer.Argument(
            metavar="PROBLEM.JSON",
            help="JSON with schemes, loss and costs (layers × schemes), tied.",
        ),
    ],
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="Greatest total of one cost; may be repeated."),
    ] = None,
    solver: Annotated[
        str, typer.Option(help="ilp, lagrange, greedy, greedy-up, uniform, random.")
    ] = "ilp",
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Keep the best found until then, with its gap."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Choose one scheme per layer: least total loss within the limits."""
    limits = _limits(limit or [])
    if time_limit is not None and not (math.isfinite(time_limit) and time_limit > 0):
        raise InvalidInput(f"a time limit of {time_limit:g} seconds", "give a positive number")

    from bitfront.search import allocate, read_problem

    with quiet_stdout():
        read = read_problem(problem, limits)
        found = allocate(read, solver, time_limit=time_limit)
    if as_json:
        emit(
            {
                "choice": found.choice,
                "loss": found.loss,
                "costs": found.costs,
                "bound": found.bound,
                "gap": found.gap,
                "optimal": found.optimal,
                "seconds": found.seconds,
            }
        )
        return
    table(["layer", "scheme"], zip(found.layers, found.choice, strict=True))
    rows = [(name, total, limits.get(name)) for name, total in found.costs.items()]
    table(["cost", "total", "limit"], rows)
    counts = ", ".join(f"{n} × {name}" for name, n in Counter(found.choice).most_common())
    proof = "optimal" if found.optimal else f"bound {word(found.bound)}, gap {word(found.gap)}"
    typer.echo(f"loss {found.loss:.9g} ({proof}), {counts}; {solver}, {found.seconds:.3f} s")


def _limits(texts: list[str]) -> dict[str, float]:
    """Resource -> limit, from words like ``size=5.2``."""
    limits: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        name = name.strip()
        if not equals or not name:
            raise InvalidInput(f"cannot read --limit {text!r}", "write NAME=NUMBER, like size=5.2")
        if name in limits:
            raise InvalidInput(f"two limits on {name!r}", "give each cost at most one --limit")
        try:
            limits[name] = float(number)
        except ValueError:
            raise InvalidInput(
                f"--limit {text!r}: {number!r} is not a number", "write NAME=NUMBER, like size=5.2"
            ) from None
        if not math.isfinite(limits[name]):
            raise InvalidInput(f"--limit {text!r} is not finite", "leave it out for no limit")
    return limits
