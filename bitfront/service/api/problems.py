"""What is answered where something is wrong: RFC 9457 documents, with what to do about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from bitfront.errors import (
    BitfrontError,
    ClusterError,
    ExportError,
    Forbidden,
    IllegalMove,
    Infeasible,
    InvalidInput,
    StorageError,
    StudyMismatch,
    UnknownName,
)

MEDIA = "application/problem+json"
LONGEST = 60  # characters of a value that is named
PAGE = "docs/service.md"

# error -> status and name; the first that fits
ERRORS: tuple[tuple[type[BitfrontError], int, str], ...] = (
    (InvalidInput, 422, "invalid-input"),
    (UnknownName, 404, "unknown-name"),
    (Infeasible, 422, "infeasible"),
    (StudyMismatch, 409, "study-mismatch"),
    (IllegalMove, 409, "illegal-move"),
    (Forbidden, 403, "forbidden-path"),
    (StorageError, 500, "storage"),
    (ClusterError, 500, "cluster"),
    (ExportError, 500, "export"),
)
# status -> name and what to do, of what is refused before anything is looked up
STATUSES: dict[int, tuple[str, str]] = {
    400: ("bad-request", "correct the request"),
    401: ("unauthorized", "send the header Authorization: Bearer TOKEN"),
    403: ("forbidden", "ask the operator"),
    404: ("not-found", "the routes are in openapi.json"),
    405: ("method-not-allowed", "use a method that the header Allow names"),
    413: ("too-large", "send less"),
    415: ("unsupported-media-type", "send JSON, with Content-Type: application/json"),
    416: ("range-not-satisfiable", "ask for a range within the file"),
    421: ("misdirected", "ask for localhost, or let the operator set a token"),
    422: ("invalid-input", "correct what is named"),
    429: ("too-many-requests", "wait for the seconds in the header Retry-After"),
    500: ("bug", "tell the operator the id"),
    503: ("unavailable", "try again a little later"),
}


class Place(BaseModel):
    """One value that is wrong: where it stands, and what is wrong with it."""

    location: list[str | int]
    what: str


class ProblemDocument(BaseModel):
    """RFC 9457, with what to do about it."""

    type: str = Field(description=f"A reference to its description in {PAGE}.")
    title: str
    status: int
    detail: str
    hint: str = Field(description="What to do about it.")
    errors: list[Place] = Field(default=[], description="Of a body or a query: what is wrong.")
    id: str | None = Field(default=None, description="Of a bug: what the log has it under.")


class Problem(HTTPException):
    """Raised anywhere below a route: becomes a document."""

    def __init__(
        self,
        status: int,
        detail: str,
        hint: str = "",
        name: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.hint, self.name = hint, name


def _places(error: Exception, what: str) -> dict[str, Any]:
    """Where the value stands that an error is about, as far as it says."""
    location = getattr(error, "location", None)
    return {} if location is None else {"errors": [{"location": location, "what": what}]}


def document(
    status: int, detail: str, hint: str = "", name: str = "", **more: Any
) -> dict[str, Any]:
    """The fields of a problem."""
    usual, remedy = STATUSES.get(status, ("error", ""))
    return {
        "type": f"{PAGE}#{name or usual}",
        "title": _title(name or usual),
        "status": status,
        "detail": detail,
        "hint": hint or remedy,
        **more,
    }


def _title(name: str) -> str:
    """A name in words; http's own phrases differ between versions of Python."""
    return name.replace("-", " ").capitalize()


def answer(fields: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """A problem as a response. Characters outside of ASCII are escaped, so any text can be sent."""
    return Problems(fields, fields["status"], headers)


class Problems(JSONResponse):
    """JSON of a problem."""

    media_type = MEDIA

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


def of_error(error: BitfrontError) -> Response:
    """An error of Bitfront as a response."""
    for kind, status, name in ERRORS:
        if isinstance(error, kind):
            if isinstance(error, StorageError) and error.passing:
                return answer(document(503, error.what, error.remedy), {"Retry-After": "1"})
            places = _places(error, error.what)
            return answer(document(status, error.what, error.remedy, name, **places))
    return answer(document(500, error.what, error.remedy))


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """``responses=`` of a route that may answer so, besides what any route may."""
    content = {MEDIA: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    return {
        status: {"description": _title(STATUSES.get(status, ("conflict",))[0]), "content": content}
        for status in sorted({*statuses, 400, 401, 403, 405, 421, 422, 429, 500, 503})
    }


SAID = {
    "missing": "it is missing",
    "extra_forbidden": "there is no such field",
    "string_pattern_mismatch": "use characters that can be printed",
    "union_tag_not_found": "kind is missing",
    "dict_type": "give an object",
    "model_attributes_type": "give an object",
}  # pydantic's type of error -> in words, where its own are those of Python


def said_of(error: Mapping[str, Any]) -> str:
    """What is wrong with a value, and the value where it is short."""
    kind, given = error["type"], error.get("input")
    if kind == "json_invalid":
        return f"{error['ctx']['error']} at character {error['loc'][-1]}"
    if kind == "union_tag_invalid":
        return f"kind is one of {error['ctx']['expected_tags']}, not {error['ctx']['tag']!r}"
    words = SAID.get(kind, str(error["msg"]))
    shown = json.dumps(given) if isinstance(given, str | int | float | None) else ""
    plainly = kind in ("missing", "extra_forbidden") or not 0 < len(shown) <= LONGEST
    return words if plainly else f"{words}, not {shown}"


def install(app: FastAPI) -> None:
    """Let every error of a route become a problem."""

    @app.exception_handler(BitfrontError)
    def bitfront(request: Request, error: BitfrontError) -> Response:
        return of_error(error)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        places = [{"location": list(e["loc"]), "what": said_of(e)} for e in error.errors()]
        if any(e["type"] == "json_invalid" for e in error.errors()):
            return answer(
                document(400, f"the body is not JSON: {places[0]['what']}", errors=places)
            )
        said = "; ".join(f"{'.'.join(map(str, p['location']))}: {p['what']}" for p in places[:3])
        return answer(document(422, said, errors=places[:100]))

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> Response:
        hint, name = getattr(error, "hint", ""), getattr(error, "name", "")
        detail = str(error.detail)
        if not isinstance(error, Problem):  # of the framework, which names no value
            said = {
                400: "the body is not JSON: it is no text in UTF-8, or nested too deeply",
                404: f"there is no route {request.url.path!r}",
                405: f"{request.method} is no method of {request.url.path!r}",
            }
            detail = said.get(error.status_code, detail)
        return answer(document(error.status_code, detail, hint, name), error.headers)
