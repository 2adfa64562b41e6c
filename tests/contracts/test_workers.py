"""What a database must say of workers: idle, busy, lost, and nothing of those that ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bitfront.storage import Store
from bitfront.storage.engine import clock
from bitfront.storage.workers import KEPT

STARTED = "2026-01-01T00:00:00.000000+00:00"


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with Store.open(database) as opened:
        yield opened


def seen(store: Store, name: str, lease: float = 60.0) -> None:
    store.worker_seen(name, "host-1", "0.1.0", STARTED, lease)


def states(store: Store) -> dict[str, tuple[str, int | None]]:
    return {worker.name: (worker.state, worker.job) for worker in store.workers()}


def test_a_worker_is_listed_until_it_ends(store: Store) -> None:
    assert store.workers() == []
    for name in ("w2", "w1", "w2"):
        seen(store, name)
    first, second = store.workers()
    assert (first.name, second.name) == ("w1", "w2")
    assert (first.host, first.version, first.started) == ("host-1", "0.1.0", STARTED)
    assert (first.state, first.job) == ("idle", None)
    assert first.seen > "2026"
    store.worker_ended("w1")
    store.worker_ended("w1")
    assert [worker.name for worker in store.workers()] == ["w2"]


def test_a_worker_is_busy_while_it_holds_a_job(store: Store) -> None:
    seen(store, "w1")
    seen(store, "w2")
    for number in range(2):
        store.submit("search", "llama", {"number": number})
    job = store.claim("w1", 60.0)
    assert job is not None
    assert states(store) == {"w1": ("busy", job.id), "w2": ("idle", None)}
    store.move(job.id, "pause")  # it has yet to end its unit
    assert states(store)["w1"] == ("busy", job.id)
    store.stopped(job)
    assert states(store)["w1"] == ("idle", None)


def test_a_worker_that_is_not_seen_again_is_lost_and_then_forgotten(store: Store) -> None:
    seen(store, "w1", lease=-1.0)
    store.submit("search", "llama", {})
    assert store.claim("w1", 60.0) is not None
    assert states(store) == {"w1": ("lost", 1)}
    seen(store, "w1")
    assert states(store) == {"w1": ("busy", 1)}
    seen(store, "w1", lease=-KEPT - 1.0)
    seen(store, "w2")
    assert list(states(store)) == ["w2"]


def test_it_is_seen_by_the_database_s_clock(store: Store) -> None:
    with store.reading() as connection:
        before = clock(connection)
    seen(store, "w1", lease=1000.0)
    with store.reading() as connection:
        moment, lease = connection.exec_driver_sql("SELECT seen, lease FROM worker").one()
        assert before <= moment <= clock(connection)
    assert lease == 1000.0
