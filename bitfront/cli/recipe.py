"""``bitfront recipe``: a trial for a tool that quantizes the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitfront.scheme import KEEP, Scheme

from . import remote
from .common import Db, StudyName, TrialId
from .output import Json, check_file, emit, quiet_stdout, write_file


def recipe(
    study: StudyName,
    trial: TrialId,
    tool: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="TOOL",
            help="gptqmodel, torchao, llm-compressor, modelopt, llama-quantize.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The recipe to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Write a trial as a recipe, by which another tool quantizes; no model is needed."""
    from bitfront.handover import check_out, recipe_of
    from bitfront.recipes.base import untouched
    from bitfront.storage import Store

    check_file("--out", out)
    check_out(tool, out, overwrite)
    with quiet_stdout():
        if at := remote.server(db):
            record, found = remote.trial(at, study, trial)
        else:
            with Store.open(db) as store:
                record = store.study(study)
                found = store.trial(record, trial)
        text = recipe_of(record, found, tool)
        write_file(out, text)
    quantized = sum(
        not untouched(layer, Scheme.parse(found.schemes.get(name, KEEP)))
        for name, layer in record.layers.items()
    )
    kept = len(record.layers) - quantized
    if as_json:
        emit({
            "study": study, "trial": trial, "tool": tool, "file": str(out),
            "quantized": quantized, "kept": kept,
        })  # fmt: skip
        return
    typer.echo(f"{out}: {quantized} layers to quantize by {tool}, {kept} to keep")
