"""``bitfront jobs``: what is listed, shown and moved."""

from __future__ import annotations

import pytest

from bitfront.cli.progress import duration
from bitfront.storage import Store
from tests.commands import Commands


def submitted(bitfront: Commands) -> list[int]:
    with Store.open(bitfront.db) as store:
        return [store.submit("search", "llama", {"budgets": [f"{b}bpw"]})[0].id for b in (3, 4)]


def test_jobs_are_listed_and_shown(bitfront: Commands) -> None:
    assert bitfront.ok("jobs", "list").out.strip() == "no jobs"
    first, second = submitted(bitfront)
    with Store.open(bitfront.db) as store:
        job = store.claim("w1", 60.0)
        assert job is not None
        store.advance(job, "profiling", 3, 10)
    found = bitfront.ok("jobs", "list", "--json").document
    assert [job["id"] for job in found] == [second, first]
    assert found[1]["progress"] == {
        "stage": "profiling", "done": 3, "total": 10, "rate": None, "seconds_left": None,
    }  # fmt: skip
    listed = bitfront.ok("jobs", "list", "--state", "running").out
    assert "profiling 3/10" in listed
    assert "queued" not in listed
    assert len(bitfront.ok("jobs", "list", "--limit", "1", "--json").document) == 1
    assert bitfront.ok("jobs", "list", "--study", "gpt", "--json").document == []
    shown = bitfront.ok("jobs", "show", str(first))
    assert '{"budgets": ["3bpw"]}' in shown.out
    assert bitfront.ok("jobs", "show", str(first), "--json").document == found[1]
    lines = bitfront.ok("jobs", "logs", str(first)).out.splitlines()
    assert [line.split()[2] for line in lines] == ["submitted", "claimed", "stage"]
    assert lines[2].endswith("stage profiling")
    events = bitfront.ok("jobs", "logs", str(first), "--after", "2", "--json").document
    assert [(e["number"], e["details"]) for e in events] == [(3, {"stage": "profiling"})]


def test_jobs_are_moved(bitfront: Commands) -> None:
    job = str(submitted(bitfront)[0])
    assert bitfront.ok("jobs", "pause", job).out.strip() == f"job {job} is paused"
    assert bitfront.ok("jobs", "resume", job, "--json").document["state"] == "queued"
    assert bitfront.ok("jobs", "cancel", job).out.strip() == f"job {job} is cancelled"
    said = bitfront.refused("jobs", "pause", job)
    assert said.strip() == f"error: job {job} is cancelled, and cannot pause: it can resume"


def test_workers_are_listed(bitfront: Commands) -> None:
    assert bitfront.ok("workers").out.strip() == "no workers"
    submitted(bitfront)
    with Store.open(bitfront.db) as store:
        store.worker_seen("w1", "gpu-1", "0.1.0", "2026-01-01T00:00:00", 60.0)
        store.worker_seen("w2", "gpu-2", "0.1.0", "2026-01-01T00:00:00", -1.0)
        assert store.claim("w1", 60.0) is not None
    lines = bitfront.ok("workers").out.splitlines()
    assert [line.split()[:3] for line in lines if "gpu" in line] == [
        ["w1", "gpu-1", "busy"], ["w2", "gpu-2", "lost"],
    ]  # fmt: skip
    found = bitfront.ok("workers", "--json").document
    assert [(w["name"], w["job"]) for w in found] == [("w1", 1), ("w2", None)]


@pytest.mark.parametrize("verb", ["show", "logs", "pause", "resume", "cancel"])
def test_a_job_there_is_not(bitfront: Commands, verb: str) -> None:
    assert bitfront.refused("jobs", verb, "9").strip() == (
        "error: no job 9: see 'bitfront jobs list'"
    )


def test_a_state_there_is_not(bitfront: Commands) -> None:
    assert "no state 'runing' of jobs: choose from queued, running" in bitfront.refused(
        "jobs", "list", "--state", "runing"
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min"),
     (200_000, "2 d 7 h")],
)  # fmt: skip
def test_a_duration_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
