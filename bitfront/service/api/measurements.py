"""What was profiled of a study: one row a layer and scheme."""

from __future__ import annotations

import math
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from bitfront.documents import estimates_document, plain
from bitfront.storage.pages import measurement_places, some_measurements

from .common import After, Db, Limit, Page, StudyName, Word, page
from .csvs import CSV, Accept, Format, csv_page, wants_csv
from .cursors import cursor, position
from .figures import ORDER, Figure, order_of, placed
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
    profiler: Word | None = None,
    layer: Word | None = None,
    scheme: Word | None = None,
    order: Annotated[Word, Query(description=ORDER)] = "id",
    limit: Limit = 100,
    at: After = None,
    format: Format = None,
    accept: Accept = "*/*",
) -> Any:
    """The measurements of a study."""
    record = store.study(name)
    chosen = {"profiler": profiler, "layer": layer, "scheme": scheme}
    query = {"of": "measurements", "study": name, "order": order, **chosen}
    after = placed(position(at, query, float, int))
    places = measurement_places(
        store, record, order_of(order), **chosen, after=after, limit=limit + 1
    )
    last = places[limit - 1] if len(places) > limit else None
    found = some_measurements(store, [place.id for place in places[:limit]])
    rows = [
        {
            "id": id, "profiler": m.profiler, "settings": m.settings, "layer": m.layer,
            "scheme": m.scheme, "seconds": None if math.isnan(m.seconds) else m.seconds,
            "values": estimates_document(m.values),
        }
        for id, m in found
    ]  # fmt: skip
    more = None if last is None else cursor(query, [last.value, last.id])
    if wants_csv(format, accept):
        return csv_page(request, plain(rows), more, COLUMNS, ("values",))
    return page(plain(rows), more)
