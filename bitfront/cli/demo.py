"""``bitfront demo``: the main job from beginning to end, in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitfront.documents import trial_document
from bitfront.errors import InvalidInput
from bitfront.figures import amount

from .front import write_page
from .output import Json, emit, quiet_stdout, table
from .progress import shown
from .words import trial_row

SCHEMES = "w2 w3 w4 w6 w8"
BUDGETS = ("2.5bpw", "3bpw", "4bpw", "6bpw")
EXPORTED = "3bpw"
STUDY = "digits"


def demo(
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where everything is written.")
    ] = Path("demo-out"),
    as_json: Json = False,
) -> None:
    """Train a small network on handwritten digits, search, export, reload and compare."""
    import importlib.util

    if importlib.util.find_spec("sklearn") is None:
        raise InvalidInput("the demo needs scikit-learn", "run pip install 'bitfront[demo]'")
    out.mkdir(parents=True, exist_ok=True)
    db, page, folder = out / "bitfront.db", out / "front.html", out / "model"
    with quiet_stdout(), shown() as progress:
        import bitfront
        import bitfront.demo as digits
        from bitfront.pipeline import FULL
        from bitfront.tasks import ModuleTask

        progress("training", 0, 1)
        task = ModuleTask(f"{digits.__file__}:task")
        progress("training", 1, 1)
        with bitfront.open_study(STUDY, task, db) as study:
            answers = bitfront.search(study, SCHEMES, BUDGETS, progress=progress)
            chosen = next(a.trial for a in answers if str(a.budgets[0]) == EXPORTED)
            audit = bitfront.export(study, chosen, folder, overwrite=True)
        front = bitfront.front(STUDY, ("bytes",), ("kl",), db)
        write_page(front, page)
        reloaded = digits.accuracy(bitfront.load(digits.DigitNet(), folder))
    full = next(t for t in front.trials if t.solver == FULL)
    if as_json:
        emit(
            {
                "study": STUDY,
                "db": str(db),
                "page": str(page),
                "folder": str(folder),
                "front": [trial_document(front.trials[i]) for i in front.best],
                "full": {"top1": full.metrics["top1"].value, "bytes": full.costs["bytes"]},
                "reloaded": {"trial": chosen.id, "top1": reloaded, "bytes": audit.bytes},
            }
        )
        return
    rows = [trial_row(front.trials[i], ("kl", "top1")) for i in front.best]
    table(list(rows[0]), [list(row.values()) for row in rows], f"Pareto front of {STUDY}")
    before, after = amount("bytes", full.costs["bytes"]), amount("bytes", audit.bytes)
    typer.echo(f"full model: top-1 {full.metrics['top1'].value:.2%}, {before}")
    typer.echo(f"trial {chosen.id} reloaded from {folder}: top-1 {reloaded:.2%}, {after}")
    typer.echo(f"page of the front: {page}; database: {db}")
