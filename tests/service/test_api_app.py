"""The application: problems, probes, what it says of itself, what it does not load."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from bitfront import errors
from bitfront.service.actions import ACTIONS
from bitfront.service.api import create_app
from bitfront.service.api.problems import ERRORS, PAGE, STATUSES, of_error
from bitfront.service.api.settings import Settings
from bitfront.storage import Store
from bitfront.storage.jobs import Jobs
from tests.service.apis import fill, problem, serving

ROOT = Path(__file__).resolve().parents[2]


def test_probes_and_meta(database: str) -> None:
    with serving(database) as client, Store.open(database) as store:
        assert client.get("/healthz").json() == {"alive": True}
        ready = client.get("/readyz").json()
        assert ready["workers"] == {"idle": 0, "busy": 0}
        for number, lease in enumerate((60.0, 60.0, -1.0)):
            store.worker_seen(f"w{number}", "here", "0.1.0", "2026-01-01", lease)
        store.submit("search", "s", {})
        store.submit("search", "t", {})
        assert store.claim("w1", 60.0) is not None
        ready = client.get("/readyz").json()
        assert (ready["workers"], ready["queued"]) == ({"idle": 1, "busy": 1}, 1)
        workers = client.get("/api/v1/workers").json()["items"]
        assert [(w["name"], w["state"], w["job"]) for w in workers] == [
            ("w0", "idle", None), ("w1", "busy", 1), ("w2", "lost", None),
        ]  # fmt: skip
        meta = client.get("/api/v1/meta").json()
        assert meta["kinds"] == list(ACTIONS)
        assert meta["allow"] == {"hub": False, "functions": False}


def test_without_a_database_it_lives_but_is_not_ready(tmp_path: Path) -> None:
    (tmp_path / "b.db").write_text("this is no database, but a text of some length")
    with serving(str(tmp_path / "b.db")) as client:
        assert client.get("/healthz").status_code == 200
        assert "is not a database" in problem(client.get("/readyz"), 503, "unavailable")["detail"]
        problem(client.get("/api/v1/studies"), 500, "storage")
        (tmp_path / "b.db").unlink()
        assert client.get("/readyz").status_code == 200  # it is opened when it can be


def test_problems(tmp_path: Path) -> None:
    with serving(str(tmp_path / "b.db")) as client:
        problem(client.get("/nothing"), 404, "not-found")
        problem(client.get("/api/v1/nothing"), 404, "not-found")
        wrong = problem(client.get("/api/v1/jobs?limit=0"), 422, "invalid-input")
        assert wrong["errors"][0]["location"] == ["query", "limit"]
        refused = client.delete("/api/v1/jobs")
        problem(refused, 405, "method-not-allowed")
        assert refused.headers["allow"] == "GET"
        problem(client.get("/api/v1/jobs/1"), 404, "unknown-name")
        json = {"content-type": "application/json"}
        address = "/api/v1/studies/s/jobs"
        problem(client.post(address, content=b"{", headers=json), 400, "bad-request")
        problem(client.post(address, content=b"a=b"), 415, "unsupported-media-type")
        big = b'"' + b"x" * (2 << 20) + b'"'
        problem(client.post(address, content=big, headers=json), 413, "too-large")
        chunks = (big[i : i + 65536] for i in range(0, len(big), 65536))
        problem(client.post(address, content=chunks, headers=json), 413, "too-large")
        deep = b"[" * 200_000 + b"]" * 200_000
        problem(client.post(address, content=deep, headers=json), 400, "bad-request")


def test_a_bug_is_logged_under_the_id_that_the_answer_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(Jobs, "jobs", broken)
    with serving(str(tmp_path / "b.db")) as client, caplog.at_level(logging.ERROR):
        found = problem(client.get("/api/v1/jobs"), 500, "bug")
    assert "secret" not in str(found)
    assert f"bug {found['id']}" in caplog.text
    assert "the secret of the house" in caplog.text


def test_every_error_has_a_status() -> None:
    kinds = {kind for kind, *_ in ERRORS}
    assert kinds == set(errors.BitfrontError.__subclasses__())
    for kind, status, _ in ERRORS:
        assert of_error(kind("what", "remedy")).status_code == status
    passing = errors.StorageError("locked", "wait")
    passing.passing = True
    assert of_error(passing).status_code == 503


def test_every_problem_is_described() -> None:
    text = (ROOT / PAGE).read_text()
    names = {name for *_, name in ERRORS} | {name for name, _ in STATUSES.values()}
    for name in sorted(names | {"forbidden-path", "no-files"}):
        assert f'<a id="{name}"></a>' in text, name


def test_what_is_sent_runs_nothing_and_goes_nowhere(tmp_path: Path) -> None:
    with serving(str(tmp_path / "b.db")) as client:
        for address in ("/healthz", "/api/v1/studies", "/nothing"):
            headers = client.get(address).headers
            assert headers["content-security-policy"].startswith("default-src 'none';")
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"


def test_a_prefix_may_be_stripped_by_the_proxy_or_not(tmp_path: Path) -> None:
    with serving(str(tmp_path / "b.db"), prefix="/bitfront") as client:
        assert client.get("/bitfront/api/v1/studies").status_code == 200
        assert client.get("/api/v1/studies").status_code == 200
        assert client.get("/bitfrontier/api/v1/studies").status_code == 404


def test_the_server_does_without_torch(tmp_path: Path) -> None:
    """It answers queries and takes jobs; only workers load models."""
    db = tmp_path / "b.db"
    with Store.open(db) as store:
        fill(store)
    code = f"""
import sys
from pathlib import Path
from tests.service.apis import made, serving
model, data = made(Path({str(tmp_path / "m")!r})), Path({str(tmp_path / "d.txt")!r})
data.write_text("text")
settings = {{"roots": (Path({str(tmp_path)!r}),), "output": Path({str(tmp_path / "o")!r})}}
with serving({str(db)!r}, **settings) as c:
    for address in ("", "/llama", "/llama/trials/1", "/llama/front", "/llama/measurements",
                    "/llama/trials?within=attention:4bpw", "/llama/front?within=40%25"):
        found = c.get("/api/v1/studies" + address)
        assert found.status_code in (200, 422), found.text
    print(*(m for m in sys.modules if "." not in m))
    task = {{"kind": "language", "arguments": {{"model": model, "calibration": str(data)}}}}
    costs = {{"joules": {{"layers": {{"a": {{"w4": 1.0}}}}}}}}
    for study, body in (
        ("new", {{"kind": "search", "schemes": "w4", "budgets": ["4bpw"], "hold": None}}),
        ("new", {{"kind": "profile", "schemes": "w4g8", "choices": {{"costs": costs}}}}),
        ("new", {{"kind": "measure", "schemes": {{"a": "w4"}}}}),
        ("llama", {{"kind": "export", "trial": 1}}),
    ):
        done = c.post(f"/api/v1/studies/{{study}}/jobs", json={{**body, "task": task}})
        assert done.status_code == 202, done.text
    assert c.post("/api/v1/studies/llama/jobs", json={{"kind": "report"}}).status_code == 202
print(*(m for m in sys.modules if "." not in m))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    answering, taking = (set(line.split()) for line in done.stdout.splitlines())
    models = {"torch", "transformers", "diffusers", "safetensors"}
    assert answering & {*models, "scipy", "ortools", "pandas"} == set()
    assert taking & models == set()  # solvers are looked up by name


def test_the_app_is_made_of_settings_alone() -> None:
    assert create_app(Settings(db="/nowhere/b.db")).title == "Bitfront"
