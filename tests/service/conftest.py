"""A database with a tiny study's task beside it, and jobs on it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bitfront.service.actions import Host
from bitfront.service.driver import drive
from bitfront.storage import Job, Store
from tests import tiny
from tests.service.browsers import Browsing, Tab, browsing, living

LEASE = 60.0  # seconds: never runs out in a test that does not want it to


@dataclass
class Place:
    """A database, and a folder with the function of a module task."""

    db: str
    folder: Path
    store: Store

    @property
    def task(self) -> dict[str, Any]:
        return {"kind": "module", "arguments": {"function": f"{self.folder / 'net.py'}:task"}}

    def search(self, **other: Any) -> Job:
        request = {
            "task": self.task, "schemes": "w2 w4 w8", "budgets": ["3bpw", "4bpw"], "explore": 6,
            **other,
        }  # fmt: skip
        return self.store.submit("search", "s", request)[0]

    def claimed(self, worker: str = "w1", lease: float = LEASE) -> Job:
        job = self.store.claim(worker, lease)
        assert job is not None
        return job

    def drive(self, job: Job | None = None, stop: threading.Event | None = None) -> str | None:
        claimed = self.claimed() if job is None else job
        return drive(self.store, claimed, Host(self.db), LEASE, stop or threading.Event())

    def kinds(self, job: Job) -> list[str]:
        return [event.kind for event in self.store.events(job.id) if event.kind != "stage"]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browsing]:
    """A headless Chromium; the test is skipped where there is none."""
    with browsing() as browser:
        yield browser


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Starts servers of databases; the address of each one's page."""
    with contextlib.ExitStack() as stack:
        yield lambda db, **settings: stack.enter_context(living(db, **settings))


@pytest.fixture
def tabs(chromium: Browsing, serve: Callable[..., str]) -> Iterator[Callable[..., Tab]]:
    """Opens pages, and closes them before ``serve`` ends. The test fails for what they print as an
    error, and for what they ask of other hosts."""
    opened: list[Tab] = []

    def open_tab(address: str, **options: Any) -> Tab:
        opened.append(Tab(chromium, address, **options))
        return opened[-1]

    yield open_tab
    troubles = [trouble for tab in opened for trouble in tab.end()]
    assert not troubles, "\n".join(troubles)


@pytest.fixture
def place(database: str, tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "net.py").write_text(tiny.CODE)
    with Store.open(database) as store:
        yield Place(database, tmp_path, store)


@pytest.fixture
def after(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int, Callable[[], Any]], None]:
    """Do something once the driver has reported progress so many times."""

    def when(count: int, do: Callable[[], Any]) -> None:
        reports, advance = iter(range(1, 1 << 30)), Store.advance

        def counted(self: Store, *args: Any) -> str | None:
            if next(reports) == count:
                do()
            return advance(self, *args)

        monkeypatch.setattr(Store, "advance", counted)
        monkeypatch.setattr("bitfront.service.driver.EVERY", 0.0)

    return when
