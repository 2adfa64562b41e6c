"""Answers as CSV: for those who ask by ``format=csv``, or by the header Accept."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import Depends, Header, Query, Request, Response

_TABLE = {"text/csv": {"schema": {"type": "string"}}}
CSV: dict[int | str, dict[str, Any]] = {200: {"content": _TABLE, "description": "As asked."}}


def wants_csv(
    format: Annotated[
        Literal["json", "csv"] | None, Query(description="Goes before the header Accept.")
    ] = None,
    accept: Annotated[str, Header()] = "*/*",
) -> bool:
    """Whether CSV is asked for."""
    if format is not None:
        return format == "csv"
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return "text/csv" in kinds and "application/json" not in kinds


AsCsv = Annotated[bool, Depends(wants_csv)]


def csv_response(text: str, headers: Mapping[str, str] | None = None) -> Response:
    """A table with a head."""
    return Response(text, media_type="text/csv; header=present", headers=dict(headers or {}))


def csv_page(
    request: Request,
    items: Sequence[Mapping[str, Any]],
    next: str | None,
    columns: Sequence[str],
    spread: Sequence[str],
) -> Response:
    """A page of a list; where the next one is stands in the header Link.

    columns: fields of the items. spread: fields that are mappings, of which each name is a column,
    and of figures the standard error another.
    """
    heads = [(of, name) for of in spread for name in sorted({n for i in items for n in i[of]})]
    errors = [head for head in heads if any("stderr" in _figure(i, head) for i in items)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [name for _, name in heads]
    writer.writerow([*columns, *names, *(f"{name} stderr" for _, name in errors)])
    for item in items:
        figures = [_figure(item, head).get("value") for head in heads]
        writer.writerow([
            *(item[name] for name in columns), *figures,
            *(_figure(item, head).get("stderr") for head in errors),
        ])  # fmt: skip
    if next is None:
        return csv_response(text.getvalue())
    query = [(name, value) for name, value in request.query_params.multi_items()]
    asked = urlencode([*((n, v) for n, v in query if n != "cursor"), ("cursor", next)])
    return csv_response(text.getvalue(), {"Link": f'<?{asked}>; rel="next"'})


def _figure(item: Mapping[str, Any], head: tuple[str, str]) -> Mapping[str, Any]:
    """A figure of an item; of a plain number its value alone, of none nothing."""
    found = item[head[0]].get(head[1])
    return found if isinstance(found, Mapping) else {"value": found}
