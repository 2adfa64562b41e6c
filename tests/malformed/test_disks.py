"""Disks that are full or read-only."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bitfront.storage import Store
from tests.commands import Commands
from tests.malformed.cases import (
    AGAIN,
    FULL,
    MODULE,
    Make,
    command,
    contents,
    export,
    refusal,
    trials,
    typed,
)


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    """A disk of two megabytes, mounted in the folder of good files."""
    where = folder / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(where)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("NOT TESTED: full and read-only disks; only root may mount a tmpfs")
    yield where
    subprocess.run(["umount", str(where)], check=True)


def fill(disk: Path, free: int = 0) -> None:
    """Leave so many bytes."""
    with (disk / "ballast").open("wb", buffering=0) as file:
        while shutil.disk_usage(disk).free > free:
            file.write(bytes(4096))


ON_FULL_DISK: dict[str, tuple[Make, str, int]] = {  # and the bytes that are left
    "table of a front": (
        command("front", "m", csv="@/disk/f.csv"),
        rf"f\.csv: No space left on device: {FULL}",
        0,
    ),
    "page of a front": (
        command("front", "m", html="@/disk/f.html"),
        rf"f\.html: No space left on device: {FULL}",
        50_000,
    ),
    "table of a profile": (
        command("profile", "m", schemes="w4 w8", csv="@/disk/t.csv"),
        rf"t\.csv: No space left on device: {FULL}",
        0,
    ),
    "export": (
        export(to="@/disk/out"),
        rf"cannot write 'out' \(No space left on device\): {FULL}",
        0,
    ),
    "half an export": (
        export("l", "#l", to="@/disk/out"),
        rf"cannot write 'out' \(No space left on device\): {FULL}",
        12_000,
    ),
}


@pytest.mark.parametrize("case", ON_FULL_DISK)
def test_a_full_disk(
    case: str, begun: Commands, folder: Path, disk: Path, studies: tuple[Path, dict[str, int]]
) -> None:
    make, line, free = ON_FULL_DISK[case]
    fill(disk, free)
    before, known = contents(folder), trials(begun)
    refusal(begun, [studies[1].get(str(word), word) for word in make(folder)], line)
    assert contents(folder) == before
    assert trials(begun) == known


def test_a_demo_on_a_full_disk(bitfront: Commands, folder: Path, disk: Path) -> None:
    fill(disk)
    words = typed(folder, ["demo", "--out", "@/disk/demo"], {})
    refusal(bitfront, words, "database '.*bitfront.db' cannot grow: the disk or its quota is full")
    assert [path.name for path in (disk / "demo").iterdir()] in ([], ["bitfront.db"])


@pytest.mark.parametrize("free", [0, 600_000], ids=["at once", "on the way"])
def test_a_disk_too_full_for_the_database(
    free: int, bitfront: Commands, folder: Path, disk: Path
) -> None:
    """What was recorded until then is whole, and the search goes on when there is room."""
    fill(disk, free)
    options = {**MODULE, "schemes": "w2 w3 w4 w5 w6 w8", "db": "@/disk/a.db"}
    words = typed(folder, ["search", "s"], options)
    before = contents(folder).keys()
    refusal(bitfront, words, "database '.*a.db' cannot grow: the disk or its quota is full: make")
    left = {Path(path).name for path in contents(folder).keys() - before}
    assert left <= {"a.db", "a.db-wal", "a.db-shm"}
    (disk / "ballast").unlink()
    if free:
        with closing(sqlite3.connect(disk / "a.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with Store.open(disk / "a.db") as store:
            assert all(t.costs and t.metrics for t in store.trials(store.study("s")))
    bitfront.ok(*words)


def test_a_read_only_disk(
    begun: Commands, folder: Path, disk: Path, studies: tuple[Path, dict[str, int]]
) -> None:
    shutil.copy(begun.db, disk / "a.db")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    before, known = contents(folder), trials(begun)
    trial, read_only = studies[1]["#m"], "database '.*a.db' is read-only: change its permissions"
    for words, line in (
        (["front", "m", "--db", "@/disk/a.db"], read_only),
        ([*typed(folder, ["search", "m"], AGAIN), "--db", "@/disk/a.db"], read_only),
        (["front", "m", "--db", "@/disk/b.db"], "b.db' cannot be opened: check that its folder"),
        (["front", "m", "--csv", "@/disk/f.csv"], r"f\.csv: Read-only file system: choose another"),
        (["export", "m", trial, "@/disk/out"], r"write 'out' \(Read-only file system\): choose"),
        (["demo", "--out", "@/disk/demo"], "demo: Read-only file system: choose another place"),
    ):
        refusal(begun, typed(folder, words, {}), line)
    assert contents(folder) == before
    assert trials(begun) == known
