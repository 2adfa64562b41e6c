"""What a job may load: nothing outside of the roots, nothing pickled, no code, unless allowed."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import pytest

from bitfront.errors import Forbidden, InvalidInput
from bitfront.service.policy import NAMED, PLAIN, Policy
from bitfront.service.worker import Worker
from bitfront.storage import Store
from bitfront.tasks import TASKS, task_class
from tests import tiny
from tests.commands import Commands
from tests.service.apis import made, problem, serving


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    made(root / "model")
    (tmp_path / "outside").mkdir()
    for folder in (root, tmp_path / "outside"):
        for name in ("text.txt", "net.py", "images.npz", "w.safetensors", "w.pt"):
            (folder / name).write_text("")
    return root


def policy(root: Path, **settings: Any) -> Policy:
    return Policy((root,), **settings)


@pytest.mark.parametrize("kind", TASKS)
def test_every_argument_of_every_task_is_known(kind: str) -> None:
    """A new argument that names a file must be put into the table before it can be used."""
    taken = set(inspect.signature(task_class(kind)).parameters)
    assert set(NAMED[kind]) | PLAIN[kind] == taken
    assert not set(NAMED[kind]) & PLAIN[kind]


def test_the_tables_have_every_kind() -> None:
    assert set(NAMED) == set(PLAIN) == set(TASKS)


def test_files_under_the_roots(root: Path) -> None:
    given = {"model": "model", "calibration": ["text.txt", str(root / "text.txt")], "samples": 3}
    found = policy(root).arguments("language", given, {})
    text = str(root / "text.txt")
    assert found == {"model": str(root / "model"), "calibration": [text, text], "samples": 3}
    images = {"calibration": "images.npz:x,y", "weights": "w.safetensors"}
    found = policy(root).arguments("vision", images, {})
    assert found["calibration"] == f"{root / 'images.npz'}:x,y"
    assert found["weights"] == str(root / "w.safetensors")


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("language", "calibration", "../outside/text.txt"),
        ("language", "calibration", "/etc/passwd"),
        ("language", "calibration", ["text.txt", "/etc/passwd"]),
        ("language", "evaluation", "link.txt"),
        ("language", "evaluation", "folder/text.txt"),
        ("language", "model", "../outside"),
        ("language", "model", "leaky"),
        ("language", "tokenizer", "leaky"),
        ("language", "model", "org/name"),
        ("language", "tokenizer", "name"),
        ("language", "calibration", "hub:org/data"),
        ("vision", "model", "net.py:Net"),
        ("vision", "weights", "w.pt"),
        ("vision", "weights", "../outside/w.safetensors"),
        ("vision", "calibration", "../outside/images.npz:x,y"),
        ("diffusion", "model", "net.py:make"),
        ("diffusion", "score", "net.py:score"),
        ("diffusion", "calibration", "../outside/text.txt"),
        ("module", "function", "net.py:task"),
        ("language", "trust_remote_code", True),
    ],
)
def test_what_is_not_allowed(root: Path, kind: str, name: str, value: Any) -> None:
    (root / "link.txt").symlink_to(root.parent / "outside" / "text.txt")
    (root / "folder").symlink_to(root.parent / "outside")
    made(root / "leaky")
    (root / "leaky" / "tokenizer.json").symlink_to(root.parent / "outside" / "text.txt")
    with pytest.raises(Forbidden):
        policy(root).arguments(kind, {name: value}, {})
    if name != "trust_remote_code":
        with pytest.raises(Forbidden):  # what a study has recorded is no way around
            policy(root).arguments(kind, {}, {name: value})


def test_what_the_operator_allows(root: Path) -> None:
    hub = policy(root, allow_hub=True)
    given = {"model": "org/name", "calibration": "hub:org/data:en:test", "tokenizer": "t"}
    assert hub.arguments("language", given, {}) == given
    functions = policy(root, allow_functions=True)
    found = functions.arguments("module", {"function": "net.py:task"}, {})
    assert found == {"function": f"{root / 'net.py'}:task"}
    with pytest.raises(Forbidden):
        functions.arguments("module", {"function": "../outside/net.py:task"}, {})
    for one in (hub, functions):
        with pytest.raises(Forbidden):
            one.arguments("language", {"trust_remote_code": True}, {})
    both = policy(root, allow_hub=True, allow_functions=True)
    assert both.arguments("language", {"trust_remote_code": True}, {})


def test_without_roots_there_are_no_paths(root: Path) -> None:
    for path in ("model", str(root / "model"), "/", "."):
        with pytest.raises(Forbidden):
            Policy(()).arguments("language", {"model": path}, {})


@pytest.mark.parametrize("weights", ["pytorch_model.bin", None])
def test_a_model_whose_weights_are_pickled(root: Path, weights: str | None) -> None:
    (root / "model" / "model.safetensors").unlink()
    if weights:
        (root / "model" / weights).write_text("")
    with pytest.raises(InvalidInput, match="no pickle is read"):
        policy(root).arguments("language", {"model": "model"}, {})


@pytest.mark.parametrize(
    "value", ["", "missing.txt", "~/text.txt", "a\nb", 3, {}, [], [[]], ["text.txt", 3]]
)
def test_what_is_no_path(root: Path, value: Any) -> None:
    with pytest.raises(InvalidInput):
        policy(root).arguments("language", {"calibration": value}, {})


def test_a_root_may_be_a_link(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    assert policy(link).path("text.txt") == os.path.realpath(root / "text.txt")


def test_a_study_of_files_outside_is_not_worked_on(root: Path) -> None:
    db = str(root.parent / "b.db")
    recipe = {"kind": "language", "model": "/etc", "calibration": "/etc/passwd"}
    with Store.open(db) as store:
        store.open_study("s", {}, {"recipe": recipe})
    with serving(db, roots=(root,)) as client:
        body: dict[str, Any] = {"kind": "search", "schemes": "w4", "budgets": ["4bpw"]}
        problem(client.post("/api/v1/studies/s/jobs", json=body), 403, "forbidden-path")
        body["task"] = {"arguments": {"model": "model", "calibration": "text.txt"}}
        assert client.post("/api/v1/studies/s/jobs", json=body).status_code == 202


def test_a_worker_looks_again_when_it_opens_a_task(tmp_path: Path) -> None:
    """What a path leads to may have changed since the job was submitted."""
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "other.py").write_text(tiny.CODE)
    (root / "net.py").symlink_to(tmp_path / "other.py")
    db, name = str(tmp_path / "b.db"), "net.py"  # of the root's, wherever the worker runs
    request = {
        "schemes": "w4", "profiler": {"name": "mse"},
        "task": {"kind": "module", "arguments": {"function": f"{name}:task"}},
    }  # fmt: skip
    with Store.open(db) as store:
        job, _ = store.submit("profile", "s", request)
        for functions, why in ((False, "is not allowed here"), (True, "is not under a root")):
            checked = Policy((root,), allow_functions=functions)
            assert Worker(db, policy=checked).run(idle=False) == 1
            failed = store.job(job.id)
            assert failed.state == "failed"
            assert failed.error is not None
            assert why in failed.error["text"]
            assert store.names() == []
            store.move(job.id, "resume")
        (root / "net.py").unlink()
        (root / "net.py").write_text(tiny.CODE)
        assert Worker(db, policy=checked).run(idle=False) == 1
        assert store.job(job.id).state == "succeeded"
        later, _ = store.submit("profile", "s", {"schemes": "w2", "profiler": {"name": "mse"}})
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        assert Worker(db, policy=Policy((elsewhere,), allow_functions=True)).run(idle=False) == 1
        assert store.job(later.id).state == "failed"  # what the study has recorded


def test_what_a_worker_s_options_need(bitfront: Commands, tmp_path: Path) -> None:
    said = bitfront.refused("worker", "--once", "--allow-hub")
    assert "--allow-hub without --root: add --root" in said
    assert "is no folder" in bitfront.refused("worker", "--once", "--root", tmp_path / "none")
    done = bitfront.ok("worker", "--once", "--root", tmp_path, "--allow-functions")
    assert "0 jobs driven" in done.out
