"""``bitfront --server``: what a service answers is what the local verb prints."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from bitfront import remote
from bitfront.errors import InvalidInput, StorageError
from bitfront.service.api import Settings, create_app
from bitfront.service.api.serving import Server, address, bound
from bitfront.service.worker import Worker
from bitfront.storage import Store
from tests import tiny
from tests.commands import Commands
from tests.service.apis import fill

TOKEN = "a-token-for-everything"
FOLDER = re.compile(r'"folder": "[^"]*"')


@contextmanager
def listening(settings: Settings) -> Iterator[str]:
    """A server in a thread, with a real socket; its address."""
    with closing(bound(settings)) as socket:
        server = Server(create_app(settings))
        thread = threading.Thread(target=lambda: server.run(sockets=[socket]))
        thread.start()
        try:
            yield address(socket, settings.prefix)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def url(bitfront: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of the commands' own database, with a worker."""
    (tmp_path / "net.py").write_text(tiny.CODE)
    monkeypatch.setenv("BITFRONT_TOKEN", TOKEN)
    settings = Settings(
        db=bitfront.db, port=0, token=TOKEN, prefix="/b", roots=(tmp_path,), allow_functions=True,
        output=tmp_path / "served", poll=0.01,
    )  # fmt: skip
    with listening(settings) as at:
        yield at


@pytest.fixture
def working(bitfront: Commands) -> Iterator[None]:
    worker = Worker(bitfront.db, "w1")
    thread = threading.Thread(target=lambda: worker.run(poll=0.01))
    thread.start()
    yield
    worker.stop()
    thread.join()


def test_questions_are_answered_as_by_the_database(bitfront: Commands, url: str) -> None:
    with Store.open(bitfront.db) as store:
        fill(store)
        for i in range(3):
            store.submit("search", "llama", {"budgets": [f"{i}bpw"]})
        job = store.claim("w1", 60.0)
        assert job is not None
        store.advance(job, "profiling", 3, 10)
        store.worker_seen("w1", "here", "0.1.0", "2026-01-01T00:00:00", 60.0)
    for words in (
        ["studies"], ["front", "llama"], ["front", "llama", "--all", "--within", "kl<=0.5"],
        ["front", "llama", "--cost", "bits", "--metric", "top1", "--metric", "kl"],
        ["show", "llama", 3], ["show", "llama", 2, "--metric", "top1"],
        ["jobs", "list"], ["jobs", "list", "--state", "running", "--limit", 1],
        ["workers"], ["jobs", "show", job.id], ["jobs", "logs", job.id],
        ["jobs", "logs", job.id, "--after", 2],
    ):  # fmt: skip
        for more in ([], ["--json"]):
            here, there = bitfront.ok(*words, *more), bitfront.ok("--server", url, *words, *more)
            assert there.out == here.out, words
    for move in ("pause", "resume", "cancel"):
        moved = bitfront.ok("--server", url, "jobs", move, job.id)
        assert moved.out.strip() == f"job {job.id} is {{}}".format(
            {"pause": "paused", "resume": "queued", "cancel": "cancelled"}[move]
        )


def test_a_front_from_a_service_is_written_to_files(
    bitfront: Commands, url: str, tmp_path: Path
) -> None:
    with Store.open(bitfront.db) as store:
        fill(store)
    for name in ("csv", "html"):
        here, there = tmp_path / f"here.{name}", tmp_path / f"there.{name}"
        bitfront.ok("front", "llama", "--all", f"--{name}", here)
        bitfront.ok("--server", url, "front", "llama", "--all", f"--{name}", there)
        assert there.read_text() == here.read_text()


def test_a_recipe_of_a_service_is_that_of_the_database(
    bitfront: Commands, url: str, tmp_path: Path
) -> None:
    with Store.open(bitfront.db) as store:
        fill(store)
    for tool, end in (("torchao", "json"), ("modelopt", "yaml")):
        here, there = tmp_path / f"here.{end}", tmp_path / f"there.{end}"
        words = ["recipe", "llama", 2, "--for", tool, "--out"]
        bitfront.ok(*words, here)
        bitfront.ok("--server", url, *words, there)
        assert there.read_text() == here.read_text()


