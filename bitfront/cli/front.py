"""``bitfront front``: the trials of a study that no other dominates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitfront.documents import front_document
from bitfront.figures import amount, figure
from bitfront.heldout import bare, warnings

from . import remote
from .common import Db, GoodMetrics, LowCosts, StudyName, Within, objectives
from .output import Json, check_file, emit, naming, quiet_stdout, table, write_file
from .words import predicted_row

if TYPE_CHECKING:
    from bitfront.queries import Front


def front(
    study: StudyName,
    cost: LowCosts = None,
    metric: GoodMetrics = None,
    within: Within = None,
    everything: Annotated[bool, typer.Option("--all", help="List dominated trials too.")] = False,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write it as a CSV file.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page: hover for figures, bars of every layer."),
    ] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Show the Pareto front; no model is needed."""
    from bitfront.frontcsv import front_csv
    from bitfront.queries import front as ask

    costs, metrics = objectives(cost, metric)
    check_file("--csv", csv_file)
    check_file("--html", html)
    with quiet_stdout():
        if at := remote.server(db):
            found = remote.front(at, study, costs, metrics, within or [])
        else:
            found = ask(study, costs, metrics, db, within=within or ())
        if csv_file is not None:
            write_file(csv_file, front_csv(found, everything))
        if html is not None:
            write_page(found, html)
    if as_json:
        emit(front_document(found, everything))
        return
    _print(found, found.listed(everything))


def _print(found: Front, rows: list[int]) -> None:
    costs, metrics = found.costs, found.metrics
    more = [name for name in ("perplexity", "top1") if name not in metrics]
    trials = [found.trials[i] for i in rows]
    also = [name for name in more if all(name in t.metrics for t in trials)]
    main = bare(metrics[0]) if metrics else "kl"
    predicted = {t.id: predicted_row(t, main, t.predicted) for t in trials}
    shown = f"calibration {main}" if f"calibration/{main}" in metrics else None
    about = [name for name in predicted[trials[0].id] if name != shown]
    cells = [
        [
            f"{'*' if i in found.best else ' '}{t.id}{' knee' if i == found.knee else ''}",
            *(amount(name, t.costs[name]) for name in costs),
            *(figure(t.metrics[name]) for name in (*metrics, *also)),
            *(predicted[t.id].get(name) for name in about),
            t.solver,
            " & ".join(t.settings.get("budgets", [])),
        ]
        for i, t in zip(rows, trials, strict=True)
    ]
    columns = ["trial", *costs, *metrics, *also, *about, "solver", "budget"]
    table(columns, cells, f"front of {found.study.name}")
    of = " within " + " and ".join(found.within) if found.within else ""
    typer.echo(f"{len(found.best)} of {len(found.trials)} trials{of} on the front")
    for metric in metrics:
        for line in warnings(found.sides(metric), metric):
            typer.echo(line)


def write_page(found: Front, path: Path) -> None:
    """Write the first cost and the first metric of ``found`` as a page."""
    from bitfront.frontpage import write_front
    from bitfront.queries import better_of

    metric = found.metrics[0]
    with naming(path):
        write_front(
            path,
            found.study.name,
            found.trials,
            [found.trials[i].id for i in found.best],
            list(found.study.layers.values()),
            x=found.costs[0],
            y=metric,
            y_unit=found.study.settings.get("metrics", {}).get(metric, {}).get("unit", ""),
            better=better_of(found.study.settings, metric),
            within=found.within,
            knee=found.knee_id,
        )
