"""Trials of a study: listed, and one layer by layer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from bitfront.documents import plain, shown_document, trial_document
from bitfront.queries import show_in
from bitfront.storage import Store, StudyRecord
from bitfront.storage.pages import Order, Place, some_trials, trial_places
from bitfront.trialcolumns import OfStudy, placed_among
from bitfront.within import those_within

from .common import After, Db, Limit, Page, StudyName, TrialId, Word
from .csvs import CSV, AsCsv
from .figures import ORDER, TrialDocument, TrialLine, order_of
from .listings import listed, page_of
from .problems import documented

router = APIRouter(tags=["studies"])
COLUMNS = ("id", "created", "solver", "predicted", "expected", "bound", "seconds")

WITHIN = "A limit, like 700MB, 40%, 12ms@cpu or kl<=0.1; repeatable."
Within = Annotated[list[Word], Query(description=WITHIN, max_length=20)]


class Trials(Page):
    items: list[TrialLine]


class LayerLine(BaseModel):
    """A layer of a trial. bits: of a weight, null for a layer that is kept and not known. bytes,
    full_bytes: as stored, and in full precision. measured: worsening of the metric when only this
    layer is quantized. estimated: the profiler's. inside_noise: its rank among the layers is in
    doubt."""

    scheme: str
    bits: int | None
    kind: str | None
    shape: list[int] | None
    bytes: float | None
    full_bytes: float | None
    measured: float | None
    measured_stderr: float | None
    estimated: float | None
    estimated_stderr: float | None
    inside_noise: bool


class ShownTrial(TrialDocument):
    """A trial with its layers. parted: metrics that are worse on other data than on calibration
    data, and on which."""

    study: str
    parted: dict[str, list[str]]
    layers: dict[str, LayerLine]


@router.get("/studies/{name}/trials", response_model=Trials, responses={**documented(404), **CSV})
def trials(
    request: Request,
    store: Db,
    name: StudyName,
    as_csv: AsCsv,
    solver: Word | None = None,
    within: Within = [],  # noqa: B006 (FastAPI copies it)
    order: Annotated[Word, Query(description=ORDER)] = "id",
    limit: Limit = 100,
    at: After = None,
) -> Any:
    """The trials of a study."""
    record = store.study(name)
    query = {
        "of": "trials", "study": name, "solver": solver, "within": within, "order": order,
    }  # fmt: skip

    def find(after: Place | None, most: int) -> list[Place]:
        return _places(store, record, order_of(order), solver, within, after, most)

    ids, more = page_of(query, at, limit, find)
    rows = [trial_document(trial) for trial in some_trials(store, ids, layers=False)]
    return listed(request, rows, more, as_csv, COLUMNS, ("costs", "metrics"))


@router.get("/studies/{name}/trials/{trial}", response_model=ShownTrial, responses=documented(404))
def trial(store: Db, name: StudyName, trial: TrialId, metric: Word = "kl") -> Any:
    """A trial: schemes, bytes and sensitivities of its layers, and all that was measured of it."""
    return plain(shown_document(show_in(store, name, trial, metric)))


def _places(
    store: Store,
    record: StudyRecord,
    order: Order,
    solver: str | None,
    limits: list[str],
    after: Place | None,
    limit: int,
) -> list[Place]:
    if not limits:
        return trial_places(store, record, order, solver=solver, after=after, limit=limit)
    columns = OfStudy(store, record)
    left = those_within(columns, limits)
    if solver is not None:
        left &= columns.solved_by(solver)
    return placed_among(columns, left, order, after, limit)
