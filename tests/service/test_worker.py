"""Workers as processes: killed, stopped, several at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.watching import attempts, outcome, reached, watched
from bitfront.errors import StorageError
from bitfront.executors import Wanted
from bitfront.service.actions import ACTIONS, Action, Host
from bitfront.service.requests import Body
from bitfront.service.worker import Worker
from bitfront.storage import Store
from bitfront.study import Progress
from tests import tiny
from tests.service.conftest import Place

KILLS = 3  # benchmarks/jobs.py has 100
SOON = 120.0  # seconds in which a worker that was asked to stop must have


@dataclass
class Started:
    """``bitfront worker`` as a process; what it says goes to a file."""

    process: subprocess.Popen[bytes]
    log: Path

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(SOON)

    def said(self) -> str:
        return self.log.read_text()

    def alive(self) -> bool:
        return self.process.poll() is None


def started(db: str, folder: Path, *more: str) -> Started:
    code = "from bitfront.cli import main; main()"
    log = folder / f"{uuid.uuid4().hex}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "worker", "--db", db, *more],
            stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    return Started(process, log)


def here(path: Path) -> Place:
    (path / "net.py").write_text(tiny.CODE)
    return Place(str(path / "b.db"), path, Store.open(path / "b.db"))


def test_a_killed_worker_costs_nothing(tmp_path: Path) -> None:
    """The same units as without a kill, none of them twice, and the same result."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        watched(folder / "b.db")
    calm, rough = here(whole), here(killed)
    jobs = [place.search(explore=10) for place in (calm, rough)]
    assert started(calm.db, tmp_path, "--once").ended() == 0
    planned = attempts(whole / "b.db")
    assert len(planned) == len(set(planned))

    rng, killings = random.Random(0), 0
    for moment in sorted(rng.sample(range(1, len(planned)), KILLS)):
        worker = started(rough.db, tmp_path, "--lease", "1", "--once")
        reached(killed / "b.db", moment, worker.alive)
        time.sleep(rng.uniform(0, 0.02))
        if worker.alive():
            worker.process.kill()
        killings += worker.ended() == -signal.SIGKILL
        time.sleep(1.1)  # its lease runs out
    assert killings >= KILLS - 1  # the last one may come too late
    worker = started(rough.db, tmp_path, "--lease", "1", "--once")
    assert worker.ended() == 0, worker.said()
    assert Counter(attempts(killed / "b.db")) == Counter(planned)
    assert outcome(killed / "b.db", "s") == outcome(whole / "b.db", "s")
    ends = [place.store.job(job.id) for place, job in zip((calm, rough), jobs, strict=True)]
    assert [job.state for job in ends] == ["succeeded"] * 2
    lost = rough.kinds(ends[1]).count("lost")
    assert Counter(w.state for w in rough.store.workers()).keys() == {"lost"}
    assert ends[1].attempt == 1 + lost
    assert 1 <= lost <= killings  # a worker may be killed before it has claimed
    for place in (calm, rough):
        place.store.close()


def test_two_workers_do_no_job_twice(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    both, met, done = threading.Barrier(2), set[int](), list[str]()

    def act(study: str, request: Body, host: Host, progress: Progress) -> dict[str, Any]:
        del request, host, progress
        if threading.get_ident() not in met:
            met.add(threading.get_ident())
            both.wait(SOON)  # each worker has a job of its own
        done.append(study)
        return {}

    monkeypatch.setitem(ACTIONS, "met", Action(Body, act))
    jobs = [place.store.submit("met", f"s{i}", {})[0] for i in range(10)]
    threads = [
        threading.Thread(target=lambda n=n: Worker(place.db, f"w{n}").run(idle=False))
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted(job.study for job in jobs)
    takers = set()
    for job in jobs:
        assert place.kinds(job) == ["submitted", "claimed", "succeeded"]
        takers.add(place.store.events(job.id)[1].details["worker"])
    assert takers == {"w0", "w1"}


def test_a_worker_may_have_processes(place: Place) -> None:
    job = place.search()
    assert Worker(place.db, executor=Wanted("local", {"processes": 2})).run(idle=False) == 1
    done = place.store.job(job.id)
    assert (done.state, place.kinds(job)) == ("succeeded", ["submitted", "claimed", "succeeded"])
    assert done.result is not None
    assert len(done.result["answers"]) == 2


def test_a_worker_is_seen_for_as_long_as_it_works(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[str, str, int | None]] = []
    seen, worker_seen = threading.Semaphore(0), Store.worker_seen

    def noted(self: Store, *args: Any) -> None:
        worker_seen(self, *args)
        seen.release()

    def act(study: str, request: Body, host: Host, progress: Progress) -> dict[str, Any]:
        del study, request, host, progress
        for _ in range(3):  # when it began, and twice since
            assert seen.acquire(timeout=SOON)
        found.extend((w.name, w.state, w.job) for w in place.store.workers())
        return {}

    monkeypatch.setitem(ACTIONS, "seen", Action(Body, act))
    monkeypatch.setattr(Store, "worker_seen", noted)
    job, _ = place.store.submit("seen", "s", {})
    assert Worker(place.db, "w1", lease=1.0).run(idle=False) == 1
    assert found == [("w1", "busy", job.id)]
    assert place.store.workers() == []


def test_a_worker_works_where_it_cannot_say_that_it_does(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object) -> None:
        raise StorageError("database is locked", "wait")

    for name in ("worker_seen", "worker_ended"):
        monkeypatch.setattr(Store, name, away)
    monkeypatch.setitem(ACTIONS, "none", Action(Body, lambda *_: {}))
    place.store.submit("none", "s", {})
    assert Worker(place.db, "w1").run(idle=False) == 1
    assert "worker w1 may be listed as lost: database is locked: wait" in caplog.text
    assert "worker w1 is still listed" in caplog.text


def test_a_signal_ends_a_worker_after_its_unit(tmp_path: Path) -> None:
    place = here(tmp_path)
    job = place.search(explore=400, schemes="w2 w3 w4 w5 w6 w7 w8")
    worker = started(place.db, tmp_path)
    while place.store.job(job.id).progress is None:
        assert worker.process.poll() is None, worker.said()
        time.sleep(0.05)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.ended() == 0, worker.said()
    assert "1 job driven" in worker.said()
    after = place.store.job(job.id)
    assert (after.state, after.worker) == ("queued", None)
    assert place.store.workers() == []
    place.store.close()


def test_a_database_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "b.db").write_text("this is no database, but a text of some length")
    worker = started(str(tmp_path / "b.db"), tmp_path)
    assert worker.ended() == 2
    assert worker.said().strip().endswith("is not a database: name another file")
