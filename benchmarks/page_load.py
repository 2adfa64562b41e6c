"""How long the web page of a large study takes in Chromium, its cache being empty or full.

    python -m benchmarks.page_load --db DB --db URL > benchmarks/results/page_load.json

Each database is one that ``benchmarks.large_study`` made; its server is a process of its own.
Times are seconds until the first row of a table, and until the points of the chart are drawn; the
median of ``--repeats``.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.common import arguments, head, write

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

READY = {
    "studies": ("", {"list": "tbody tr a"}),
    "study": ("#/studies/{study}", {"table": "tr[data-trial]", "chart": ".plot .points path"}),
}  # view -> its address, and what is waited for


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--db", action="append", required=True)
    parser.add_argument("--study", default="large")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=options.chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        seconds = {
            "postgresql" if "://" in db else "sqlite": opened(browser, db, options)
            for db in options.db
        }
        browser.close()
    write({**head(), "seconds": seconds})


def opened(browser: Browser, db: str, options: argparse.Namespace) -> dict[str, Any]:
    """View -> state of the cache -> what is waited for -> seconds."""
    found: dict[str, Any] = {}
    with serving(db) as address:
        for view, (place, ready) in READY.items():
            url = address + place.format(study=options.study)
            rounds = []
            for _ in range(options.repeats + 1):  # the first one fills the server's memory
                page = browser.new_context().new_page()
                rounds.append({"cold": loaded(page, url, ready), "warm": loaded(page, url, ready)})
                page.context.close()
            found[view] = {
                cache: {
                    what: statistics.median(r[cache][what] for r in rounds[1:]) for what in ready
                }
                for cache in ("cold", "warm")
            }
    return found


def loaded(page: Page, url: str, ready: dict[str, str]) -> dict[str, float]:
    """Seconds until each thing is there, the page being left and opened again."""
    page.goto("about:blank")
    began = time.perf_counter()
    page.goto(url)
    times = {}
    for what, selector in ready.items():
        page.wait_for_selector(selector)
        times[what] = time.perf_counter() - began
    return times


@contextmanager
def serving(db: str) -> Iterator[str]:
    """Where a server of the database has its page."""
    code = "from bitfront.cli import main; main()"
    words = [sys.executable, "-c", code, "serve", "--port", "0", "--db", db]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as p:
        assert p.stdout is not None
        try:
            yield p.stdout.readline().split()[-1] + "/"
        finally:
            p.terminate()


if __name__ == "__main__":
    main()
