"""Fronts of a study's trials: points, those that no other dominates, the knee; JSON and CSV."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from bitfront.documents import front_document, plain
from bitfront.frontcsv import front_csv
from bitfront.queries import Front, front_of
from bitfront.storage import Store
from bitfront.storage.pages import some_trials

from .common import Db, StudyName, Word
from .csvs import CSV, AsCsv, csv_response
from .figures import TrialDocument
from .problems import documented
from .trials import Within, enough

router = APIRouter(tags=["studies"])


class FrontTrial(TrialDocument):
    on_front: bool


class FrontDocument(BaseModel):
    """A front. points: of each of ``trials``, its objectives in their order. senses: min or max of
    each. knee: the trial at it, null where a front is straight or has not two objectives."""

    study: str
    objectives: list[str]
    senses: list[Literal["min", "max"]]
    within: list[str]
    knee: int | None
    trials: list[FrontTrial]
    points: list[list[float | None]] = Field(description="Rows of numbers, one for each of trials.")


@router.get(
    "/studies/{name}/front", response_model=FrontDocument, responses={**documented(404), **CSV}
)
def front(
    store: Db,
    name: StudyName,
    as_csv: AsCsv,
    x: Annotated[Word, Query(description="A cost or metric.")] = "bytes",
    y: Annotated[Word, Query(description="A cost or metric.")] = "kl",
    z: Annotated[list[Word], Query(description="Further ones.", max_length=8)] = [],  # noqa: B006
    within: Within = [],  # noqa: B006
    everything: Annotated[
        bool, Query(alias="all", description="Give dominated trials too.")
    ] = False,
) -> Any:
    """The Pareto front of a study under two or more costs and metrics."""
    found = asked(store, name, (x, y, *z), within)
    if as_csv:
        return csv_response(front_csv(found, everything))
    found = with_layers(store, found, found.listed(everything))
    columns = [(*found.costs, *found.metrics).index(objective) for objective in (x, y, *z)]
    document = front_document(found, everything)
    document["objectives"] = [x, y, *z]
    document["senses"] = [found.senses[i] for i in columns]
    document["points"] = found.points[found.listed(everything)][:, columns]
    return plain(document)


def asked(store: Store, name: str, objectives: tuple[str, ...], within: list[str]) -> Front:
    """The front; each of ``objectives`` is a cost if some trial has a cost of this name.

    Its trials may be without their layers (``with_layers``).
    """
    record = store.study(name)
    trials = enough(store, record, within)
    there = {cost for trial in trials for cost in trial.costs}
    distinct = tuple(dict.fromkeys(objectives))
    costs = tuple(name for name in distinct if name in there)
    metrics = tuple(name for name in distinct if name not in there)
    return front_of(record, trials, costs, metrics, within)


def with_layers(store: Store, found: Front, listed: list[int]) -> Front:
    """A front whose ``listed`` trials have their layers."""
    whole = {trial.id: trial for trial in some_trials(store, [found.trials[i].id for i in listed])}
    return replace(found, trials=tuple(whole.get(trial.id, trial) for trial in found.trials))
