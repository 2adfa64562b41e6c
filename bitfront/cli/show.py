"""``bitfront show``: one trial, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitfront.documents import shown_document
from bitfront.figures import amount, figure
from bitfront.heldout import CALIBRATION, PARTIAL, warnings

from . import remote
from .common import Db, StudyName, TrialId
from .output import Json, emit, quiet_stdout, table
from .words import predicted_row

if TYPE_CHECKING:
    from bitfront.queries import LayerLine
    from bitfront.types import Estimate

TOLD = ("shares", "factors", "expected")  # settings that have a place of their own
NOISY = "~"  # beside an estimate whose rank is inside the noise


def show(
    study: StudyName,
    trial: TrialId,
    metric: Annotated[str, typer.Option(help="Whose sensitivities are shown.")] = "kl",
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Show a trial: schemes, bytes and sensitivities of its layers; no model is needed."""
    from bitfront.queries import show as ask

    with quiet_stdout():
        at = remote.server(db)
        found = remote.show(at, study, trial, metric) if at else ask(study, trial, metric, db)
    t = found.trial
    if as_json:
        emit(shown_document(found))
        return
    table(
        ["layer", "kind", "shape", "scheme", "bytes", "of full", "measured", "estimated"],
        [
            [
                line.name,
                line.layer.kind if line.layer else None,
                f"{line.layer.rows} × {line.layer.cols}" if line.layer else None,
                line.scheme,
                line.bytes,
                _share(line),
                _cell(line.measured),
                _cell(line.estimated, NOISY if line.inside_noise else ""),
            ]
            for line in found.lines
        ],
        f"trial {t.id} of {study}",
    )
    if any(line.inside_noise for line in found.lines):
        typer.echo(
            f"{NOISY} rank inside the noise: another layer's estimate under the same scheme, next "
            "to this one in rank, is within their joint standard error\n"
        )
    table(["cost", "total"], [(name, amount(name, value)) for name, value in t.costs.items()])
    table(
        ["metric", "calibration", "held back", "evaluation", "warning"],
        [
            [name, *map(_cell, (of.calibration, of.held_back, of.evaluation)), of.mark or None]
            for name, of in found.sides.items()
        ],
    )
    if metric in found.sides:
        for line in warnings({t.id: found.sides[metric]}, metric):
            typer.echo(line)
    part = t.metrics.get(PARTIAL + metric)
    if part is not None and CALIBRATION + metric not in t.metrics:
        typer.echo(f"given up after {part.samples} calibration samples: {metric} {figure(part)}")
    _by_class(t.settings)
    told = {key: value for key, value in t.settings.items() if key not in TOLD}
    loss = predicted_row(t, metric, t.predicted)
    figures = [f"{name} {cell}" for name, cell in loss.items() if cell is not None]
    typer.echo(f"{t.solver}: {', '.join([*figures, f'bound {t.bound:.4g}'])}; {t.created}")
    typer.echo(", ".join(f"{key} {value}" for key, value in told.items()))


def _by_class(settings: Mapping[str, Any]) -> None:
    """What an outer search gave each class of layers, where there was one."""
    if "shares" in settings:
        rows = [
            (cls, f"{share:.1%}", f"{settings['factors'][cls]:.3g}")
            for cls, share in settings["shares"].items()
        ]
        table(["class", "share of the budget", "factor"], rows)


def _share(line: LayerLine) -> str | None:
    known = line.full_bytes and not math.isnan(line.full_bytes)
    return f"{line.bytes / line.full_bytes:.1%}" if known else None


def _cell(estimate: Estimate | None, mark: str = "") -> str | None:
    return None if estimate is None else f"{figure(estimate)} {mark}".rstrip()
