"""Around every request: its path, who asks, how large it is; headers, a line of log, bugs.

Plain ASGI, so that streams are passed on as they come.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .guard import Guard
from .problems import Problem, answer, document
from .settings import Settings

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
access = logging.getLogger("bitfront.access")
log = logging.getLogger(__name__)


class Outer:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings, self.guard = app, settings, Guard(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["path"], scope["root_path"] = _kept(scope), self.settings.prefix
        began, status = time.monotonic(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(raw=message["headers"])
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                message["headers"] = headers.raw
            await send(message)

        client = scope["client"][0] if scope.get("client") else ""
        try:
            headers, path = Headers(scope=scope), _route(scope)
            self.guard.check(scope["method"], path, headers, client)
            scope.setdefault("state", {})["changes"] = self.guard.may_change(headers)
            if path == "":
                home = RedirectResponse(f"{self.settings.prefix}/", 308)
                await home(scope, receive, sending)
                return
            await self.app(scope, self._capped(headers, receive), sending)
        except Problem as problem:
            fields = document(problem.status_code, problem.detail, problem.hint, problem.name)
            await answer(fields, problem.headers)(scope, receive, sending)
        except Exception:
            name = uuid.uuid4().hex[:12]
            log.exception("bug %s", name)
            if not status:
                fields = document(500, f"this is a bug in Bitfront, {name}", id=name)
                await answer(fields)(scope, receive, sending)
        finally:
            path = self.settings.redacted(unquote(scope["path"])).encode("unicode_escape").decode()
            spent = 1000 * (time.monotonic() - began)
            access.info("%s %s %s %d %.0f ms", client, scope["method"], path, status, spent)

    def _capped(self, headers: Headers, receive: Receive) -> Receive:
        """``receive`` for a body of at most ``max_body`` bytes, announced or not."""
        most = self.settings.max_body
        announced = headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > most:
            raise _too_large(most)
        got = 0

        async def receiving() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > most:
                raise _too_large(most)
            return message

        return receiving


def _too_large(most: int) -> Problem:
    return Problem(413, f"a body of more than {most} bytes", headers={"Connection": "close"})


def _kept(scope: MutableMapping[str, Any]) -> str:
    """The path decoded, but for %2F and %25: a name may have a slash in it (``name_in``)."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        return str(scope["path"])
    kept = raw.partition(b"?")[0].replace(b"%25", b"%2525")
    for slash in (b"%2F", b"%2f"):
        kept = kept.replace(slash, b"%252F")
    return unquote_to_bytes(kept).decode("utf-8", "replace")


def _route(scope: MutableMapping[str, Any]) -> str:
    """The path as routes have it, whether or not a proxy has taken the prefix away; empty for the
    prefix itself without a slash."""
    path, prefix = str(scope["path"]), str(scope["root_path"])
    return path.removeprefix(prefix) if f"{path}/".startswith(f"{prefix}/") else path


def prefix_of(request: Request) -> str:
    """The path under which this server is seen, for addresses in answers."""
    return str(request.scope["root_path"])
