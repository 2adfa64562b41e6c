"""``bitfront search``: the best measured allocation within budgets, or the least that holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitfront.documents import answer_document, smallest_document
from bitfront.errors import InvalidInput
from bitfront.registry import check_names

from . import remote
from .common import Db, StudyName
from .composing import with_options
from .executor_options import executor_options
from .layer_options import layer_options
from .output import Json, emit, quiet_stdout, table
from .profiler_options import profiler_options
from .progress import shown
from .task_options import Given, task_options
from .words import answer_row, smallest_lines

if TYPE_CHECKING:
    from bitfront.executors import Wanted
    from bitfront.pipeline import Choices
    from bitfront.sensitivity import Profiler
    from bitfront.within import Bound


@with_options(
    profiler=profiler_options, choices=layer_options, task=task_options, executor=executor_options
)
def search(
    study: StudyName,
    task: Given,
    choices: Choices,
    profiler: Profiler,
    executor: Wanted,
    schemes: Annotated[
        str | None,
        typer.Option(
            metavar="WORDS",
            help='Candidates for each layer, like "w2 w4 w4g128 keep" (default: the target\'s).',
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            metavar="LIMIT",
            help="Like 700MB, 40%, 3.5bpw, 8GBOPs, 12ms@cpu, 2MBact; '>=3bpw' is a lower limit, "
            "CLASS:3bpw one of a class of layers. Of one resource: a sweep; of several: together.",
        ),
    ] = None,
    hold: Annotated[
        str | None,
        typer.Option(
            metavar="BOUND",
            help="Instead of the least loss: the least --minimize at which this is measured to "
            "hold, like 'kl<=0.05', 'top1>=0.9'; all budgets hold besides.",
        ),
    ] = None,
    max_kl: Annotated[
        float | None, typer.Option(metavar="NATS", help="Short for --hold 'kl<=NATS'.")
    ] = None,
    minimize: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --hold: bytes (default), bits, bops, ..."),
    ] = None,
    solver: Annotated[
        str | None,
        typer.Option(
            help="ilp (default), lagrange, quadratic (fisher), greedy, greedy-up, uniform, random."
        ),
    ] = None,
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
            metavar="N",
            help="At most so many more measured allocations for each budget, or in all with "
            "--hold (20).",
        ),
    ] = None,
    explorer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What proposes those: refine (default), bayes, bayes-gp, evolution.",
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
    """Find the best measured allocation within each budget, or the smallest whose metric holds."""
    with quiet_stdout(), shown() as progress:
        from bitfront.names import REFINE, check_explorer
        from bitfront.searching import EXPLORE, check_solver
        from bitfront.searching import search as find
        from bitfront.shares import SHARES
        from bitfront.smallest import smallest

        sweeps_only = {"solver": solver, "metric": metric, "explorer": explorer, "shares": shares}
        bound = _bound(hold, max_kl, minimize, sweeps_only)
        counts = {"max-measurements": max_measurements, "explore": explore, "shares": shares}
        budgets = budget or []
        solver = solver or "ilp"
        _check(schemes, budgets, bound is None, solver, choices, counts)
        check_solver(solver, profiler)
        check_explorer(explorer or REFINE)
        if shares is not None and not profiler.by_class:
            raise InvalidInput(
                f"--shares with {profiler.name}, which has no classes of layers",
                "use --profiler decoupled, or leave it out",
            )
        if at := remote.server(db):
            remote.refuse_executor(executor)
            body = {
                "kind": "search", "task": remote.task_body(task), "schemes": schemes,
                "budgets": budgets, "hold": None if bound is None else str(bound),
                "minimize": minimize or "bytes", "solver": solver, "metric": metric,
                "profiler": remote.profiler_body(profiler),
                "choices": remote.choices_body(choices), "verify": verify,
                "max_measurements": max_measurements,
                "explore": EXPLORE if explore is None else explore,
                "explorer": explorer or REFINE, "shares": SHARES if shares is None else shares,
            }  # fmt: skip
            documents = at.run(study, body, progress)["result"]["answers"]
        else:
            options: dict[str, Any] = {
                "profiler": profiler,
                "choices": choices,
                "verify": verify,
                "max_measurements": max_measurements,
                "explore": EXPLORE if explore is None else explore,
                "progress": progress,
            }
            with task.open(study, db, progress, executor) as opened:
                if bound is not None:
                    resource = minimize or "bytes"
                    found = smallest(
                        opened, schemes, bound, resource=resource, budgets=budgets, **options
                    )
                    documents = [smallest_document(found)]
                else:
                    answers = find(
                        opened,
                        schemes,
                        budgets,
                        solver=solver,
                        metric=metric,
                        explorer=explorer or REFINE,
                        shares=SHARES if shares is None else shares,
                        **options,
                    )
                    documents = [answer_document(answer) for answer in answers]
    if as_json:
        emit({"study": study, "answers": documents})
        return
    rows = [answer_row(document) for document in documents]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table(columns, [[row.get(name) for name in columns] for row in rows], f"study {study}")
    for line in smallest_lines(documents[0]) if bound is not None else ():
        typer.echo(line)


def _bound(
    hold: str | None, max_kl: float | None, minimize: str | None, others: Mapping[str, object]
) -> Bound | None:
    """The bound that is to hold, if one is. others: options that then make no sense."""
    from bitfront.within import Bound

    if hold is None and max_kl is None:
        if minimize is not None:
            raise InvalidInput(
                f"--minimize {minimize} without a bound", "add --hold, like --hold 'kl<=0.05'"
            )
        return None
    if hold is not None and max_kl is not None:
        raise InvalidInput(f"--hold {hold} with --max-kl {max_kl:g}", "give one of them")
    for name, value in others.items():
        if value is not None:
            raise InvalidInput(f"--{name} {value} with a bound to hold", f"leave out --{name}")
    if max_kl is not None and not 0 <= max_kl < math.inf:
        raise InvalidInput(f"--max-kl {max_kl:g}", "give nats, like 0.05")
    return Bound.parse(hold) if hold is not None else Bound("kl", "<=", max_kl or 0.0)


def _check(
    schemes: str | None,
    budgets: list[str],
    sweep: bool,
    solver: str,
    choices: Choices,
    counts: Mapping[str, int | None],
) -> None:
    """Refuse at once what would be refused when the model is loaded, or profiled.

    sweep: whether budgets are points of one, of which there must be some.
    """
    from bitfront.budget import Budget
    from bitfront.problems import points
    from bitfront.quant.exporters import EXPORTERS
    from bitfront.search import ALLOCATORS
    from bitfront.targets import all_aimed
    from bitfront.tasks.numbers import require
    from bitfront.types import parse_schemes

    if schemes is not None:
        parse_schemes(schemes)
    elif not choices.targets:
        raise InvalidInput("neither schemes nor a target", "add --schemes 'w4 w8 keep'")
    all_aimed(choices.targets)
    if sweep:
        points(budgets)
    for text in budgets:
        Budget.parse(text)
    check_names((ALLOCATORS, solver), (EXPORTERS, choices.container))
    for name, value in counts.items():
        require(1 if name == "explore" and not sweep else 0, **{f"--{name}": value})
