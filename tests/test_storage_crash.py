"""What survives: a writer that is killed, and a disk that is full."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bitfront.errors import StorageError
from bitfront.storage import Store, StudyRecord
from bitfront.types import Estimate, Measurement

BATCH = 5
VECTOR = np.arange(64.0)


def batch(number: int) -> list[Measurement]:
    """What the writer records in one call; the same batch holds the same measurements."""
    return [
        Measurement(
            "fisher", "k", f"{number}.{i}", "w4", {"kl": Estimate(number, 0.0, 1)}, {"s": VECTOR}
        )
        for i in range(BATCH)
    ]


# For each number on standard input, forks a writer that begins there and goes on until killed.
WRITERS = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from bitfront.storage import Store
from bitfront.types import Estimate, Trial
from test_storage_crash import VECTOR, batch

def write(begin):
    with Store.open(sys.argv[1]) as store:
        study = store.open_study("a", {{}}, {{}})
        print(os.getpid(), flush=True)
        for number in range(begin, 10**6):
            store.add_checkpoint(study, f"pass {{number}}", 0, {{"s": VECTOR}})
            store.finish_pass(study, f"pass {{number}}", batch(number))
            trial = Trial({{"a": f"w{{number}}", "b": "w4"}}, "ilp", 0.0, 0.0, {{"bytes": 1.0}},
                          {{"kl": Estimate(0.0, 0.0, 1)}}, 0.0)
            store.add_trial(study, trial)
            # one write, which no kill divides; print makes two where Python does not buffer
            os.write(1, b"%d\\n" % number)

for line in sys.stdin:
    child = os.fork()
    if not child:
        write(int(line))
    os.waitpid(child, 0)
    print("killed", flush=True)
"""


def test_a_killed_writer_loses_and_doubles_nothing(database: str) -> None:
    rng = random.Random(0)
    reported = -1
    command = [sys.executable, "-c", WRITERS, database]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as writers:
        assert writers.stdin is not None
        assert writers.stdout is not None
        for turn in range(20):
            # resuming repeats the last number: it is recorded once all the same
            print(max(reported, 0), file=writers.stdin, flush=True)
            pid = int(writers.stdout.readline())
            if turn % 4 == 0:  # however slow the machine is, some get as far as to report
                reported = max(reported, int(writers.stdout.readline()))
            time.sleep(rng.uniform(0.0, 0.1))
            os.kill(pid, signal.SIGKILL)
            for line in iter(writers.stdout.readline, "killed\n"):
                reported = max(reported, int(line))
    assert reported >= 1
    with Store.open(database) as store:
        study = store.study("a")
        found = store.measurements(study, vectors=True)
        counts = Counter(int(m.layer.split(".")[0]) for m in found)
        assert set(counts.values()) == {BATCH}  # each batch whole or not at all
        assert set(range(reported + 1)) <= counts.keys()  # all that was reported is there
        assert len({m.layer for m in found}) == len(found)
        assert all(len(m.values) == len(m.vectors) == 1 for m in found)
        trials = store.trials(study)
        written = [f"w{i}" for i in range(len(trials))]
        assert [t.schemes["a"] for t in trials] == written
        assert len(trials) > reported
        assert all(len(t.schemes) == 2 and t.costs and t.metrics for t in trials)
        left = [i for i in counts if store.checkpoints(study, f"pass {i}")]
        assert set(left) <= {reported + 1}  # begun again by a writer that was killed right then
    if "://" not in database:
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def fill(store: Store, study: StudyRecord, most: int) -> int:
    """Write until the database refuses; how many batches are in it."""
    for number in range(most):
        try:
            store.add_measurements(study, batch(number))
        except StorageError as refusal:
            message = str(refusal)
            break
    assert "cannot grow: the disk or its quota is full" in message
    return number


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db") as store:
        study = store.open_study("a", {}, {})
        with store.reading() as connection:  # the pool hands the same connection out again
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 20}")
        written = fill(store, study, 500)
        assert len(store.measurements(study)) == written * BATCH
    with Store.open(tmp_path / "a.db") as store:
        assert store.add_measurements(study, batch(written)) == BATCH


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("cannot make a small disk: only root may mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full(small_disk: Path, tmp_path: Path) -> None:
    path = small_disk / "a.db"
    with Store.open(path) as store:
        study = store.open_study("a", {}, {})
        written = fill(store, study, 500)
        assert written > 0
        assert len(store.measurements(study)) == written * BATCH
    for file in small_disk.glob("a.db*"):  # on a full disk, rows stay in the log beside the file
        shutil.copy(file, tmp_path)
    with Store.open(tmp_path / "a.db") as store:
        assert len(store.measurements(study)) == written * BATCH
        assert store.add_measurements(study, batch(written)) == BATCH


def test_a_database_that_does_not_fit_at_all(small_disk: Path) -> None:
    with (small_disk / "ballast").open("wb", buffering=0) as file:
        while shutil.disk_usage(small_disk).free:
            file.write(bytes(4096))
    with pytest.raises(StorageError, match="cannot grow: the disk or its quota is full"):
        Store.open(small_disk / "a.db")