def test_what_is_wrong_is_said_as_by_the_database(bitfront: Commands, url: str) -> None:
    with Store.open(bitfront.db) as store:
        fill(store)
    for words in (
        ["front", "lama"], ["front", "llama", "--metric", "speed"], ["show", "llama", 99],
        ["show", "llama", 1, "--metric", "x"], ["front", "llama", "--within", "kl<=0"],
        ["jobs", "show", 9], ["jobs", "logs", 9], ["jobs", "pause", 9],
        ["recipe", "llama", 99, "--for", "torchao", "--out", "x.json"],
        ["recipe", "llama", 6, "--for", "gptqmodel", "--out", "x.json"],
    ):  # fmt: skip
        assert bitfront.refused("--server", url, *words) == bitfront.refused(*words)


@pytest.mark.usefixtures("working")
def test_long_verbs_are_jobs(bitfront: Commands, url: str, tmp_path: Path) -> None:
    """The same words here and there, on one database: both have the same to say."""
    task = ["--task", "module", "--function"]
    here, there = [*task, tmp_path / "net.py:task"], [*task, "net.py:task"]
    search = ["search", "s", "--schemes", "w2 w4 w8", "--budget", "3bpw", "--explore", 4]
    hold = ["search", "s", "--schemes", "w2 w4 w8", "--hold", "kl<=0.5", "--explore", 2]
    profile = ["profile", "s", "--schemes", "w2 w4", "--profiler", "mse"]
    until = ["profile", "s", "--schemes", "w2 w4", "--until", 0.5, "--budget", "3bpw",
             "--setting", "draws=2", "--pin", "head=w4"]  # fmt: skip
    for words in (search, hold, profile, until):
        asked = bitfront.ok("--server", url, *words, *there)
        assert asked.out == bitfront.ok(*words, *here).out
        again = bitfront.ok("--server", url, *words, "--json", *there)
        assert again.document == bitfront.ok(*words, "--json", *here).document
    jobs = bitfront.ok("jobs", "list", "--json").document
    assert [job["state"] for job in jobs] == ["succeeded"] * 4  # asked twice, done once
    trial = bitfront.ok("front", "s", "--json").document["trials"][0]["id"]
    export = bitfront.ok("--server", url, "export", "s", trial, tmp_path / "there", "--json")
    local = bitfront.ok("export", "s", trial, tmp_path / "here", "--json")
    found = [json.loads(done.out) for done in (export, local)]
    for document, name in zip(found, ("there", "here"), strict=True):
        assert document.pop("folder") == str(tmp_path / name)
        document.pop("seconds")
    assert found[0] == found[1]
    weights = [tmp_path / name / "model.safetensors" for name in ("there", "here")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    pages = [tmp_path / "there.html", tmp_path / "here.html"]
    said = bitfront.ok("--server", url, "report", "s", "--html", pages[0]).out
    assert said.replace("there", "here") == bitfront.ok("report", "s", "--html", pages[1]).out
    assert pages[0].read_text() == pages[1].read_text()


@pytest.mark.usefixtures("working")
def test_a_job_that_fails_is_an_error_of_one_line(
    bitfront: Commands, url: str, tmp_path: Path
) -> None:
    task = ["--task", "module", "--function", "net.py:task"]
    words = ["search", "s", "--schemes", "w4", "--budget", "0.5bpw"]
    for _ in range(2):  # the second time it is resumed, and fails again
        said = bitfront.refused("--server", url, *words, *task)
        assert said.startswith("error: budget 0.5bpw cannot be met")
    outside = ["--task", "module", "--function", "/nowhere/net.py:task"]
    assert "is not under a root" in bitfront.refused("--server", url, *words, *outside)
    assert not (tmp_path / "out").exists()


def test_servers_that_are_none(bitfront: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("127.0.0.1:8765", "file:///etc/passwd", "http://", "ftp://h/"):
        assert "write it like http" in bitfront.refused("--server", url, "studies")
    with closing(bound(Settings(port=0))) as socket:
        free = address(socket, "")
    assert "cannot be used" in bitfront.refused("--server", free, "studies")
    assert "give one of them" in bitfront.refused("--server", free, "studies", "--db", "b.db")
    monkeypatch.setenv("BITFRONT_SERVER", free)
    for words in (["worker"], ["serve"], ["optuna", "s", "--out", "o.db"]):
        assert "unset BITFRONT_SERVER" in bitfront.refused(*words)


def test_without_the_token(bitfront: Commands, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BITFRONT_TOKEN")
    assert "a token is needed" in bitfront.refused("--server", url, "studies")


def test_a_client_that_leaves_gives_its_stream_back(bitfront: Commands, tmp_path: Path) -> None:
    with Store.open(bitfront.db) as store:
        job, _ = store.submit("search", "s", {})
    with listening(Settings(db=bitfront.db, port=0, streams=1, poll=0.01)) as url:
        address, stream = f"{url}/api/v1/jobs/{job.id}/events", {"accept": "text/event-stream"}
        with httpx.stream("GET", address, headers=stream) as first:
            lines = first.iter_lines()  # held: it closes the connection when it is dropped
            assert next(lines).startswith(":")
            assert httpx.get(address, headers=stream).status_code == 429
        end = time.monotonic() + 60
        while time.monotonic() < end:  # the server notices in a moment
            with httpx.stream("GET", address, headers=stream) as second:
                if second.status_code == 200:
                    return
            time.sleep(0.05)
        pytest.fail("the stream is still taken")


class Other(BaseHTTPRequestHandler):
    """A server that is not Bitfront's."""

    asked: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.asked.append(self.headers.get("authorization"))
        status = 302 if self.path.endswith("/jobs/1") else 200
        self.send_response(status)
        self.send_header("Location", f"http://{self.headers['host']}/elsewhere")
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *_: Any) -> None:
        return


def test_another_server_is_told_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            server = remote.Server(f"http://127.0.0.1:{other.server_port}", TOKEN)
            with pytest.raises(StorageError, match="no JSON"):
                server.get("studies")
            with pytest.raises(StorageError, match="it answers 302"):
                server.get("jobs/1")
        finally:
            other.shutdown()
            thread.join()
    assert len(Other.asked) == 2  # the token was not taken elsewhere
    assert TOKEN not in repr(server)


def test_a_stream_that_breaks_off_goes_on(
    bitfront: Commands, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the last event that came; nothing is told twice."""
    monkeypatch.setattr(remote, "AGAIN", 0.0)
    with Store.open(bitfront.db) as store:
        submitted, _ = store.submit("search", "s", {})
        job = store.claim("w1", 60.0)
        assert job is not None
        for done in range(3):
            store.advance(job, "profiling", done, 3)
        store.succeed(job, {"answers": []})
    begun: list[int] = []
    events = remote.Server._events

    def breaking(self: remote.Server, id: int, last: int) -> Any:
        begun.append(last)
        for n, event in enumerate(events(self, id, last)):
            if len(begun) <= 2 and n == 1:
                raise ConnectionResetError
            yield event

    monkeypatch.setattr(remote.Server, "_events", breaking)
    found = remote.Server(url, TOKEN).followed(submitted.id, lambda *_: None)
    assert found["state"] == "succeeded"
    assert begun == [0, 1, 2]


def test_a_file_that_came_damaged(bitfront: Commands, url: str, tmp_path: Path) -> None:
    out = tmp_path / "served" / "export-1"
    out.mkdir(parents=True)
    (out / "a.bin").write_bytes(b"abc")
    with Store.open(bitfront.db) as store:
        store.submit("export", "s", {"folder": str(out)})
        job = store.claim("w1", 60.0)
        assert job is not None
        store.succeed(job, {"folder": str(out)})
    server = remote.Server(url, TOKEN)
    with pytest.raises(StorageError, match="came damaged"):
        server.fetch(f"jobs/{job.id}/files/a.bin", tmp_path / "a.bin", "0" * 64)


def test_a_name_that_leads_out_of_the_folder(tmp_path: Path) -> None:
    from bitfront.cli.remote import download

    class Evil(remote.Server):
        def get(self, path: str, **query: Any) -> Any:
            return {"items": [{"path": "../x", "sha256": ""}]}

    with pytest.raises(InvalidInput, match="do not use it"):
        download(Evil("http://127.0.0.1:1"), {"id": 1}, tmp_path / "f")
