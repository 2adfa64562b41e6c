"""Fronts of a study's trials: points, those that no other dominates, the knee; JSON and CSV."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from bitfront.documents import front_document, plain
from bitfront.frontcsv import front_csv
from bitfront.queries import front_in

from .common import Db, StudyName, Word
from .csvs import CSV, AsCsv, csv_response
from .figures import TrialDocument
from .problems import documented
from .trials import Within

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
    found = front_in(store, name, (x, y, *z), within, everything)
    if as_csv:
        return csv_response(front_csv(found, everything))
    columns = [(*found.costs, *found.metrics).index(objective) for objective in (x, y, *z)]
    document = front_document(found, everything)
    document["objectives"] = [x, y, *z]
    document["senses"] = [found.senses[i] for i in columns]
    document["points"] = found.points[found.listed(everything)][:, columns]
    return plain(document)
