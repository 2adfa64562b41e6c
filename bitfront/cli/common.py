"""Options of one value that many commands have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bitfront.registry import Registry

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


def check_names(*asked: tuple[Registry[Any], str | None]) -> None:
    """Raises ``UnknownName`` for a name that is not registered, before anything long is begun."""
    for registry, name in asked:
        if name is not None:
            _ = registry[name]
