"""``bitfront profile``: how much each layer's loss grows under each scheme; for how much data."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitfront.documents import profile_document
from bitfront.fromdocuments import known

from . import remote
from .common import Db, Schemes, StudyName
from .composing import with_options
from .executor_options import executor_options
from .layer_options import layer_options
from .output import Json, check_file, emit, quiet_stdout, table, write_file
from .profiler_options import profiler_options
from .progress import shown
from .task_options import Given, task_options
from .until import Budgets, Solver, Until, check_until, show_settled

if TYPE_CHECKING:
    from bitfront.executors import Wanted
    from bitfront.pipeline import Choices
    from bitfront.sensitivity import Profiler


@with_options(
    profiler=profiler_options, choices=layer_options, task=task_options, executor=executor_options
)
def profile(
    study: StudyName,
    task: Given,
    choices: Choices,
    profiler: Profiler,
    executor: Wanted,
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
        from bitfront.scored import chosen_profiler
        from bitfront.settling import profile_until
        from bitfront.types import parse_schemes

        wanted = parse_schemes(schemes)
        check_until(until, budget, solver, choices, profiler)
        if at := remote.server(db):
            remote.refuse_executor(executor)
            body = {
                "kind": "profile", "task": remote.task_body(task), "schemes": schemes,
                "profiler": remote.profiler_body(profiler), "until": until,
                "budgets": budget or [], "solver": solver or "ilp",
                "choices": remote.choices_body(choices),
            }  # fmt: skip
            document = at.run(study, body, progress)["result"]
        else:
            with task.open(study, db, progress, executor) as opened:
                if until is None:
                    used = chosen_profiler(opened, profiler)
                    tables = measure(opened, wanted, used, progress=progress)
                    document = profile_document(used, tables)
                else:
                    settled = profile_until(
                        opened, wanted, budget or (), profiler, until=until,
                        solver=solver or "ilp", choices=choices, progress=progress,
                    )  # fmt: skip
                    document = profile_document(settled.last.profiler, settled.tables, settled)
    if csv_file is not None:
        write_file(csv_file, as_csv(document["tables"]))
    if as_json:
        emit({"study": study, **document})
        return
    name, best = next(iter(document["tables"].items()))
    rows = [
        [layer, *map(known, row)] for layer, row in zip(best["layers"], best["values"], strict=True)
    ]
    title = f"{best['metric']}: {document['profiler']}, {name}"
    table(["layer", *best["schemes"]], rows, title)
    notes = [
        f"{key} {value:.3g}" for key, value in best["notes"].items() if isinstance(value, float)
    ]
    typer.echo(f"{best['samples']} calibration samples; {', '.join(notes)}" if notes else "")
    if "until" in document:
        show_settled(document["until"])


def as_csv(tables: Mapping[str, Any]) -> str:
    """The tables of a ``profile_document``, a row for each pair; nan for what is unknown."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "metric", "layer", "scheme", "value", "stderr", "samples"])
    for name, t in tables.items():
        for layer, values, errors in zip(t["layers"], t["values"], t["stderr"], strict=True):
            for scheme, value, error in zip(t["schemes"], values, errors, strict=True):
                figures = float(known(value)), float(known(error))
                writer.writerow([name, t["metric"], layer, scheme, *figures, t["samples"]])
    return text.getvalue()
