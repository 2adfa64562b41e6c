"""``bitfront export``: a trial as a folder that other programs load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitfront.documents import export_document
from bitfront.figures import amount
from bitfront.registry import check_names

from . import remote
from .common import Db, StudyName, TrialId
from .composing import with_options
from .output import Json, emit, quiet_stdout
from .progress import shown
from .task_options import Given, task_options


@with_options(task=task_options)
def export(
    study: StudyName,
    trial: TrialId,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Appears when all is well.")],
    task: Given,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="compressed-tensors, diffusers, safetensors, onnx or gguf (default: as counted).",
        ),
    ] = None,
    cache: Annotated[
        bool | None,
        typer.Option(
            "--cache/--no-cache",
            help="onnx: keys and values of earlier tokens in and out (default: language tasks).",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace FOLDER if it exists.")
    ] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Write a trial's model and audit it in a fresh process."""
    with quiet_stdout(), shown() as progress:
        from bitfront.deploy import export as write

        if at := remote.server(db):
            from bitfront.quant.folders import new_folder

            body = {
                "kind": "export", "task": remote.task_body(task), "trial": trial,
                "format": format_name, "cache": cache,
            }  # fmt: skip
            with new_folder(folder, overwrite) as partial:
                job = at.run(study, body, progress)
                remote.download(at, job, partial)
            document = {**job["result"], "folder": str(folder.resolve())}
        else:
            _check(study, trial, folder, format_name, overwrite, db)
            with task.open(study, db, progress) as opened:
                progress("exporting", 0, 1)
                audit = write(
                    opened, trial, folder, format=format_name, cache=cache, overwrite=overwrite
                )
                progress("exporting", 1, 1)
            document = export_document(str(folder.resolve()), audit)
    if as_json:
        emit({"study": study, "trial": trial, **document})
        return
    size, predicted = document["bytes"], document["predicted_bytes"]
    # a graph has each layer's bytes as predicted, and other tensors than the model has besides
    rest = "as predicted" if size == predicted else f"{predicted} predicted, its layers' exactly"
    typer.echo(
        f"{folder}: {size} bytes of tensors, {rest}; reloaded in a fresh process, outputs differ "
        f"by at most {document['max_difference']:.3g} (their spread is {document['spread']:.3g})"
    )
    for target, took in document["latency"].items():
        typer.echo(
            f"{target}: {amount('seconds', took['measured'])}, predicted "
            f"{amount('seconds', took['predicted'])}"
        )


def _check(
    study: str, trial: int, folder: Path, format_name: str | None, overwrite: bool, db: str | None
) -> None:
    """Refuse at once what would be refused when the model is loaded and quantized."""
    from bitfront.quant.exporters import EXPORTERS
    from bitfront.quant.folders import check_target
    from bitfront.storage import Store

    with Store.open(db) as store:
        store.trial(store.study(study), trial)
    check_names((EXPORTERS, format_name))
    check_target(folder, overwrite)
