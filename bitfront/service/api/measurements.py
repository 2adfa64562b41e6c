"""What was profiled of a study: one row a layer and scheme."""

from __future__ import annotations

import math
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from bitfront.documents import estimates_document
from bitfront.storage.pages import Place, measurement_places, some_measurements

from .common import After, Db, Limit, Page, StudyName, Word
from .csvs import CSV, AsCsv
from .figures import ORDER, Figure, order_of
from .listings import listed, page_of
from .problems import documented

router = APIRouter(tags=["studies"])
COLUMNS = ("id", "profiler", "settings", "layer", "scheme", "seconds")


class MeasurementDocument(BaseModel):
    """A layer under a scheme. settings: key of the profiler's. values: growth of each metric."""

    id: int
    profiler: str
    settings: str
    layer: str
    scheme: str
    seconds: float | None
    values: dict[str, Figure]


class Measurements(Page):
    items: list[MeasurementDocument]


@router.get(
    "/studies/{name}/measurements",
    response_model=Measurements,
    responses={**documented(404), **CSV},
)
def measurements(
    request: Request,
    store: Db,
    name: StudyName,
    as_csv: AsCsv,
    profiler: Word | None = None,
    layer: Word | None = None,
    scheme: Word | None = None,
    order: Annotated[Word, Query(description=ORDER)] = "id",
    limit: Limit = 100,
    at: After = None,
) -> Any:
    """The measurements of a study."""
    record = store.study(name)
    chosen = {"profiler": profiler, "layer": layer, "scheme": scheme}
    query = {"of": "measurements", "study": name, "order": order, **chosen}

    def find(after: Place | None, most: int) -> list[Place]:
        return measurement_places(store, record, order_of(order), **chosen, after=after, limit=most)

    ids, more = page_of(query, at, limit, find)
    rows = [
        {
            "id": id, "profiler": m.profiler, "settings": m.settings, "layer": m.layer,
            "scheme": m.scheme, "seconds": None if math.isnan(m.seconds) else m.seconds,
            "values": estimates_document(m.values),
        }
        for id, m in some_measurements(store, ids)
    ]  # fmt: skip
    return listed(request, rows, more, as_csv, COLUMNS, ("values",))
