"""A client of the service (docs/service.md), of the standard library alone."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from bitfront.errors import (
    BitfrontError,
    Forbidden,
    IllegalMove,
    Infeasible,
    InvalidInput,
    StorageError,
    StudyMismatch,
    UnknownName,
)

API = "/api/v1"
PATIENCE = 60.0  # seconds without a sign of life from the server, which sends one every 15
AGAIN = 1.0  # seconds until a connection that broke off is made again
TRIES = 30  # in a row, after which the server is given up
LOCAL = ("localhost", "127.0.0.1", "::1")
_ERRORS: dict[str, type[BitfrontError]] = {
    "unknown-name": UnknownName, "illegal-move": IllegalMove, "infeasible": Infeasible,
    "study-mismatch": StudyMismatch, "forbidden-path": Forbidden, "storage": StorageError,
    "unavailable": StorageError, "too-many-requests": StorageError,
}  # fmt: skip

Progress = Callable[[str, int, int], None]
Document = dict[str, Any]


class _Staying(HTTPRedirectHandler):
    """Follows nothing: a token is for the server that it was meant for."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class Server:
    """A service at ``url``. Every method raises what the problem that was answered stands for, and
    ``StorageError`` where there is no answer."""

    url: str
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not _is_address(self.url):
            raise InvalidInput(f"server {self.url!r}", "write it like http://127.0.0.1:8765")

    def get(self, path: str, **query: Any) -> Any:
        """The document at a path under the API's."""
        return self._document(self._request("GET", path, query))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The document that an action answers."""
        return self._document(self._request("POST", path, {}, body))

    def items(self, path: str, most: int | None = None, **query: Any) -> list[Document]:
        """Everything in a list, or the first ``most``."""
        found: list[Document] = []
        while most is None or len(found) < most:
            query["limit"] = 500 if most is None else min(500, most - len(found))
            page = self.get(path, **query)
            found += page["items"]
            if page["next"] is None:
                break
            query["cursor"] = page["next"]
        return found

    def run(self, study: str, body: Mapping[str, Any], progress: Progress) -> Document:
        """The job of a request, when it has succeeded; one that ended otherwise before goes on.

        Raises ``InvalidInput`` where it fails or is cancelled.
        """
        job = self.post(f"studies/{quote(study, safe='')}/jobs", body)
        if job["state"] in ("failed", "cancelled", "paused"):
            job = self.post(f"jobs/{job['id']}/resume")
        job = self.followed(job["id"], progress)
        if job["state"] == "failed":
            raise InvalidInput(job["error"]["text"], job["error"]["hint"])
        if job["state"] != "succeeded":
            raise InvalidInput(f"job {job['id']} was {job['state']}", "ask again to let it go on")
        return dict(job)

    def followed(self, id: int, progress: Progress) -> Document:
        """A job when it has ended; until then its progress is told."""
        last, tries = 0, 0
        while True:
            try:
                for number, kind, data in self._events(id, last):
                    last, tries = number or last, 0
                    if kind == "progress" and "stage" in data:
                        progress(data["stage"], data["done"], data["total"])
                    elif kind == "end":
                        return dict(data)
            except StorageError:
                if tries >= TRIES:
                    raise
            except (OSError, HTTPException, ValueError) as error:  # it broke off halfway
                if tries >= TRIES:
                    raise self._silent(str(error)) from error
            tries += 1
            if tries > TRIES:
                raise self._silent("its stream says nothing")
            time.sleep(AGAIN)

    def fetch(self, path: str, to: Path, sha256: str) -> None:
        """Write a file of a job to ``to``. Raises ``StorageError`` for one that is damaged."""
        digest = hashlib.sha256()
        with self._request("GET", path, {}) as answer, to.open("wb") as file:
            while chunk := answer.read(1 << 20):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            raise StorageError(f"{to.name} came damaged from {self.url}", "fetch it again")

    def _events(self, id: int, last: int) -> Iterator[tuple[int | None, str, Any]]:
        """(number, kind, data) of a job's stream."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(last)}
        fields: dict[str, str] = {}
        with self._request("GET", f"jobs/{id}/events", {}, headers=headers) as answer:
            for line in answer:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif "event" in fields:
                    number = int(fields["id"]) if "id" in fields else None
                    yield number, fields["event"], json.loads(fields["data"])
                    fields = {}

    def _document(self, answer: HTTPResponse) -> Any:
        with answer:
            try:
                return json.loads(answer.read())
            except (ValueError, OSError, HTTPException) as error:
                raise self._silent(f"what it says is no JSON, {error}") from error

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HTTPResponse:
        asked = {name: value for name, value in query.items() if value is not None}
        address = f"{self.url.rstrip('/')}{API}/{path}"
        if asked:
            address += "?" + urlencode(asked, doseq=True)
        given = {"Accept": "application/json", **(headers or {})}
        data = None if body is None else json.dumps(body, allow_nan=False).encode()
        if data is not None:
            given["Content-Type"] = "application/json"
        if self.token is not None:
            given["Authorization"] = f"Bearer {self.token}"
        request = Request(address, data, given, method=method)
        try:
            answer: HTTPResponse = self._opener().open(request, timeout=PATIENCE)
        except HTTPError as error:
            with error:
                raise self._problem(error) from None
        except (URLError, OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise self._silent(getattr(reason, "strerror", None) or str(reason)) from error
        return answer

    def _opener(self) -> OpenerDirector:
        here = urlsplit(self.url).hostname in LOCAL
        return build_opener(_Staying(), *([ProxyHandler({})] if here else []))

    def _problem(self, error: HTTPError) -> BitfrontError:
        """What an answer that is no success stands for."""
        try:
            fields = json.loads(error.read())
            name = fields["type"].rpartition("#")[2]
            return _ERRORS.get(name, InvalidInput)(fields["detail"], fields["hint"])
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            return self._silent(f"it answers {error.code}")

    def _silent(self, why: str) -> StorageError:
        return StorageError(
            f"server {self.url!r} cannot be used ({why})", "check that it is Bitfront's, and runs"
        )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of a port that is none, or brackets that do not close
        return False
    return bool(whole) and not parts.query
