"""Where a database is, and the one clear line for each that cannot be used."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bitfront.errors import StorageError
from bitfront.storage import Store
from bitfront.storage.engine import locate
from bitfront.types import Estimate, Measurement


def refusal(where: str | Path, timeout: float = 0.2) -> str:
    """The one line that opening ``where`` is refused with."""
    with pytest.raises(StorageError) as caught:
        Store.open(where, timeout)
    line = str(caught.value)
    assert "\n" not in line
    assert ": " in line  # what, then remedy
    return line


# where


def test_the_default_is_the_environment_then_the_users_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BITFRONT_DB", str(tmp_path / "mine.db"))
    assert locate(None).database == str(tmp_path / "mine.db")
    monkeypatch.delenv("BITFRONT_DB")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    path = Path(str(locate(None).database))
    assert path.name == "bitfront.db"
    assert path.parent.name == "bitfront"
    assert tmp_path in path.parents
    Store.open(None).close()
    assert path.exists()


def test_a_path_is_taken_as_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    odd = tmp_path / "50% of, ünï?x=1#.db"
    assert locate("a.db").database == locate("sqlite:///a.db").database == str(tmp_path / "a.db")
    assert locate("~/a.db").database == str(tmp_path / "a.db")
    for where in (odd, str(odd)):
        Store.open(where).close()
    assert [p.name for p in tmp_path.iterdir()] == [odd.name]


def test_folders_are_made(tmp_path: Path) -> None:
    Store.open(tmp_path / "a" / "b" / "c.db").close()
    assert (tmp_path / "a" / "b" / "c.db").exists()


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    Store.open(tmp_path / "a.db").close()


def test_a_database_shared_with_optuna(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as other:
        other.executescript("CREATE TABLE alembic_version (x); CREATE TABLE trials (x)")
    for _ in range(2):
        Store.open(tmp_path / "a.db").close()


# what cannot be used


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("sqlite://", "would be lost at exit: name a file"),
        ("sqlite:///:memory:", "would be lost at exit: name a file"),
        ("mysql://root@localhost/x", "a database of kind 'mysql' is not supported: give a path"),
        ("postgresql://host:port/x", "the database's URL cannot be read: give a path"),
    ],
)
def test_urls_that_cannot_be_used(where: str, line: str) -> None:
    assert line in refusal(where)


def test_a_folder_is_not_a_database(tmp_path: Path) -> None:
    assert "is a folder: name a file in it" in refusal(tmp_path)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    assert "cannot be made" in refusal(tmp_path / "file" / "a.db")


def test_a_file_that_is_not_a_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database\n" * 1000)
    assert "is not a database: name another file" in refusal(path)
    assert path.read_text() == "not a database\n" * 1000
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_another_programs_tables_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE study (title TEXT)")
    assert "has a table 'study' that is not Bitfront's: name another database" in refusal(path)
    with closing(sqlite3.connect(path)) as other:
        names = other.execute("SELECT name FROM sqlite_master").fetchall()
    assert names == [("study",)]


def test_a_truncated_database(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Store.open(path).close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    assert "is damaged: restore it from a copy" in refusal(path)


def test_damage_that_shows_later(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    units = [
        Measurement("fisher", "k", f"layer.{i}", "w4", {"kl": Estimate(0.1, 0.0, 1)})
        for i in range(500)
    ]
    with Store.open(path) as store:
        store.add_measurements(store.open_study("a", {}, {}), units)
        study = store.study("a")
    with closing(sqlite3.connect(path)) as other:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'measurement'"
        (root,) = other.execute(query).fetchone()
        (size,) = other.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    with Store.open(path) as store, pytest.raises(StorageError, match="is damaged: restore it"):
        store.measurements(study)


def test_a_newer_schema_is_refused(database: str) -> None:
    with Store.open(database) as store, store.writing() as connection:
        connection.exec_driver_sql("UPDATE bitfront_version SET version_num = '9999'")
    line = refusal(database)
    assert "has schema 9999, this Bitfront knows up to " in line
    assert "update Bitfront" in line


def test_a_locked_database_is_waited_for_then_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Store.open(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        assert "is locked: another program is writing to it" in refusal(path, timeout=0.3)
        assert 0.25 < time.monotonic() - begun < 5
        other.execute("ROLLBACK")
        Store.open(path, timeout=0.3).close()


def test_a_database_that_gets_locked_later(database: str) -> None:
    with Store.open(database) as holder, Store.open(database, timeout=0.2) as store:
        study = store.open_study("a", {}, {})
        with holder.writing(study) as connection:
            connection.exec_driver_sql("UPDATE study SET name = 'a'")
            with pytest.raises(StorageError, match="is locked"):
                store.open_study("a", {}, {})
            assert store.study("a") == study  # readers do not wait
        assert store.open_study("a", {}, {}) == study


@pytest.fixture
def frozen_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with a database ``a.db``, that nobody can write to."""
    folder = tmp_path / "frozen"
    folder.mkdir()
    if os.geteuid():
        Store.open(folder / "a.db").close()
        (folder / "a.db").chmod(0o444)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    mount = shutil.which("mount")  # permissions do not stop root, a read-only mount does
    command = [str(mount), "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("cannot make a read-only folder: root may not mount here")
    Store.open(folder / "a.db").close()
    subprocess.run([mount, "-o", "remount,ro", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_file(frozen_folder: Path) -> None:
    assert "is read-only: change its permissions" in refusal(frozen_folder / "a.db")


def test_a_read_only_folder(frozen_folder: Path) -> None:
    line = refusal(frozen_folder / "new.db")
    assert "cannot be opened: check that its folder exists and can be written to" in line
    assert "cannot be made" in refusal(frozen_folder / "folder" / "new.db")


def test_no_such_server() -> None:
    line = refusal("postgresql://someone:secret@127.0.0.1:1/nothing")
    assert "'postgresql://someone:***@127.0.0.1:1/nothing' cannot be reached" in line
    assert "secret" not in line


def test_no_such_database_on_the_server(postgres: str) -> None:
    server = postgres.partition("?")[0].rpartition("/")[0]
    assert "cannot be reached" in refusal(f"{server}/bitfront_nothing")
    assert "does not exist" in refusal(f"{server}/bitfront_nothing")


def test_no_schema_to_write_to(postgres: str) -> None:
    assert "has no schema to write to" in refusal(postgres + "_nothing")


# many at once

# Forks processes that all wait for a pipe to close, and then open the database at once.
OPENERS = """
import os, sys
from bitfront.storage import Store
gate, lever = os.pipe()
children = []
for i in range(6):
    child = os.fork()
    if not child:
        os.close(lever)
        os.read(gate, 1)
        with Store.open(sys.argv[1]) as store:
            study = store.open_study("shared", {"weights": "same"}, {"by": i})
        print(study.id, study.settings["by"])
        sys.exit()
    children.append(child)
os.close(lever)
sys.exit(max(os.waitpid(child, 0)[1] for child in children) != 0)
"""


def test_processes_that_create_the_same_database_do_not_race(database: str) -> None:
    command = [sys.executable, "-c", OPENERS, database]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    answers = done.stdout.splitlines()
    assert len(answers) == 6
    assert len(set(answers)) == 1
