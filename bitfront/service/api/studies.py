"""Studies: listed, and one at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from bitfront.documents import plain, study_document
from bitfront.queries import better_of
from bitfront.storage import StudySummary
from bitfront.storage.activity import Activity, activities
from bitfront.storage.overviews import metrics_of, overview

from .common import After, Db, Limit, Page, StudyName, Word, page
from .cursors import cursor, position
from .problems import documented

router = APIRouter(tags=["studies"])


class Activities(BaseModel):
    """state: what goes on in a study, or failed if nothing does and its newest job failed. jobs:
    state to number of its jobs. updated: when a trial was added or a job changed last."""

    state: Literal["running", "queued", "paused", "failed", "idle"]
    jobs: dict[str, int]
    updated: str


class StudyLine(Activities):
    """A study. metrics, costs: the least and the greatest of each; of metrics those of trials that
    quantize something, if there are any. better: which way each metric is."""

    name: str
    created: str
    measurements: int
    trials: int
    metrics: dict[str, list[float | None]]
    costs: dict[str, list[float | None]]
    better: dict[str, Literal["lower", "higher"]]


class Studies(Page):
    items: list[StudyLine]


class SpanDocument(BaseModel):
    """How many trials have a figure, its ends, and the first trial at each end; of a metric those
    of trials that quantize something, if there are any."""

    trials: int
    least: float
    least_trial: int
    greatest: float
    greatest_trial: int


class MetricSpan(SpanDocument):
    better: Literal["lower", "higher"]
    best: float
    best_trial: int


class StudyDocument(Activities):
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
    active, known = activities(store, names), metrics_of(store, names)
    lines = {study.name: study for study in store.studies(names)}
    items = [_line(lines[name], known.get(name, {}), active[name]) for name in names]
    return page(items, more)


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
        **_active(activities(store, [name])[name]),
    })  # fmt: skip


def _line(study: StudySummary, known: Mapping[str, Any], active: Activity) -> Any:
    better = {metric: better_of({"metrics": known}, metric) for metric in study.metrics}
    return plain({**study_document(study), "better": better, **_active(active)})


def _active(found: Activity) -> dict[str, Any]:
    return {"state": found.state, "jobs": dict(found.jobs), "updated": found.updated}
