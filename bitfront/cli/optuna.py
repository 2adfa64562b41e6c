"""``bitfront optuna``: a study's trials for optuna-dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Db, GoodMetrics, LowCosts, StudyName, Within, objectives
from .output import Json, check_file, emit, naming, quiet_stdout
from .remote import refuse


def optuna(
    study: StudyName,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The SQLite file to write.")],
    cost: LowCosts = None,
    metric: GoodMetrics = None,
    within: Within = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Write a study's trials as an Optuna study, which optuna-dashboard opens."""
    from bitfront.optunafile import write_optuna

    refuse("optuna")
    check_file("--out", out)
    costs, metrics = objectives(cost, metric)
    with quiet_stdout(), naming(out):
        found = write_optuna(
            study, out, costs, metrics, db, within=within or (), overwrite=overwrite
        )
    if as_json:
        best = [found.trials[i].id for i in found.best]
        emit({"file": str(out), "study": study, "trials": len(found.trials), "best": best})
        return
    typer.echo(f"{len(found.trials)} trials, {len(found.best)} of them best, written to {out}")
