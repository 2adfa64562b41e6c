"""A driver: jobs run to their end, whatever happens on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import bitfront
from bitfront.documents import answer_document, plain
from bitfront.errors import ClusterError, InvalidInput, StorageError
from bitfront.service import driver
from bitfront.service.actions import ACTIONS, Action, Host
from bitfront.service.requests import Body
from bitfront.storage import Store
from bitfront.storage.jobs import LIMIT
from bitfront.study import Progress
from tests.service.conftest import Place

After = Callable[[int, Callable[[], Any]], None]


def answers(place: Place) -> list[dict[str, Any]]:
    """What the search of ``Place.search`` comes to, by the verb itself."""
    with bitfront.open_study("s", db=place.db) as study:
        found = bitfront.search(study, "w2 w4 w8", ["3bpw", "4bpw"], explore=6)
    documents: list[dict[str, Any]] = plain([answer_document(answer) for answer in found])
    return documents


def counts(place: Place) -> tuple[int, int]:
    study = place.store.study("s")
    return len(place.store.measurements(study)), len(place.store.trials(study))


def test_a_search_is_driven_to_its_end(place: Place) -> None:
    job = place.search()
    assert place.drive() == "succeeded"
    done = place.store.job(job.id)
    assert done.result is not None
    assert done.progress is not None
    assert done.progress.done == done.progress.total
    assert place.kinds(job) == ["submitted", "claimed", "succeeded"]
    before = counts(place)
    assert done.result["answers"] == answers(place)
    assert counts(place) == before


@pytest.mark.parametrize(("move", "state"), [("pause", "paused"), ("cancel", "cancelled")])
def test_it_stops_at_the_end_of_a_unit_and_goes_on(
    place: Place, after: After, move: str, state: str
) -> None:
    job = place.search()
    after(9, lambda: place.store.move(job.id, move))
    assert place.drive() == state
    stopped = place.store.job(job.id)
    assert (stopped.worker, stopped.result) == (None, None)
    assert place.store.claim("w2", 1.0) is None
    assert counts(place)[0] > 0
    place.store.move(job.id, "resume")
    assert place.drive(place.claimed("w2")) == "succeeded"
    assert place.kinds(job) == [
        "submitted", "claimed", state, "stopped", "resumed", "claimed", "succeeded",
    ]  # fmt: skip
    done = place.store.job(job.id)
    assert done.result is not None
    assert done.result["answers"] == answers(place)


def test_a_worker_that_is_stopped_gives_its_job_back(place: Place, after: After) -> None:
    job, stop = place.search(), threading.Event()
    after(5, stop.set)
    assert place.drive(stop=stop) == "queued"
    assert place.kinds(job) == ["submitted", "claimed", "stopped"]
    assert place.drive(place.claimed("w2")) == "succeeded"


def test_a_driver_that_lost_its_lease_does_no_harm(place: Place, after: After) -> None:
    job = place.search()
    first = place.claimed("w1", lease=-1.0)  # it has run out, and is not renewed for a while
    after(5, lambda: place.claimed("w2"))
    assert place.drive(first) is None
    second = place.store.job(job.id)
    assert (second.state, second.worker, second.attempt) == ("running", "w2", 2)
    assert place.drive(second) == "succeeded"
    assert place.kinds(job) == ["submitted", "claimed", "lost", "claimed", "succeeded"]


def test_a_request_at_fault_fails_at_once(place: Place) -> None:
    job = place.search(budgets=["0.5bpw"])
    assert place.drive() == "failed"
    failed = place.store.job(job.id)
    assert failed.error is not None
    assert failed.error["text"].startswith("budget 0.5bpw cannot be met")
    assert "raise" in failed.error["hint"]
    assert place.kinds(job) == ["submitted", "claimed", "failed"]


def flaky(monkeypatch: pytest.MonkeyPatch, failures: int, error: Exception) -> list[str]:
    """A kind of job whose second unit fails so many times; the units that were begun."""
    begun: list[str] = []

    def act(study: str, request: Body, host: Host, progress: Progress) -> dict[str, Any]:
        del study, request, host
        for unit in range(3):
            progress("working", unit, 3)
            begun.append(str(unit))
            if unit == 1 and begun.count("1") <= failures:
                raise error
        return {"units": 3}

    monkeypatch.setitem(ACTIONS, "flaky", Action(Body, act))
    monkeypatch.setattr(driver, "AGAIN", 0.0)
    return begun


def test_a_unit_that_fails_is_tried_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = flaky(monkeypatch, 2, RuntimeError("out of memory"))
    job, _ = place.store.submit("flaky", "s", {})
    assert [place.drive() for _ in range(3)] == ["queued", "queued", "succeeded"]
    assert begun == ["0", "1", "0", "1", "0", "1", "2"]
    retries = [e.details for e in place.store.events(job.id) if e.kind == "retry"]
    assert [(e["text"], e["unit"]) for e in retries] == [
        ("RuntimeError: out of memory", "working 1/3")
    ] * 2
    assert place.store.job(job.id).result == {"units": 3}


def test_a_cluster_that_is_away_is_waited_for_longer() -> None:
    away = ClusterError("no head of a Ray cluster", "start one")
    assert driver.told(away) == ("no head of a Ray cluster", "start one", driver.CLUSTER)
    assert driver.told(InvalidInput("a wrong word", "another")) == ("a wrong word", "another", None)


def test_after_some_failures_of_a_unit_the_job_fails(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    flaky(monkeypatch, 1 << 30, OSError("no space left"))
    job, _ = place.store.submit("flaky", "s", {})
    states = [place.drive() for _ in range(LIMIT)]
    assert states == ["queued"] * (LIMIT - 1) + ["failed"]
    failed = place.store.job(job.id)
    assert failed.error == {
        "text": "OSError: no space left", "hint": "see the worker's log", "unit": "working 1/3",
    }  # fmt: skip


def away(passing: bool) -> StorageError:
    error = StorageError("database was shut down by its server", "run again when it is up")
    error.passing = passing
    return error


def test_a_database_that_is_away_for_a_while_is_waited_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    advance, failed = Store.advance, Store.failed

    def broken(self: Store, *args: Any) -> str | None:
        calls.append("advance")
        if 4 <= len(calls) <= 7:
            raise away(passing=True)
        return advance(self, *args)

    def broken_too(self: Store, *args: Any) -> str | None:
        calls.append("failed")
        if len(calls) <= 7:
            raise away(passing=True)
        return failed(self, *args)

    monkeypatch.setattr(Store, "advance", broken)
    monkeypatch.setattr(Store, "failed", broken_too)
    monkeypatch.setattr(driver, "AGAIN", 0.0)
    monkeypatch.setattr(driver, "LONGEST", 0.01)
    job = place.search()
    assert place.drive() == "queued"
    assert calls[3:8] == ["advance", "failed", "failed", "failed", "failed"]
    assert place.drive() == "succeeded"
    done = place.store.job(job.id)
    assert done.result is not None
    assert done.result["answers"] == answers(place)


def test_a_database_that_will_not_come_back_is_not_waited_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: Any) -> None:
        raise away(passing=False)

    place.search()
    job = place.claimed()
    for name in ("advance", "failed"):
        monkeypatch.setattr(Store, name, damaged)
    with pytest.raises(StorageError, match="was shut down"):
        place.drive(job)


def test_the_lease_is_renewed_while_a_unit_takes_long(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed = threading.Event()

    def act(study: str, request: Body, host: Host, progress: Progress) -> dict[str, Any]:
        del study, request, host, progress
        assert renewed.wait(30)
        return {}

    renew = Store.renew

    def noted(self: Store, *args: Any) -> str | None:
        state = renew(self, *args)
        renewed.set()
        return state

    monkeypatch.setitem(ACTIONS, "long", Action(Body, act))
    monkeypatch.setattr(Store, "renew", noted)
    place.store.submit("long", "s", {})
    job = place.claimed(lease=0.3)
    assert driver.drive(place.store, job, Host(place.db), 0.3, threading.Event()) == "succeeded"
