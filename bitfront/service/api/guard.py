"""Who may ask: the Host header, the origin of a page, tokens, and how often.

Without a token the server is for this machine alone. A page of the web must not reach it through
the browser of somebody at this machine: it may not under a name of its own (DNS rebinding), and it
may not change anything (cross-origin requests).
"""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from .problems import Problem
from .settings import Settings, is_loopback

READING = frozenset(("GET", "HEAD", "OPTIONS"))
CLIENTS = 10_000  # that are remembered at once
# for supervisors, which have no token, and for the web page, which holds no data and asks for one
FREE = ("/healthz", "/readyz", "/", "")
FILES = "/page/"


class Guard:
    """Decides about each request, by its head alone."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings, self.clock = settings, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, method: str, path: str, headers: Headers, client: str) -> None:
        """Raises ``Problem`` for what is not to be answered."""
        if path == "/healthz":
            return
        self._rate(client)
        self._host(headers)
        if path in FREE or path.startswith(FILES):
            return
        if self.settings.guarded:
            self._token(method, headers)
        if method not in READING:
            self._origin(headers)

    def _rate(self, client: str) -> None:
        """Token buckets: ``burst`` at first, ``rate`` more each second."""
        moment = self.clock()
        left, then = self._buckets.pop(client, (float(self.settings.burst), moment))
        left = min(self.settings.burst, left + (moment - then) * self.settings.rate)
        self._buckets[client] = (max(left - 1, 0.0), moment)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        if left < 1:
            wait = str(max(1, round((1 - left) / self.settings.rate)))
            raise Problem(429, "too many requests", headers={"Retry-After": wait})

    def _host(self, headers: Headers) -> None:
        if self.settings.guarded:
            return
        given = headers.getlist("host")
        if len(given) != 1 or not is_loopback(_hostname(given[0])):
            raise Problem(421, f"this server does not answer for host {', '.join(given)!r}")

    def may_change(self, headers: Headers) -> bool:
        """Whether who asks so may change something."""
        return not self.settings.guarded or _same(_bearer(headers), self.settings.token)

    def _token(self, method: str, headers: Headers) -> None:
        given = _bearer(headers)
        whole, reading = (
            _same(given, token) for token in (self.settings.token, self.settings.read_token)
        )
        if not whole and not reading:
            what = "the token is not one of this server's" if given else "a token is needed"
            raise Problem(401, what, headers={"WWW-Authenticate": "Bearer"})
        if not whole and method not in READING:
            raise Problem(403, "this token is for reading only", "use the token for everything")

    def _origin(self, headers: Headers) -> None:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        own = origin is None or urlsplit(origin).netloc == headers.get("host")
        if not own or site in ("cross-site", "same-site"):
            raise Problem(403, f"a page of {origin or site!r} may not change anything here")


def _bearer(headers: Headers) -> str:
    """The token that was sent; empty for none."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _same(given: str, token: str | None) -> bool:
    return token is not None and hmac.compare_digest(given.encode(), token.encode())


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
