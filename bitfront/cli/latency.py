"""``bitfront latency``: what layers, and whole models, take on a target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bitfront.documents import latency_document, trial_document
from bitfront.errors import InvalidInput
from bitfront.figures import amount

from .common import Db, StudyName
from .composing import with_options, without
from .output import Json, check_file, emit, quiet_stdout, table, write_file
from .progress import shown
from .remote import refuse
from .task_options import Given, task_options


@with_options(task=without(task_options, "batch"))
def latency(
    study: StudyName,
    task: Given,
    target: Annotated[
        str,
        typer.Option(
            metavar="NAME[:SHAPE]",
            help="The runtime, and its shape if it is not given below: ort-cpu, ort-cpu:b1s128.",
        ),
    ] = "ort-cpu",
    batch: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Samples of a call (default: 1).")
    ] = None,
    seq: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Tokens of a text (default: the data's)."),
    ] = None,
    past: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Tokens before them, in the cache.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Default: as many as processors.")
    ] = None,
    schemes: Annotated[
        str | None,
        typer.Option(metavar="WORDS", help="To time (default: what the target has to offer)."),
    ] = None,
    trial: Annotated[
        list[int] | None,
        typer.Option(metavar="TRIAL", help="Time this trial's whole model too; repeatable."),
    ] = None,
    mixes: Annotated[
        int, typer.Option(metavar="N", min=0, help="Mixed models that the rest is fitted to.")
    ] = 16,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write the seconds as a costs file."),
    ] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Time a model's layers on a target, and whole models; what is recorded is not timed again."""
    refuse("latency")
    check_file("--csv", csv_file)
    with quiet_stdout(), shown() as progress:
        from bitfront.costfile import GivenCosts
        from bitfront.latency import latency as measure
        from bitfront.latency import timed
        from bitfront.targeting import wanted_schemes
        from bitfront.targets import aimed

        known = aimed(_spelled(target, (batch, seq, past, threads)))
        with task.open(study, db, progress) as opened:
            trials = [opened.trial(number) for number in trial or ()]
            wanted = wanted_schemes(opened, schemes, (known,))
            found = measure(opened, wanted, known, mixes=mixes, progress=progress)
            measured = timed(opened, [known], trials, progress)
        document = latency_document(found)
        document["trials"] = [trial_document(one) for one in measured]
    if csv_file is not None:
        write_file(csv_file, GivenCosts({known.resource: found.given}).as_csv())
    if as_json:
        emit({"study": study, **document})
        return
    show(document, str(known))


def _spelled(target: str, given: tuple[int | None, ...]) -> str:
    """The target with its shape, which is given in one way."""
    from bitfront.targets import Shape

    batch, *rest = given
    if ":" not in target:
        return f"{target}:{Shape(batch or 1, *rest)}"
    if any(size is not None for size in given):
        raise InvalidInput(f"--target {target} and a shape besides", "give one of them")
    return target


def show(found: Mapping[str, Any], target: str) -> None:
    """What the target takes, as tables."""
    full = found["full"]["seconds"]
    rows = [
        [one["scheme"], one["layers"], _ms(one["predicted"]), _ms(one["measured"]),
         f"{one['measured'] / full:.3f}"]
        for one in found["alike"]
    ]  # fmt: skip
    where = f"{found['runtime']}, {found['device']}, threads: {found['threads']}"
    columns = ["layers alike", "layers", "predicted", "measured", "of full"]
    table(columns, rows, f"{target} ({where})")
    typer.echo(
        f"full precision takes {_ms(full)}, of which {_ms(found['rest'])} is no layer; models "
        f"predicted from the {found['models'] - 1} others are off by {found['median_error']:.1%} "
        f"(median) and {found['worst_error']:.1%} (worst)"
    )
    if found["handovers"]:
        most = sum(cost for *_, cost in found["handovers"])
        typer.echo(
            f"where neighbours keep data in different layouts they change it: {_ms(most)} if all do"
        )
    if found["trials"]:
        rows = [[t["id"], *map(_ms, _seconds(t, target))] for t in found["trials"]]
        table(["trial", "predicted", "measured"], rows)


def _seconds(trial: Mapping[str, Any], target: str) -> tuple[float | None, float | None]:
    """Predicted, where the trial was searched for with this target, and measured."""
    return trial["costs"].get(f"seconds@{target}"), trial["costs"].get(f"latency@{target}")


def _ms(seconds: float | None) -> str | None:
    return None if seconds is None else amount("seconds", seconds)
