"""``bitfront profile``: how much each layer's loss grows under each scheme; for how much data."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitfront.documents import profile_document

from .common import Db, Schemes, StudyName
from .composing import with_options
from .layer_options import layer_options
from .output import Json, check_file, emit, quiet_stdout, table, write_file
from .profiler_options import profiler_options
from .progress import shown
from .task_options import Given, task_options
from .until import Budgets, Solver, Until, check_until, show_settled

if TYPE_CHECKING:
    from bitfront.pipeline import Choices
    from bitfront.sensitivity import Profiler
    from bitfront.types import Sensitivities


@with_options(profiler=profiler_options, choices=layer_options, task=task_options)
def profile(
    study: StudyName,
    task: Given,
    choices: Choices,
    profiler: Profiler,
    schemes: Schemes,
    until: Until = None,
    budget: Budgets = None,
    solver: Solver = None,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write all tables, one row a layer and scheme."),
    ] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Measure sensitivities; what is recorded already is not measured again."""
    check_file("--csv", csv_file)
    with quiet_stdout(), shown() as progress:
        from bitfront.pipeline import profile as measure
        from bitfront.settling import profile_until
        from bitfront.types import parse_schemes

        wanted = parse_schemes(schemes)
        check_until(until, budget, solver, choices)
        settled = None
        with task.open(study, db, progress) as opened:
            if until is None:
                tables = measure(opened, wanted, profiler, progress=progress)
            else:
                settled = profile_until(
                    opened, wanted, budget or (), profiler, until=until,
                    solver=solver or "ilp", choices=choices, progress=progress,
                )  # fmt: skip
                tables, profiler = settled.tables, settled.last.profiler
    if csv_file is not None:
        write_file(csv_file, _csv(tables))
    if as_json:
        emit({"study": study, **profile_document(profiler, tables, settled)})
        return
    name, best = next(iter(tables.items()))
    rows = [[layer, *best.values[i].tolist()] for i, layer in enumerate(best.layers)]
    table(["layer", *best.schemes], rows, f"{best.metric}: {profiler.name}, {name}")
    notes = [f"{key} {value:.3g}" for key, value in best.notes.items() if isinstance(value, float)]
    typer.echo(f"{best.samples} calibration samples; {', '.join(notes)}" if notes else "")
    if settled is not None:
        show_settled(settled)


def _csv(tables: dict[str, Sensitivities]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "metric", "layer", "scheme", "value", "stderr", "samples"])
    for name, t in tables.items():
        for i, layer in enumerate(t.layers):
            for j, scheme in enumerate(t.schemes):
                figures = float(t.values[i, j]), float(t.stderr[i, j])
                writer.writerow([name, t.metric, layer, scheme, *figures, t.samples])
    return text.getvalue()
