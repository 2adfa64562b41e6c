"""From a trial to a recipe, by which another program quantizes the model itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfront.errors import InvalidInput
from bitfront.files import write_text
from bitfront.recipes import RECIPES
from bitfront.scheme import Scheme

if TYPE_CHECKING:
    from bitfront.storage import StudyRecord
    from bitfront.types import Trial


def recipe(
    study: str,
    trial: int,
    tool: str,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    db: str | Path | None = None,
) -> str:
    """The recipe of a trial for ``tool`` (``bitfront.recipes``); no model is needed.

    out: a file to write it to, whole or not at all. Raises ``UnknownName`` for a tool, study or
    trial, ``ExportError`` for what the tool cannot take, ``InvalidInput`` where ``check_out`` does.
    """
    from bitfront.storage import Store

    check_out(tool, out, overwrite)
    with Store.open(db) as store:
        record = store.study(study)
        found = store.trial(record, trial)
    text = recipe_of(record, found, tool)
    if out is not None:
        write_text(out, text)
    return text


def check_out(tool: str, out: str | Path | None, overwrite: bool = False) -> None:
    """Raises ``UnknownName`` for a tool, ``InvalidInput`` for a file that ``tool`` would not read,
    or that is there and not to be overwritten."""
    suffix = RECIPES[tool].suffix
    if out is None:
        return
    if Path(out).suffix != suffix:
        raise InvalidInput(f"'{out}' for {tool}", f"name a file that ends in {suffix}")
    if Path(out).exists() and not overwrite:
        raise InvalidInput(f"'{out}' exists", "give another name, or overwrite it")


def recipe_of(record: StudyRecord, trial: Trial, tool: str) -> str:
    """``recipe`` of a trial that is at hand."""
    schemes = {name: Scheme.parse(text) for name, text in trial.schemes.items()}
    return RECIPES[tool].text(record.layers.values(), schemes, about(record, trial, tool))


def about(record: StudyRecord, trial: Trial, tool: str) -> dict[str, Any]:
    """Where a recipe is from: study and trial, what was predicted, and what was measured."""
    from bitfront import __version__

    metrics = {name: estimate.value for name, estimate in trial.metrics.items()}
    return {
        "bitfront": __version__,
        "study": record.name,
        "trial": trial.id,
        "for": RECIPES[tool].versions,
        **_known({"predicted": trial.predicted}),
        "costs": _known(trial.costs),
        "metrics": _known(metrics),
    }


def _known(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if math.isfinite(value)}
