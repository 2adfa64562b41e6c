"""Export and report jobs whose worker is killed: what it left is replaced, and nothing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bitfront
from bitfront.errors import ExportError
from bitfront.files import PARTIAL
from bitfront.quant.folders import MANIFEST, new_folder
from bitfront.service.worker import Worker
from bitfront.storage import Store
from bitfront.tasks import ModuleTask
from tests import tiny

SOON = 60.0  # seconds
KILLED = """
import sys
from pathlib import Path
from bitfront.quant.folders import new_folder
with new_folder(Path(sys.argv[1])) as partial:
    (partial / "half").write_text("half")
    print(partial, flush=True)
    sys.stdin.read()
"""


def partial(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(PARTIAL)]


def test_a_killed_export_is_written_again(tmp_path: Path) -> None:
    db, target = str(tmp_path / "b.db"), tmp_path / "out" / "export-1"
    target.parent.mkdir()
    tiny.code(tmp_path / "net.py")
    with bitfront.open_study("s", ModuleTask(f"{tmp_path / 'net.py'}:task"), db) as study:
        (answer,) = bitfront.search(study, "w4 w8", ["5bpw"], verify=False, explore=0)
    request = {"trial": answer.trial.id, "folder": str(target), "overwrite": True}
    with Store.open(db) as store:
        job, _ = store.submit("export", "s", request)
        code = "from bitfront.cli import main; main()"
        words = ["worker", "--db", db, "--lease", "1"]
        process = subprocess.Popen([sys.executable, "-c", code, *words])
        until = time.monotonic() + SOON
        while not partial(target.parent) and time.monotonic() < until:
            time.sleep(0.01)
        process.kill()
        assert process.wait(SOON) == -signal.SIGKILL
        assert len(partial(target.parent)) == 1
        assert not target.exists()
        while store.job(job.id).state != "succeeded" and time.monotonic() < until:
            Worker(db).run(idle=False)
            time.sleep(0.05)  # until its lease has run out
        assert store.job(job.id).state == "succeeded"
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert (target / MANIFEST).is_file()


def test_a_folder_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(target)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        with new_folder(target) as mine:
            (mine / "a").write_text("a")
        assert (left / "half").is_file()
        other = tmp_path / ".out2.01234567.partial"
        other.mkdir()
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ExportError, match="not empty"), new_folder(target):
        pass
    (target / "a").unlink()
    with new_folder(target) as mine:
        (mine / "b").write_text("b")
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "out"]
    assert [path.name for path in target.iterdir()] == ["b"]


def test_a_killed_report_leaves_nothing(tmp_path: Path) -> None:
    db, page = str(tmp_path / "b.db"), tmp_path / "report-1" / "report.html"
    page.parent.mkdir()
    (page.parent / f".report.html.0123abcd{PARTIAL}").write_text("<html>half")
    with Store.open(db) as store:
        store.open_study("s", {"weights": "sha256:0"}, {"metrics": {"kl": {"better": "lower"}}})
        job, _ = store.submit("report", "s", {"html": str(page)})
        assert Worker(db).run(idle=False) == 1
        assert store.job(job.id).state == "succeeded"
    assert [path.name for path in page.parent.iterdir()] == [page.name]
