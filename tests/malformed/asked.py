"""Malformed requests over HTTP: how they are asked, and the problem that each is answered with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JSON = {"content-type": "application/json"}
NAMES = {
    400: "bad-request", 401: "unauthorized", 403: "forbidden", 404: "unknown-name",
    405: "method-not-allowed", 409: "illegal-move", 413: "too-large",
    415: "unsupported-media-type", 416: "range-not-satisfiable", 421: "misdirected",
    422: "invalid-input",
}  # fmt: skip
TASK = {"kind": "language", "arguments": {"model": "model", "calibration": "text.txt"}}
SEARCH = {"kind": "search", "schemes": "w4", "budgets": ["4bpw"], "task": TASK}
WHOLE, READING = "a-token-for-everything", "a-token-for-reading-only"


@dataclass(frozen=True)
class Asked:
    """A request, and its problem: status, name, and a pattern of ``detail: hint``.

    guarded: of the server that has tokens.
    """

    method: str
    path: str
    status: int
    says: str
    body: bytes = b""
    headers: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    guarded: bool = False

    @property
    def problem(self) -> str:
        return self.name or NAMES[self.status]


def get(path: str, status: int, says: str, name: str = "", **headers: Any) -> Asked:
    spelled = {key.replace("_", "-"): value for key, value in headers.items()}
    return Asked("GET", path, status, says, headers=spelled, name=name)


def post(
    path: str, status: int, says: str, name: str = "", body: bytes = b"", **headers: Any
) -> Asked:
    spelled = {key.replace("_", "-"): value for key, value in headers.items()}
    return Asked("POST", path, status, says, body, spelled, name)


def raw(body: bytes, status: int, says: str) -> Asked:
    """A body as it is, to a study that is not there yet."""
    return Asked("POST", "/studies/new/jobs", status, says, body, JSON)


def job(status: int, says: str, name: str = "", study: str = "new", **body: Any) -> Asked:
    """A search with other fields; None leaves one out."""
    fields = {name: value for name, value in {**SEARCH, **body}.items() if value is not None}
    text = json.dumps(fields).encode()
    return Asked("POST", f"/studies/{study}/jobs", status, says, text, JSON, name)


def only(status: int, says: str, name: str = "", study: str = "llama", **body: Any) -> Asked:
    """A job of these fields alone, of a study that is there."""
    text = json.dumps(body).encode()
    return Asked("POST", f"/studies/{study}/jobs", status, says, text, JSON, name)


def task(status: int, says: str, name: str = "", kind: str = "language", **other: Any) -> Asked:
    """A search of a task with other arguments."""
    arguments = {**(TASK["arguments"] if kind == "language" else {}), **other}  # type: ignore[dict-item]
    return job(status, says, name, task={"kind": kind, "arguments": arguments})


def signed(status: int, says: str, authorization: Any = None, method: str = "GET") -> Asked:
    """A request with this header to a server that wants a token."""
    headers = {} if authorization is None else {"authorization": authorization}
    path = "/studies" if method == "GET" else "/jobs/2/pause"
    return Asked(method, path, status, says, headers=headers, guarded=True)
