"""``bitfront profile --until``: its options, and what it came to in words and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitfront.errors import InvalidInput
from bitfront.registry import check_names

from .output import table

if TYPE_CHECKING:
    from bitfront.pipeline import Choices
    from bitfront.sensitivity import Profiler

_PANEL = "Until allocations settle"

Until = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        rich_help_panel=_PANEL,
        show_default=False,
        help="Use as much of the data as the budgets' allocations need: until no more than this "
        "share of the weights changes its scheme under the bootstrap, like 0.05.",
    ),
]
Budgets = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        metavar="LIMIT",
        rich_help_panel=_PANEL,
        show_default=False,
        help="With --until: as in bitfront search; may be repeated.",
    ),
]
Solver = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_PANEL,
        show_default=False,
        help="With --until: ilp (default), lagrange, greedy, greedy-up, uniform, random.",
    ),
]


def check_until(
    until: float | None,
    budgets: list[str] | None,
    solver: str | None,
    choices: Choices,
    profiler: Profiler,
) -> None:
    """Refuse at once what would be refused when the model is loaded, and options without effect."""
    from bitfront.pipeline import Choices
    from bitfront.problems import points
    from bitfront.quant.exporters import EXPORTERS
    from bitfront.search import ALLOCATORS
    from bitfront.settling import check_additive, check_measures

    if until is None:
        if budgets or solver is not None or choices != Choices():
            raise InvalidInput(
                "budgets, a solver or layer options without --until",
                "add --until 0.05, or leave them out: every layer is profiled",
            )
        return
    if not 0 <= until < 1:
        raise InvalidInput(f"--until {until}", "give a share of the weights, like 0.05")
    if not budgets:
        raise InvalidInput(f"--until {until} without a budget", "add one, like --budget 4bpw")
    check_measures(profiler)
    points(budgets)
    if solver is not None:
        check_additive(solver)
    check_names((ALLOCATORS, solver), (EXPORTERS, choices.container))


def show_settled(settled: Mapping[str, Any]) -> None:
    """Each step's figures, then how it ended; of a ``settled_document``."""
    rows = [
        [step["samples"], " & ".join(p["budgets"]), p["changed"], p["excess"], p["moved"]]
        for step in settled["steps"]
        for p in step["budgets"]
    ]
    columns = ["samples", "budget", "changed", "excess", "since half the data"]
    table(
        columns, rows, "share of weights that change, and loss it would cost, under the bootstrap"
    )
    typer.echo(sentence(settled))


def sentence(settled: Mapping[str, Any]) -> str:
    """How it ended, and what would help."""
    share, used = f"{settled['share']:g}", f"{settled['samples']} calibration samples"
    part = f"{settled['batches']} of {settled['all_batches']} batches"
    if settled["reached"]:
        return f"--until {share} reached with {used} ({part})"
    if settled["steps"][-1]["errors"] == "unknown":
        return (
            f"--until {share} not reached: with {used} in {part} the errors are not known. "
            "Give smaller batches (--batch), or more --samples"
        )
    worst = max(settled["budgets"], key=lambda point: point["changed"])
    return (
        f"--until {share} not reached: with all {used}, {worst['changed']:.3g} of the weights "
        f"change at {' & '.join(worst['budgets'])}, which would cost {worst['excess']:.3g} of the "
        "loss. Give more --samples, or allow a greater share"
    )
