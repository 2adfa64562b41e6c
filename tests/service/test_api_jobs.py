"""Jobs over HTTP: submitted once, listed, moved, followed to their end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from bitfront.service.api import Settings
from bitfront.service.api.bodies import KINDS, ExportJob, ReportJob
from bitfront.service.api.common import Service
from bitfront.service.api.streams import Stream
from bitfront.service.requests import ExportBody, ReportBody
from bitfront.storage import Job, Store
from tests.service.apis import fill, made, problem, serving

SEARCH = {"kind": "search", "schemes": "w2 w4", "budgets": ["3bpw"]}


@dataclass
class Place:
    client: TestClient
    store: Store
    folder: Path

    @property
    def task(self) -> dict[str, Any]:
        arguments = {"model": "model", "calibration": "text.txt"}
        return {"kind": "language", "arguments": arguments}

    def submit(self, study: str = "s", **body: Any) -> Any:
        return self.client.post(
            f"/api/v1/studies/{study}/jobs", json={**SEARCH, "task": self.task, **body}
        )


@pytest.fixture
def place(database: str, tmp_path: Path) -> Iterator[Place]:
    root = tmp_path / "root"
    made(root / "model")
    (root / "text.txt").write_text("text")
    with (
        serving(database, roots=(root,), output=tmp_path / "out", heartbeat=0.0) as client,
        Store.open(database) as store,
    ):
        yield Place(client, store, tmp_path)


def claimed(store: Store) -> Job:
    job = store.claim("w1", 60.0)
    assert job is not None
    return job


def test_the_same_request_is_the_same_job(place: Place) -> None:
    first = place.submit()
    assert first.status_code == 202, first.text
    assert first.headers["location"] == "/api/v1/jobs/1"
    assert first.json()["state"] == "queued"
    again = place.submit(explore=20, verify=True)  # as they are by default
    assert (again.status_code, again.headers["location"]) == (200, "/api/v1/jobs/1")
    assert again.json() == first.json()
    absolute = {"model": str(place.folder / "root/model"), "calibration": "./text.txt"}
    same = place.submit(task={"kind": "language", "arguments": absolute})
    assert same.headers["location"] == "/api/v1/jobs/1"
    other = place.submit(budgets=["4bpw"])
    assert other.status_code == 202
    assert other.json()["id"] > first.json()["id"]
    assert place.client.get(first.headers["location"]).json() == first.json()
    assert len(place.store.jobs()) == 2


def test_many_clients_at_once_get_one_job(place: Place) -> None:
    found: list[tuple[int, str]] = []

    def ask() -> None:
        done = place.submit()
        found.append((done.status_code, done.headers["location"]))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(200, "/api/v1/jobs/1")] * 7 + [(202, "/api/v1/jobs/1")]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"kind": "dance"}, "kind"),
        ({"budgetz": []}, "budgetz"),
        ({"schemes": "w9"}, "w9"),
        ({"budgets": ["4bpq"]}, "4bpq"),
        ({"hold": "kl<0.1"}, "kl<0.1"),
        ({"explore": -1}, "explore"),
        ({"metric": "a\x00b"}, "NUL"),
        ({"task": {"kind": "language", "arguments": {"modle": "x"}}}, "modle"),
        ({"task": {"kind": "language", "arguments": {"model": 3}}}, "model"),
        ({"task": {"kind": "language", "arguments": {"field": "\ud800"}}}, "text"),
    ],
)
def test_a_request_at_fault(place: Place, body: dict[str, Any], said: str) -> None:
    content = json.dumps({**SEARCH, "task": place.task, **body})
    headers = {"content-type": "application/json"}
    done = place.client.post("/api/v1/studies/s/jobs", content=content, headers=headers)
    found = problem(done, 422, "invalid-input")
    assert said in found["detail"] + str(found.get("errors"))
    assert place.store.jobs() == []


def test_a_study_must_be_there_or_begun(place: Place) -> None:
    found = problem(place.submit(task={}), 404, "unknown-name")
    assert "there is no study 's' yet" in found["detail"]
    problem(place.client.post("/api/v1/studies/s/jobs", json={"kind": "report"}), 404,
            "unknown-name")  # fmt: skip
    fill(place.store)
    problem(place.submit("llama", task={}), 422, "invalid-input")  # begun with live things
    problem(place.submit("%20"), 422, "invalid-input")


def test_jobs_are_listed(place: Place) -> None:
    for i in range(5):
        place.submit(f"s{i % 2}", max_measurements=i)
    claimed(place.store)
    found: list[int] = []
    query = {"limit": "2"}
    while True:
        page = place.client.get("/api/v1/jobs", params=query).json()
        found += [job["id"] for job in page["items"]]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
    assert found == [5, 4, 3, 2, 1]

    def ids(**query: Any) -> list[int]:
        return [job["id"] for job in place.client.get("/api/v1/jobs", params=query).json()["items"]]

    assert ids(state="running") == [1]
    assert ids(state=["running", "queued"], study="s0") == [5, 3, 1]
    assert ids(kind="report") == []
    problem(place.client.get("/api/v1/jobs?state=runing"), 422, "invalid-input")
    problem(place.client.get("/api/v1/jobs?kind=dance"), 422, "invalid-input")


def test_jobs_are_moved(place: Place) -> None:
    address = place.submit().headers["location"]
    for move, state in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        done = place.client.post(f"{address}/{move}")
        assert (done.status_code, done.json()["state"]) == (200, state)
    refused = problem(place.client.post(f"{address}/pause"), 409, "illegal-move")
    assert refused["detail"] == "job 1 is cancelled, and cannot pause"
    assert refused["hint"] == "it can resume"
    problem(place.client.post("/api/v1/jobs/9/pause"), 404, "unknown-name")


def test_events_by_polling(place: Place) -> None:
    address = place.submit().headers["location"] + "/events"
    found = place.client.get(address).json()
    assert [(e["number"], e["kind"]) for e in found["items"]] == [(1, "submitted")]
    assert (found["after"], found["state"], found["progress"]) == (1, "queued", None)
    job = claimed(place.store)
    place.store.advance(job, "profiling", 3, 10)
    more = place.client.get(address, params={"after": found["after"]}).json()
    assert [e["kind"] for e in more["items"]] == ["claimed", "stage"]
    assert (more["progress"]["done"], more["progress"]["total"]) == (3, 10)
    none = place.client.get(address, params={"after": more["after"]}).json()
    assert (none["items"], none["after"]) == ([], more["after"])
    problem(place.client.get("/api/v1/jobs/9/events"), 404, "unknown-name")


def messages(lines: Iterator[str]) -> Iterator[tuple[str | None, str, Any]]:
    """(id, event, data) of a stream; comments as events without a name."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            data = json.loads(fields["data"]) if "data" in fields else fields.get("", "")
            yield fields.get("id"), fields.get("event", ""), data
            fields = {}


