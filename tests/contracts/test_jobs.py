"""What jobs must do on every database: one driver at a time, and no move that is not allowed."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from itertools import product

import pytest

from bitfront.errors import IllegalMove, InvalidInput, UnknownName
from bitfront.storage import Job, Store
from bitfront.storage.jobs import LIMIT
from bitfront.storage.jobstates import MOVES, STATES, moved

LONG, SHORT = 60.0, 0.05  # seconds


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with Store.open(database) as opened:
        yield opened


def submitted(store: Store, number: int = 0) -> Job:
    return store.submit("search", "llama", {"budgets": ["3bpw"], "number": number})[0]


def claimed(store: Store, worker: str = "w1", lease: float = LONG) -> Job:
    job = store.claim(worker, lease)
    assert job is not None
    return job


def kinds(store: Store, job: Job) -> list[str]:
    events = store.events(job.id)
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    return [event.kind for event in events]


def test_the_same_request_is_the_same_job(store: Store) -> None:
    job, new = store.submit("search", "llama", {"budgets": ["3bpw"], "explore": 20})
    again, newer = store.submit("search", "llama", {"explore": 20, "budgets": ["3bpw"]})
    assert (new, newer) == (True, False)
    assert job == again == store.job(job.id)
    assert (job.state, job.attempt, job.worker, job.progress) == ("queued", 0, None, None)
    assert (job.error, job.result, job.lease_until) == (None, None, None)
    others = [
        store.submit("profile", "llama", job.request)[0],
        store.submit("search", "gpt", job.request)[0],
        store.submit("search", "llama", {**job.request, "explore": 21})[0],
    ]
    assert len({job.id, *(other.id for other in others)}) == 4
    assert kinds(store, job) == ["submitted"]
    with pytest.raises(InvalidInput, match="a job's request cannot be recorded"):
        store.submit("search", "llama", {"budget": math.nan})


def test_jobs_are_listed_newest_first_by_pages(store: Store) -> None:
    jobs = [submitted(store, i) for i in range(5)]
    other = store.submit("export", "gpt", {})[0]
    ids = [job.id for job in reversed(jobs)]
    assert [job.id for job in store.jobs()] == [other.id, *ids]
    assert [job.id for job in store.jobs(study="llama")] == ids
    assert [job.id for job in store.jobs(kind="export")] == [other.id]
    claimed(store)
    assert [job.id for job in store.jobs(states=["running"])] == [jobs[0].id]
    assert len(store.jobs(states=["queued", "running"])) == 6
    first = store.jobs(study="llama", limit=2)
    then = store.jobs(study="llama", limit=2, before=first[-1].id)
    assert [job.id for job in [*first, *then]] == ids[:4]


def test_what_there_is_not(store: Store) -> None:
    for ask in (store.job, store.events, lambda id: store.move(id, "pause")):
        with pytest.raises(UnknownName, match="no job 7"):
            ask(7)
    assert store.claim("w1", LONG) is None


def test_a_claim_is_the_oldest_that_waits(store: Store) -> None:
    jobs = [submitted(store, i) for i in range(3)]
    store.move(jobs[1].id, "pause")
    found = [claimed(store, "w1"), claimed(store, "w2")]
    assert [(job.id, job.worker, job.attempt, job.state) for job in found] == [
        (jobs[0].id, "w1", 1, "running"),
        (jobs[2].id, "w2", 1, "running"),
    ]
    assert store.claim("w3", LONG) is None
    assert kinds(store, jobs[0]) == ["submitted", "claimed"]
    assert store.events(jobs[0].id)[1].details == {"worker": "w1", "attempt": 1}
    assert [event.number for event in store.events(jobs[0].id, after=1)] == [2]


def test_no_job_is_claimed_twice(store: Store, database: str) -> None:
    count, workers = 12, 4
    for i in range(count):
        submitted(store, i)
    taken: list[int] = []
    barrier = threading.Barrier(workers)

    def work(name: str) -> None:
        with Store.open(database) as own:
            barrier.wait()
            while (job := own.claim(name, LONG)) is not None:
                taken.append(job.id)

    threads = [threading.Thread(target=work, args=[f"w{i}"]) for i in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(job.id for job in store.jobs())
    assert len(taken) == count


def test_a_lease_that_runs_out_gives_the_job_to_another(store: Store) -> None:
    submitted(store)
    old = claimed(store, "w1", SHORT)
    assert store.renew(old, LONG) == "running"
    assert store.claim("w2", LONG) is None
    store.advance(old, "profiling", 3, 10)
    assert store.renew(old, SHORT) == "running"
    time.sleep(2 * SHORT)
    new = claimed(store, "w2")
    assert (new.id, new.attempt, new.failures) == (old.id, 2, 1)
    assert kinds(store, new) == ["submitted", "claimed", "stage", "lost", "claimed"]
    assert store.events(new.id)[3].details == {"worker": "w1", "unit": "profiling 3/10"}
    for late in (
        store.renew(old, LONG), store.advance(old, "profiling", 4, 10), store.succeed(old, {}),
        store.failed(old, "late"), store.stopped(old),
    ):  # fmt: skip
        assert late is None
    now = store.job(new.id)
    assert (now.worker, now.state, now.progress) == ("w2", "running", new.progress)
    assert store.succeed(new, {"trials": [3]}) == "succeeded"
    done = store.job(new.id)
    assert (done.worker, done.lease_until, done.error, done.failures) == (None, None, None, 0)
    assert done.result == {"trials": [3]}


def test_a_job_whose_drivers_die_at_one_place_fails(store: Store) -> None:
    job = submitted(store)
    for attempt in range(LIMIT):
        claimed(store, f"w{attempt}", SHORT)
        time.sleep(2 * SHORT)
    assert store.claim("last", LONG) is None
    failed = store.job(job.id)
    assert (failed.state, failed.failures, failed.worker) == ("failed", LIMIT, None)
    assert failed.error == {"text": "worker w4 was lost", "hint": "see its log", "unit": ""}
    assert store.move(job.id, "resume").state == "queued"
    assert claimed(store).failures == 0


def test_progress_has_a_rate_and_a_time_left(store: Store) -> None:
    submitted(store)
    job = claimed(store)
    assert store.advance(job, "profiling", 2, 10) == "running"
    begun = store.job(job.id).progress
    assert begun is not None
    assert (begun.done, begun.since, begun.rate, begun.seconds_left) == (2, 2, None, None)
    time.sleep(0.1)
    store.advance(job, "profiling", 6, 10)
    now = store.job(job.id).progress
    assert now is not None
    assert (now.stage, now.done, now.total, now.since) == ("profiling", 6, 10, 2)
    assert now.rate == pytest.approx(4 / now.seconds)
    assert now.seconds_left == pytest.approx(now.seconds)
    assert 0.1 <= now.seconds < LONG
    store.advance(job, "refining", 0, 20)
    store.advance(job, "refining", 20, 20)
    store.advance(job, "refining", 0, 20)  # another point of the sweep
    again = store.job(job.id).progress
    assert again is not None
    assert (again.done, again.since) == (0, 0)
    stages = [event.details for event in store.events(job.id) if event.kind == "stage"]
    assert stages == [{"stage": "profiling"}, {"stage": "refining"}]


@pytest.mark.parametrize(("move", "state"), [("pause", "paused"), ("cancel", "cancelled")])
def test_a_driver_hears_that_it_is_to_stop(store: Store, move: str, state: str) -> None:
    submitted(store)
    job = claimed(store)
    assert store.move(job.id, move).state == state
    assert store.renew(job, LONG) == store.advance(job, "refining", 1, 5) == state
    assert store.move(job.id, "resume").state == "queued"
    assert store.claim("w2", LONG) is None  # the driver has not stopped yet
    assert store.advance(job, "refining", 2, 5) == "queued"
    store.stopped(job)
    assert claimed(store, "w2").attempt == 2
    assert kinds(store, job)[2:] == [state, "stage", "resumed", "stopped", "claimed"]


def test_the_last_unit_of_a_paused_job_ends_it(store: Store) -> None:
    for number, (move, after) in enumerate([("pause", "succeeded"), ("cancel", "cancelled")]):
        job = submitted(store, number)
        running = claimed(store)
        store.move(job.id, move)
        assert store.succeed(running, {"trials": [1]}) == after
        now = store.job(job.id)
        assert (now.worker, now.result) == (
            None, {"trials": [1]} if after == "succeeded" else None,
        )  # fmt: skip


def test_a_driver_that_ends_early_gives_the_job_back(store: Store) -> None:
    submitted(store)
    assert store.stopped(claimed(store)) == "queued"
    assert claimed(store, "w2").attempt == 2


def test_failures_of_one_unit_are_counted_and_wait(store: Store) -> None:
    job = submitted(store)
    assert store.failed(claimed(store), "out of memory", "use less", "a w4", SHORT) == "queued"
    assert store.claim("w1", LONG) is None  # not yet
    time.sleep(2 * SHORT)
    assert store.failed(claimed(store), "boom", "", "b w2", 0.0) == "queued"
    assert store.job(job.id).failures == 1  # another unit
    for count in range(2, LIMIT):
        assert store.failed(claimed(store), "boom", "", "b w2", 0.0) == "queued"
        assert store.job(job.id).failures == count
    assert store.failed(claimed(store), "boom", "see it", "b w2", 0.0) == "failed"
    failed = store.job(job.id)
    assert failed.error == {"text": "boom", "hint": "see it", "unit": "b w2"}
    last = store.events(job.id)[-1]
    assert (last.kind, last.details) == ("failed", failed.error)
    waits = [e.details["seconds"] for e in store.events(job.id) if e.kind == "retry"]
    assert waits == [SHORT, *[0.0] * (LIMIT - 1)]


def test_a_wait_doubles(store: Store) -> None:
    job = submitted(store)
    store.failed(claimed(store), "boom", "", "u", 1e-3)
    time.sleep(0.02)
    store.failed(claimed(store), "boom", "", "u", 1e-3)
    waits = [e.details["seconds"] for e in store.events(job.id) if e.kind == "retry"]
    assert waits == [1e-3, 2e-3]


def test_what_cannot_be_tried_again_fails_at_once(store: Store) -> None:
    job = submitted(store)
    assert store.failed(claimed(store), "no such file", "give another", "") == "failed"
    assert kinds(store, job) == ["submitted", "claimed", "failed"]


def test_every_move_is_in_the_table_or_refused(store: Store) -> None:
    for state, move in product(STATES, ("pause", "resume", "cancel")):
        job = _in_state(store, state, move)
        if state in MOVES[move]:
            assert store.move(job.id, move).state == MOVES[move][state] == moved(1, state, move)
            continue
        with pytest.raises(IllegalMove, match=f"job {job.id} is {state}, and cannot {move}"):
            store.move(job.id, move)
        assert store.job(job.id).state == state


def _in_state(store: Store, state: str, salt: str) -> Job:
    """A new job, brought to ``state``."""
    job = store.submit("search", "llama", {"state": state, "salt": salt})[0]
    if state == "queued":
        return job
    if state in ("paused", "cancelled"):
        return store.move(job.id, {"paused": "pause", "cancelled": "cancel"}[state])
    while (running := claimed(store)).id != job.id:
        store.succeed(running, {})
    if state == "succeeded":
        store.succeed(running, {})
    elif state == "failed":
        store.failed(running, "boom")
    return store.job(job.id)
