"""Studies: listed, and one at a glance."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from bitfront.documents import plain, study_document
from bitfront.queries import better_of
from bitfront.storage.overviews import overview

from .common import After, Db, Limit, Page, StudyName, Word, page
from .cursors import cursor, position
from .problems import documented

router = APIRouter(tags=["studies"])


class StudyLine(BaseModel):
    """A study. metrics, costs: of its trials, the least and the greatest of each."""

    name: str
    created: str
    measurements: int
    trials: int
    metrics: dict[str, list[float | None]]
    costs: dict[str, list[float | None]]


class Studies(Page):
    items: list[StudyLine]


class SpanDocument(BaseModel):
    """How many trials have a figure, its ends, and the first trial at each end."""

    trials: int
    least: float
    least_trial: int
    greatest: float
    greatest_trial: int


class MetricSpan(SpanDocument):
    better: Literal["lower", "higher"]
    best: float
    best_trial: int


class StudyDocument(BaseModel):
    """A study. settings: what it was begun with. profilers: name to number of measurements."""

    name: str
    created: str
    fingerprint: dict[str, str]
    settings: dict[str, Any]
    layers: list[dict[str, Any]] = Field(description="As they were when the study was begun.")
    trials: int
    profilers: dict[str, int]
    metrics: dict[str, MetricSpan]
    costs: dict[str, SpanDocument]


@router.get("/studies", response_model=Studies, responses=documented())
def studies(
    store: Db,
    contains: Annotated[Word | None, Query(description="A part of the name.")] = None,
    order: Annotated[Literal["created", "-created", "name", "-name"], Query()] = "created",
    limit: Limit = 100,
    at: After = None,
) -> Any:
    """The studies of the database."""
    query = {"of": "studies", "contains": contains, "order": order}
    by_name, descending = order.endswith("name"), order.startswith("-")
    found = sorted(
        (name if by_name else created, name)
        for name, created in store.created().items()
        if (contains or "") in name
    )
    if descending:
        found.reverse()
    after = position(at, query, str, str)
    if after is not None:
        last = tuple(after)
        found = [place for place in found if (place < last if descending else place > last)]
    more = cursor(query, list(found[limit - 1])) if len(found) > limit else None
    names = [name for _, name in found[:limit]]
    lines = {study.name: study_document(study) for study in store.studies(names)}
    return page([plain(lines[name]) for name in names], more)


@router.get("/studies/{name}", response_model=StudyDocument, responses=documented(404))
def study(store: Db, name: StudyName) -> Any:
    """A study: what it was begun with, its layers, how much there is, the best of each metric."""
    record = store.study(name)
    found = overview(store, record)
    metrics = {}
    for metric, span in found.metrics.items():
        better = better_of(record.settings, metric)
        end = "greatest" if better == "higher" else "least"
        best = {"best": getattr(span, end), "best_trial": getattr(span, f"{end}_trial")}
        metrics[metric] = {**asdict(span), "better": better, **best}
    settings = dict(record.settings)
    layers = settings.pop("layers", [])
    return plain({
        "name": record.name, "created": record.created, "fingerprint": record.fingerprint,
        "settings": settings, "layers": layers, "trials": found.trials,
        "profilers": found.profilers, "metrics": metrics,
        "costs": {name: asdict(span) for name, span in found.costs.items()},
    })  # fmt: skip
