"""``bitfront import``: scores that another program measured, into a study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bitfront.documents import import_document
from bitfront.registry import check_names

from .common import Db
from .composing import with_options
from .output import Json, emit, quiet_stdout
from .progress import shown
from .remote import refuse
from .task_options import Given, task_options

SHOWN = 5  # names of a list


@with_options(task=task_options)
def import_scores(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Scores of ModelOpt, AutoRound, exllamav2 or mlx-lm, or CSV; several make one "
            "import.",
        ),
    ],
    task: Given,
    study: Annotated[str, typer.Option(metavar="STUDY", help="Name of the study.")],
    format: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="autoround, csv, exllamav2, mlx-lm or modelopt (default: as the content looks).",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What searches name the import by (default: made up)."),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="csv: which of its tables (default: the first)."),
    ] = None,
    schemes: Annotated[
        str | None,
        typer.Option(metavar="WORDS", help='mlx-lm: its low and high format ("w4g64z w5g64z").'),
    ] = None,
    per: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="modelopt, kl_div: positions that KL was added up over; makes it kl.",
        ),
    ] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Record scores that another program measured, to search by: --profiler imported."""
    refuse("import")
    with quiet_stdout(), shown() as progress:
        from bitfront.importers import IMPORTERS
        from bitfront.importing import gathered, recorded
        from bitfront.types import parse_schemes

        check_names((IMPORTERS, format))
        given = () if schemes is None else parse_schemes(schemes)
        scores = gathered(files, format, label, table, given, per)
        with task.open(study, db, progress) as opened:
            found = recorded(opened, scores)
    document = {"study": study, **import_document(found)}
    if as_json:
        emit(document)
        return
    for line in _lines(document):
        typer.echo(line)


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What was imported, and what was not, in words."""
    was = "" if found["new"] else ", which were recorded already"
    yield (
        f"{found['scores']} scores of {found['layers']} layers under "
        f"{', '.join(found['schemes'])}{was}: import {found['label']}"
    )
    yield f"{found['metric']}: {found['unit']}"
    yield from found["notes"]
    if found["prefix"]:
        yield f"names begin with {found['prefix']}, which the model's do not: left out"
    if found["shared"]:
        yield (
            f"{found['shared']} scores are of several layers together, shared out by their "
            f"weights; {found['untied']} of them of layers that the study does not tie"
        )
    for what, why in (
        ("formats", "in a format without a scheme"),
        ("barred", "of a scheme that the layer cannot take"),
        ("unscored", "without a score"),
    ):
        yield from (f"left out, {why}: {count} × {name}" for name, count in found[what].items())
    if found["unknown"]:
        yield f"left out, not of this model: {_some(found['unknown'])}"
    if found["lacking"]:
        yield f"{found['lacking']} pairs of these layers and schemes have no score: no candidates"
    if found["without"]:
        yield f"layers without a score: {_some(found['without'])}; exclude or pin them to keep"
    yield (
        f"search by it: --profiler imported --setting label={found['label']} "
        f"--schemes '{' '.join(found['schemes'])}'"
    )


def _some(names: list[str]) -> str:
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
