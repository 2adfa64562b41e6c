"""``bitfront solve``: an allocation problem from a file."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitfront.errors import InvalidInput

from .output import Json, emit, quiet_stdout, table, word

if TYPE_CHECKING:
    from bitfront.types import Allocation

_HOW = "write NAME=NUMBER, like size=5.2, or 'NAME>=NUMBER'"


def solve(
    problem: Annotated[
        Path,
        typer.Argument(
            metavar="PROBLEM",
            help="A .json, .npz or .parquet file with schemes, loss and costs (layers × schemes).",
        ),
    ],
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="Greatest total of one cost, or with 'NAME>=NUMBER' the least; may be repeated.",
        ),
    ] = None,
    solver: Annotated[
        str, typer.Option(help="ilp, lagrange, greedy, greedy-up, uniform, random.")
    ] = "ilp",
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Keep the best found until then, with its gap."),
    ] = None,
    gap: Annotated[
        float,
        typer.Option(metavar="PART", help="Stop when proven within this part of the least loss."),
    ] = 0.0,
    count: Annotated[
        int, typer.Option(min=1, help="How many allocations: the best, then the next best.")
    ] = 1,
    distance: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --count: in how many groups any two differ at least; 1 if not given."
        ),
    ] = None,
    minimize: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --max-loss: the cost to make least, not the loss."),
    ] = None,
    max_loss: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="With --minimize: greatest total loss.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Choose one scheme per layer: least total loss, or least cost, within the limits."""
    limits, floors = _limits(limit or [])
    if count == 1 and distance is not None:
        raise InvalidInput(f"--distance {distance} of one allocation", "give --count too")
    if count > 1 and solver != "ilp":
        raise InvalidInput(f"--count {count} by {solver}", "only ilp proves what is next best")
    if (minimize is None) != (max_loss is None):
        raise InvalidInput(
            "one of --minimize and --max-loss", "give both: which cost, within which loss"
        )
    if minimize is not None and (count > 1 or solver != "ilp"):
        raise InvalidInput(
            f"--minimize {minimize} with --count or another --solver",
            "the one cheapest is found, by ilp",
        )
    if time_limit is not None and not (math.isfinite(time_limit) and time_limit > 0):
        raise InvalidInput(f"a time limit of {time_limit:g} seconds", "give a positive number")

    if gap and (count > 1 or minimize is not None):
        raise InvalidInput(f"--gap {gap:g} with --count or --minimize", "those are proven in full")

    from bitfront.search import allocate, cheapest, read_problem, require_additive, several

    require_additive(
        solver,
        "on a file, which holds no interactions",
        "solve with another, like ilp; bitfront search has interactions",
    )
    with quiet_stdout():
        read = read_problem(problem, limits, floors)
        if minimize is not None and max_loss is not None:
            found = [cheapest(read, minimize, max_loss, time_limit=time_limit)]
        elif count == 1:
            found = [allocate(read, solver, time_limit=time_limit, gap=gap)]
        else:
            found = several(read, count, distance or 1, time_limit=time_limit)
    if as_json:
        emit(_plain(found[0]) if count == 1 else {"allocations": [_plain(one) for one in found]})
        return
    _show(found, limits, floors, minimize)
    if len(found) < count:
        more = "no more that differ so" if time_limit is None else "no more found in the time"
        typer.echo(f"{len(found)} of {count}: {more}")


def _plain(found: Allocation) -> dict[str, Any]:
    return {
        "choice": found.choice,
        "loss": found.loss,
        "costs": found.costs,
        "bound": found.bound,
        "gap": found.gap,
        "optimal": found.optimal,
        "seconds": found.seconds,
    }


def _show(
    found: Sequence[Allocation],
    limits: dict[str, float],
    floors: dict[str, float],
    minimize: str | None,
) -> None:
    """A column of schemes and of totals, and a line, for each allocation."""
    first, several = found[0], len(found) > 1
    numbers = [str(k) for k in range(1, len(found) + 1)]
    choices = zip(*(one.choice for one in found), strict=True)
    layers = ((layer, *row) for layer, row in zip(first.layers, choices, strict=True))
    table(["layer", *(numbers if several else ["scheme"])], layers)
    bounds = {"at least": floors, "limit": limits} if floors else {"limit": limits}
    rows = [
        (name, *(one.costs[name] for one in found), *(kind.get(name) for kind in bounds.values()))
        for name in first.costs
    ]
    table(["cost", *(numbers if several else ["total"]), *bounds], rows)
    for number, one in zip(numbers, found, strict=True):
        counts = ", ".join(f"{n} × {name}" for name, n in Counter(one.choice).most_common())
        proof = "optimal" if one.optimal else f"bound {word(one.bound)}, gap {word(one.gap)}"
        if minimize is not None:
            proof = f"{minimize} {'proven least' if one.optimal else 'not proven least'}"
        start = f"{number}: " if several else ""
        typer.echo(
            f"{start}loss {one.loss:.9g} ({proof}), {counts}; {one.solver}, {one.seconds:.3f} s"
        )


def _limits(texts: list[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Resource -> limit, from words like ``size=5.2``; and -> floor, from ``size>=3``."""
    limits: dict[str, float] = {}
    floors: dict[str, float] = {}
    for text in texts:
        match = re.fullmatch(r"\s*(.*?)\s*(<=|>=|=)([^=]*)", text, re.DOTALL)
        if match is None or not match[1]:
            raise InvalidInput(f"cannot read --limit {text!r}", _HOW)
        name, sign, number = match.groups()
        bounds = floors if sign == ">=" else limits
        if name in bounds:
            raise InvalidInput(f"two limits on {name!r}", "give each cost at most one of a kind")
        try:
            bounds[name] = float(number)
        except ValueError:
            raise InvalidInput(f"--limit {text!r}: {number!r} is not a number", _HOW) from None
        if not math.isfinite(bounds[name]):
            raise InvalidInput(f"--limit {text!r} is not finite", "leave it out for no limit")
    return limits, floors
