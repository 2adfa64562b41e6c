"""``bitfront search``: the best measured allocation within each budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitfront.errors import InvalidInput

from .common import Db, Schemes, StudyName, check_names
from .composing import with_options
from .layer_options import layer_options
from .output import Json, emit, quiet_stdout, table
from .profiler_options import profiler_options
from .progress import shown
from .task_options import Given, task_options
from .words import answer_row, trial_document

if TYPE_CHECKING:
    from bitfront.answering import Answer
    from bitfront.pipeline import Choices
    from bitfront.sensitivity import Profiler


@with_options(profiler=profiler_options, choices=layer_options, task=task_options)
def search(
    study: StudyName,
    task: Given,
    choices: Choices,
    profiler: Profiler,
    schemes: Schemes,
    budget: Annotated[
        list[str],
        typer.Option(
            "--budget",
            metavar="LIMIT",
            help="Like 700MB, 40%, 3.5bpw, 8GBOPs, 12ms@cpu, 2MBact; '>=3bpw' is a lower limit, "
            "CLASS:3bpw one of a class of layers. Of one resource: a sweep; of several: together.",
        ),
    ],
    solver: Annotated[
        str, typer.Option(help="ilp, lagrange, greedy, greedy-up, uniform, random.")
    ] = "ilp",
    metric: Annotated[
        str | None, typer.Option(help="To be kept low (default: the profiler's, else kl).")
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify/--no-verify", help="Measure what is chosen before believing it."),
    ] = True,
    max_measurements: Annotated[
        int | None, typer.Option(metavar="N", help="At most so many measurements to verify.")
    ] = None,
    explore: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="At most so many more measured allocations for each budget (20)."
        ),
    ] = None,
    shares: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="decoupled: at most so many measured splits of each budget between classes of "
            "layers (16).",
        ),
    ] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Find, build and measure the best allocation within each budget."""
    with quiet_stdout(), shown() as progress:
        from bitfront.pipeline import EXPLORE, SHARES
        from bitfront.pipeline import search as find

        counts = {"max-measurements": max_measurements, "explore": explore, "shares": shares}
        _check(schemes, budget, solver, choices.container, counts)
        if shares is not None and not profiler.by_class:
            raise InvalidInput(
                f"--shares with {profiler.name}, which has no classes of layers",
                "use --profiler decoupled, or leave it out",
            )
        with task.open(study, db, progress) as opened:
            answers = find(
                opened,
                schemes,
                budget,
                solver=solver,
                profiler=profiler,
                metric=metric,
                choices=choices,
                verify=verify,
                max_measurements=max_measurements,
                explore=EXPLORE if explore is None else explore,
                shares=SHARES if shares is None else shares,
                progress=progress,
            )
    if as_json:
        emit({"study": study, "answers": [_document(answer) for answer in answers]})
        return
    rows = [answer_row(answer) for answer in answers]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table(columns, [[row.get(name) for name in columns] for row in rows], f"study {study}")


def _check(
    schemes: str,
    budgets: list[str],
    solver: str,
    container: str | None,
    counts: Mapping[str, int | None],
) -> None:
    """Refuse at once what would be refused when the model is loaded, or profiled."""
    from bitfront.problems import points
    from bitfront.quant.exporters import EXPORTERS
    from bitfront.search import ALLOCATORS
    from bitfront.types import parse_schemes

    parse_schemes(schemes)
    points(budgets)
    check_names((ALLOCATORS, solver), (EXPORTERS, container))
    for name, value in counts.items():
        if value is not None and value < 0:
            raise InvalidInput(f"--{name} {value}", "give 0 or more")


def _document(answer: Answer) -> dict[str, Any]:
    return {
        "budgets": [str(b) for b in answer.budgets],
        "trial": trial_document(answer.trial),
        "predicted": answer.predicted,
        "expected": answer.expected,
        "bound": answer.bound,
        "table": answer.table,
        "unverified": answer.unverified,
        "evaluations": answer.evaluations,
    }
