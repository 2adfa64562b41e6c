"""The web page in a headless Chromium, which Playwright drives.

``BITFRONT_TEST_CHROMIUM`` names the browser; without it ``chromium`` is looked for, and tests are
skipped where there is none. ``BITFRONT_SCREENSHOTS`` is a folder for pictures of the page.
"""

from __future__ import annotations

import importlib
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from bitfront.service.api import Settings, create_app
from bitfront.service.api.serving import Server, address, bound

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

CHROMIUM = os.environ.get("BITFRONT_TEST_CHROMIUM")
SOON = 60_000  # milliseconds in which what is waited for must have come
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--disable-default-apps", "--disable-extensions",
    "--no-first-run",
]  # fmt: skip
WIDE, NARROW = (1440, 900), (390, 844)
Browsing = Any  # a browser of Playwright, which may not be installed


def sync_api() -> Any:
    """``playwright.sync_api``. The module that asks for it is skipped without, but not where a
    browser is named."""
    if CHROMIUM is None:
        return pytest.importorskip("playwright.sync_api", reason="no playwright: install it")
    return importlib.import_module("playwright.sync_api")


@contextmanager
def browsing() -> Iterator[Browser]:
    """A headless Chromium."""
    found = CHROMIUM or shutil.which("chromium")
    if found is None:
        pytest.skip("no chromium: install it, or set BITFRONT_TEST_CHROMIUM to its path")
    with sync_api().sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


class Tab:
    """A page, and what went wrong in it. refused: statuses of answers that the test wants."""

    def __init__(
        self,
        browser: Browser,
        place: str,
        *,
        size: tuple[int, int] = WIDE,
        dark: bool = False,
        refused: tuple[int, ...] = (),
        **options: Any,
    ) -> None:
        self.host, self.refused = urlsplit(place).netloc, refused
        self.troubles: list[str] = []
        self.context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light", reduced_motion="reduce", **options,
        )  # fmt: skip
        self.context.set_default_timeout(SOON)
        self.page: Page = self.context.new_page()
        self.page.on("console", self._printed)
        self.page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        self.page.on("request", self._asked)
        self.page.on("requestfailed", self._failed)
        self.page.goto(place)

    def _printed(self, message: ConsoleMessage) -> None:
        wanted = any(f"status of {status} " in message.text for status in self.refused)
        if message.type in ("error", "warning") and not wanted:
            self.troubles.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https") and parts.netloc != self.host:
            self.troubles.append(f"asked of another host: {request.url}")

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # by the page itself, when a view is left
            self.troubles.append(f"failed: {request.url}: {request.failure}")

    def shoot(self, name: str) -> None:
        """A picture of the whole page, where these are wanted."""
        folder = os.environ.get("BITFRONT_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    def end(self) -> list[str]:
        """What went wrong."""
        self.context.close()
        return self.troubles


@contextmanager
def living(db: str, **settings: Any) -> Iterator[str]:
    """A server in a thread of this process; where its page is."""
    made = Settings(db=db, **{"port": 0, "poll": 0.05, **settings})
    with bound(made) as listening:
        server = Server(create_app(made))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"{address(listening, made.prefix)}/"
        finally:
            server.should_exit = True
            thread.join()
