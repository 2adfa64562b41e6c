"""``bitfront serve`` as a process, with a worker beside it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from bitfront.service.api import Settings
from bitfront.service.api.serving import bound
from bitfront.storage import Store
from tests import tiny
from tests.commands import Commands
from tests.service.processes import served

SOON = 120.0  # seconds in which what is waited for must have come
TOKEN = "a-token-for-everything"


def test_a_job_from_request_to_result(tmp_path: Path) -> None:
    """Submitted, done by the worker beside the server, followed, fetched; and then the end."""
    (tmp_path / "net.py").write_text(tiny.CODE)
    words = ("--root", str(tmp_path), "--allow-functions", "--output", str(tmp_path / "out"))
    with served(tmp_path, *words, "--worker", token=TOKEN) as (address, process):
        headers = {"authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=f"{address}/api/v1", headers=headers, timeout=SOON) as client:
            task = {"kind": "module", "arguments": {"function": "net.py:task"}}
            body: dict[str, Any] = {"kind": "measure", "schemes": {"conv": "w4"}, "task": task}
            done = client.post("/studies/s/jobs", json=body)
            assert done.status_code == 202, done.text
            assert end(client, done.headers["location"])["state"] == "succeeded"
            for body in ({"kind": "export", "trial": 1}, {"kind": "report"}):
                done = client.post("/studies/s/jobs", json=body)
                assert done.status_code == 202, done.text
                job = end(client, done.headers["location"])
                assert job["state"] == "succeeded", job
                files = client.get(f"/jobs/{job['id']}/files").json()["items"]
                assert files
                for file in files:
                    got = client.get(f"/jobs/{job['id']}/files/{file['path']}")
                    assert len(got.content) == file["bytes"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(SOON) == 0
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert TOKEN not in log
    assert "POST /api/v1/studies/s/jobs 202" in log
    with Store.open(tmp_path / "b.db") as store:
        assert [job.state for job in store.jobs()] == ["succeeded"] * 3


def end(client: httpx.Client, location: str) -> dict[str, str]:
    """Follow a job to its end, as a browser would; the job."""
    stream = {"accept": "text/event-stream"}
    address = location.removeprefix("/api/v1") + "/events"
    with client.stream("GET", address, headers=stream) as lines:
        last = ""
        for line in lines.iter_lines():
            last = line or last
    found: dict[str, str] = json.loads(last.removeprefix("data: "))
    return found


def test_a_stream_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with Store.open(tmp_path / "b.db") as store:
        store.submit("search", "s", {})
    with served(tmp_path, token=TOKEN) as (address, process):
        headers = {"authorization": f"Bearer {TOKEN}", "accept": "text/event-stream"}
        with httpx.stream("GET", f"{address}/api/v1/jobs/1/events", headers=headers) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith(":")
            process.send_signal(signal.SIGTERM)
            assert not any(line.startswith("event: end") for line in lines)
        assert process.wait(SOON) == 0
    assert "timeout graceful shutdown exceeded" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "host '0.0.0.0' without a token"),
        (["--root", "/nowhere"], "root '/nowhere' is no folder"),
        (["--token-file", "/nowhere"], "cannot read the token in '/nowhere'"),
        (["--path-prefix", "bitfront"], "path prefix 'bitfront': write it like /bitfront"),
    ],
)
def test_what_cannot_be_served(
    bitfront: Commands, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BITFRONT_TOKEN", raising=False)
    monkeypatch.delenv("BITFRONT_READ_TOKEN", raising=False)
    assert said in bitfront.refused("serve", *words)


def test_parts_of_an_answer_do_not_wait_for_each_other() -> None:
    with bound(Settings(port=0)) as listening, socket.socket() as client:
        client.connect(listening.getsockname())
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_that_is_taken(bitfront: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "choose another host or port" in bitfront.refused("serve", "--port", port)


@pytest.mark.parametrize("name", ["fastapi", "uvicorn"])
def test_without_its_packages(tmp_path: Path, name: str) -> None:
    code = f"import sys; sys.modules[{name!r}] = None; from bitfront.cli import main; main()"
    words = ["serve", "--db", str(tmp_path / "b.db")]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    line = f"error: the service needs {name}: run pip install 'bitfront[service]'"
    assert (done.returncode, done.stderr.strip()) == (2, line)
