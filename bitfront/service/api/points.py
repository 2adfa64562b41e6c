"""A study's trials as points of two figures: of many trials a part, always with the front."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from pydantic import BaseModel

from bitfront.documents import plain
from bitfront.errors import UnknownName
from bitfront.queries import better_of
from bitfront.storage import Store, StudyRecord, front, knee
from bitfront.storage.points import errors, remarks, scheme_counts
from bitfront.trialcolumns import OfStudy
from bitfront.within import those_within

from .common import Db, StudyName, TrialId, Word
from .problems import documented
from .trials import Within

router = APIRouter(tags=["studies"])
MOST = 5000  # points of an answer


class PointLine(BaseModel):
    """A trial. x, y: the figures that were asked for. stderr: of ``y``, where that is a metric.
    predicted, expected: of the loss that it was chosen by. budgets: those it was searched for."""

    id: int
    x: float
    y: float
    stderr: float | None
    on_front: bool
    predicted: float | None
    expected: float | None
    solver: str
    budgets: list[str]
    weights: int | None


class PointsDocument(BaseModel):
    """Trials as points. trials: how many there are within the limits that have both figures; items:
    of these at most as many as asked for, by rising ``x``. front: how many trials are on it.
    knee: the trial at it."""

    study: str
    x: str
    y: str
    senses: list[Literal["min", "max"]]
    within: list[str]
    trials: int
    front: int
    knee: int | None
    items: list[PointLine]


class SchemesDocument(BaseModel):
    """schemes: scheme to number of layers, the most frequent first."""

    trial: int
    schemes: dict[str, int]


@router.get("/studies/{name}/points", response_model=PointsDocument, responses=documented(404))
def shown(
    store: Db,
    name: StudyName,
    x: Annotated[Word, Query(description="A cost or metric.")] = "bytes",
    y: Annotated[Word, Query(description="A cost or metric.")] = "kl",
    within: Within = [],  # noqa: B006
    limit: Annotated[int, Query(description="Points, at most.", ge=1, le=MOST)] = 2000,
) -> Any:
    """The trials of a study as points, without their layers.

    Where there are more than ``limit``, trials on the front come first, and others are left out
    evenly along ``x``.
    """
    record = store.study(name)
    columns = OfStudy(store, record)
    values = np.stack([columns.ordering(x), columns.ordering(y)], axis=1)
    finite = np.isfinite(values).all(axis=1)
    chosen = np.flatnonzero(finite & those_within(columns, within) if within else finite)
    ids, values = columns.ids[chosen], values[chosen]
    is_cost = [figure in columns.costs for figure in (x, y)]
    senses = [_sense(record, *pair) for pair in zip((x, y), is_cost, strict=True)]
    best = front(values, senses)
    at_knee = knee(values, senses)
    error_of = None if is_cost[1] else y
    listed = part(values[:, 0], best, limit)
    return plain({
        "study": name, "x": x, "y": y, "senses": senses, "within": within,
        "trials": len(ids), "front": len(best),
        "knee": None if at_knee is None else ids[at_knee],
        "items": _lines(store, ids[listed], values[listed], set(ids[best].tolist()), error_of),
    })  # fmt: skip


@router.get(
    "/studies/{name}/trials/{trial}/schemes", response_model=SchemesDocument,
    responses=documented(404),
)  # fmt: skip
def schemes(store: Db, name: StudyName, trial: TrialId) -> Any:
    """How many layers of a trial take which scheme; the whole trial takes longer."""
    counts = scheme_counts(store, store.study(name), trial)
    if not counts:
        raise UnknownName(f"no trial {trial} in study {name!r}", "see its trials")
    return {"trial": trial, "schemes": counts}


def part(across: NDArray[np.float64], best: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Indices of at most ``limit`` points, by rising ``across`` (n,): those of ``best`` first, and
    of each kind evenly in that order where not all fit."""
    on_front = np.zeros(len(across), dtype=np.bool_)
    on_front[best] = True
    order = np.lexsort((~on_front, across))
    first = _evenly(order[on_front[order]], limit)
    others = _evenly(order[~on_front[order]], limit - len(first))
    chosen = np.zeros(len(across), dtype=np.bool_)
    chosen[first] = chosen[others] = True
    return order[chosen[order]]


def _evenly(items: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of ``items``, the first and the last among them."""
    if len(items) <= most:
        return items
    return items[np.linspace(0, len(items) - 1, most).round().astype(np.int64)]


def _lines(
    store: Store,
    ids: NDArray[np.int64],
    values: NDArray[np.float64],
    best: set[int],
    metric: str | None,
) -> list[dict[str, Any]]:
    """metric: whose standard errors are told."""
    numbers = ids.tolist()
    known = remarks(store, numbers)
    spread = {} if metric is None else errors(store, numbers, metric)
    return [
        {
            "id": id, "x": x, "y": y, "stderr": spread.get(id), "on_front": id in best,
            "predicted": known[id].predicted, "expected": known[id].settings.get("expected"),
            "solver": known[id].solver, "budgets": known[id].settings.get("budgets", []),
            "weights": known[id].settings.get("weights"),
        }
        for id, (x, y) in zip(numbers, values, strict=True)
    ]  # fmt: skip


def _sense(record: StudyRecord, name: str, is_cost: bool) -> str:
    higher = not is_cost and better_of(record.settings, name) == "higher"
    return "max" if higher else "min"