def test_events_as_a_stream(place: Place) -> None:
    """It begins after the event that the client has, and ends with the job."""
    address = place.submit().headers["location"]
    job = claimed(place.store)
    place.store.advance(job, "profiling", 1, 2)
    place.store.advance(job, "profiling", 2, 2)
    place.store.succeed(job, {"answers": []})
    stream = {"accept": "text/event-stream", "last-event-id": "1"}
    done = place.client.get(f"{address}/events", headers=stream)
    assert done.headers["content-type"].startswith("text/event-stream")
    found = [m for m in messages(iter(done.text.split("\n"))) if m[1]]
    assert [(id, kind) for id, kind, _ in found] == [
        ("2", "claimed"), ("3", "stage"), ("4", "succeeded"), (None, "progress"), (None, "end"),
    ]  # fmt: skip
    assert found[3][2]["done"] == 2
    assert found[4][2] == place.client.get(address).json()


def test_a_stream_goes_on_while_the_job_does(place: Place) -> None:
    address = place.submit().headers["location"]
    steps = iter(("claim", "advance", "cancel"))
    seen: list[str] = []
    # the test's client gives a stream when it has ended: the job is moved from another thread
    # whenever a look at it comes round
    jobs, look = [], Store.events

    def looked(self: Store, id: int, after: int = 0) -> Any:
        step = next(steps, None)
        if step == "claim":
            jobs.append(claimed(place.store))
        elif step == "advance":
            place.store.advance(jobs[0], "profiling", 1, 2)
        elif step == "cancel":
            place.store.move(id, "cancel")
        return look(self, id, after)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "events", looked)
        done = place.client.get(f"{address}/events", headers={"accept": "text/event-stream"})
    for _, kind, data in messages(iter(done.text.split("\n"))):
        seen.append(kind or data)
    assert seen[0] == "jobs go on when nobody listens"
    assert "still here" in seen
    assert [kind for kind in seen if kind in ("submitted", "claimed", "stage", "cancelled")] == [
        "submitted", "claimed", "stage", "cancelled",
    ]  # fmt: skip
    assert seen[-1] == "end"


