"""Lists in the order of a figure: a page of ids, the cursor of the page after it, JSON or CSV."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import Request

from bitfront.documents import plain
from bitfront.storage.pages import Place

from .common import page
from .csvs import csv_page
from .cursors import cursor, position

Find = Callable[[Place | None, int], list[Place]]


def page_of(
    query: Mapping[str, Any], at: str | None, limit: int, find: Find
) -> tuple[list[int], str | None]:
    """The ids of a page, and the cursor of the page after it, None at the end.

    at: the cursor that was given. find: (after, limit) -> places in order.
    """
    given = position(at, query, float, int)
    places = find(None if given is None else Place(*given), limit + 1)
    last = places[limit - 1] if len(places) > limit else None
    ids = [place.id for place in places[:limit]]
    return ids, None if last is None else cursor(query, [last.value, last.id])


def listed(
    request: Request,
    rows: list[dict[str, Any]],
    more: str | None,
    as_csv: bool,
    columns: Sequence[str],
    spread: Sequence[str],
) -> Any:
    """A page as it was asked for. columns, spread: of the table (``csv_page``)."""
    items = plain(rows)
    return csv_page(request, items, more, columns, spread) if as_csv else page(items, more)
