"""Options of one value that many commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="Name of the study.")]
TrialId = Annotated[int, typer.Argument(metavar="TRIAL", help="Number of a trial of the study.")]
Db = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="FILE|URL",
        help="Where the study is kept (default: BITFRONT_DB, else the user's data folder).",
    ),
]
Schemes = Annotated[
    str, typer.Option(metavar="WORDS", help='Candidates for each layer, like "w2 w4 w4g128 keep".')
]
Roots = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DIR", help="Folder of models, data and weights that jobs may use; repeatable."
    ),
]
AllowHub = Annotated[
    bool, typer.Option("--allow-hub", help="Jobs may use models and data of the hub.")
]
AllowFunctions = Annotated[
    bool, typer.Option("--allow-functions", help="Jobs may run Python files under a root.")
]
LowCosts = Annotated[
    list[str] | None,
    typer.Option(
        "--cost", metavar="NAME", help="To be low: bytes (default), bits, bops; repeatable."
    ),
]
GoodMetrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric", metavar="NAME", help="To be good: kl (default), top1, ...; repeatable."
    ),
]
Within = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LIMIT",
        help="Only of trials within it: a budget, like 700MB, or 'kl<=0.1'; repeatable.",
    ),
]


def objectives(
    cost: list[str] | None, metric: list[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Costs and metrics of a front, as asked for or by default."""
    return tuple(cost or ["bytes"]), tuple(metric or ["kl"])