def test_streams_are_counted(place: Place) -> None:
    address = place.submit().headers["location"] + "/events"
    place.client.post("/api/v1/jobs/1/cancel")
    service: Service = place.client.app.state.service  # type: ignore[attr-defined]
    stream = {"accept": "text/event-stream"}
    held = [Stream(service, 1, 0) for _ in range(Settings().streams)]
    problem(place.client.get(address, headers=stream), 429, "too-many-requests")
    for _ in held:
        service.streams.release()
    for _ in range(3):
        assert place.client.get(address, headers=stream).status_code == 200
    for _ in held:
        assert service.streams.acquire(blocking=False)  # every one was given back


def test_where_a_job_writes_the_server_decides(place: Place) -> None:
    fill(place.store)
    for given in ({"folder": "/nowhere/x"}, {"overwrite": True}):
        body = {"kind": "export", "trial": 1, "task": place.task, **given}
        problem(place.client.post("/api/v1/studies/llama/jobs", json=body), 422, "invalid-input")
    body = {"kind": "report"}
    first = place.client.post("/api/v1/studies/llama/jobs", json=body).json()
    html = Path(first["request"]["html"])
    assert html.parent.parent == place.folder / "out"
    assert html.parent.is_dir()
    again = place.client.post("/api/v1/studies/llama/jobs", json=body)
    assert (again.status_code, again.json()["id"]) == (200, first["id"])
    new = place.client.post("/api/v1/studies/llama/jobs", json={**body, "edition": "2"})
    assert (new.status_code, new.json()["id"] > first["id"]) == (202, True)
    body = {"kind": "export", "trial": 1, "task": place.task}
    export = place.client.post("/api/v1/studies/llama/jobs", json=body).json()
    assert Path(export["request"]["folder"]).parent == place.folder / "out"
    assert export["request"]["overwrite"] is True


def test_bodies_have_all_else_that_jobs_take() -> None:
    ours = {"kind", *ExportBody.model_fields} - {"folder", "overwrite"}
    assert set(ExportJob.model_fields) == ours
    assert set(ReportJob.model_fields) == {"kind", "edition", *ReportBody.model_fields} - {"html"}
    assert len(set(KINDS)) == len(KINDS)


def test_without_an_output_folder_nothing_is_written(tmp_path: Path) -> None:
    with Store.open(tmp_path / "b.db") as store:
        fill(store)
    with serving(str(tmp_path / "b.db")) as client:
        done = client.post("/api/v1/studies/llama/jobs", json={"kind": "report"})
        assert "--output" in problem(done, 403, "forbidden")["hint"]
