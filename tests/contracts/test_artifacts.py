"""What artifacts must do on every database: whole files, found by content, lost never."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import select

from bitfront.errors import BitfrontWarning, InvalidInput, StorageError, UnknownName
from bitfront.files import PARTIAL
from bitfront.storage import Collected, Store, StudyRecord
from bitfront.storage.arrays import pack_many
from bitfront.storage.artifacts import LARGE, referring
from bitfront.storage.folder import Folder
from bitfront.storage.models import ArtifactRow, CheckpointRow
from bitfront.types import Estimate, Measurement, Trial
from tests.disk import file_limit

HEADER = 128  # bytes before the numbers in an .npy file
BIG = np.arange(10_000.0)  # 80 KB


@pytest.fixture
def folder(database: str, tmp_path: Path) -> Path:
    """The database's own, in a folder that others might share."""
    with Store.open(database, artifacts=tmp_path / "files") as opened:
        assert opened.folder is not None
        assert opened.folder.path.parent == tmp_path / "files"
        return opened.folder.path


@pytest.fixture
def store(database: str, folder: Path) -> Iterator[Store]:
    with Store.open(database, artifacts=folder.parent) as opened:
        yield opened


@pytest.fixture
def other(database: str, folder: Path) -> Iterator[Store]:
    """Another opening of the same database, as another process has it."""
    with Store.open(database, artifacts=folder.parent) as opened:
        yield opened


@pytest.fixture
def study(store: Store) -> StudyRecord:
    return store.open_study("llama", {}, {})


def measurement(layer: str = "a", **vectors: NDArray[Any]) -> Measurement:
    return Measurement("fisher", "k", layer, "w4", {"kl": Estimate(0.5, 0.1, 8)}, vectors)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def rows(store: Store) -> dict[str, int]:
    """Hash -> bytes."""
    with store.reading() as connection:
        return dict(connection.execute(select(ArtifactRow.hash, ArtifactRow.bytes)).all())


def age(path: Path, seconds: float) -> None:
    moment = path.stat().st_mtime - seconds
    os.utime(path, (moment, moment))


# arrays


def test_equal_arrays_are_the_same_bytes_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found = pack_many({"a": BIG, "b": BIG[:9]}, "x")
    monkeypatch.setattr(time, "time", lambda: 2e9)
    assert pack_many({"a": BIG, "b": BIG[:9]}, "x") == found


def test_large_arrays_of_every_kind_come_back(
    store: Store, study: StudyRecord, other: Store, folder: Path
) -> None:
    for number in range(2):  # a second time, they are there already
        store.add_measurements(study, [measurement(big=BIG, small=BIG[:9])])
        store.add_checkpoint(study, "pass", 0, {"a": BIG, "b": BIG[:9]})
        trial = Trial({"a": "w4"}, "ilp", 0.0, 0.0, {}, {}, 0.0)
        id = store.add_trial(study, trial, "", {"big": BIG + 1, "small": BIG[:9]}).id
        assert (number, len(files(folder)), len(rows(store))) == (number, 3, 3)
    vectors = other.measurements(study, vectors=True)[0].vectors
    part = other.checkpoints(study, "pass")[0]
    of_trial = other.trial_vectors(study, id)
    for found, expected in (
        (vectors["big"], BIG), (part["a"], BIG), (of_trial["big"], BIG + 1),
        (vectors["small"], BIG[:9]), (part["b"], BIG[:9]), (of_trial["small"], BIG[:9]),
    ):  # fmt: skip
        assert found.tobytes() == expected.tobytes()
        assert not found.flags.writeable


def test_a_file_is_named_by_its_content(store: Store, study: StudyRecord, folder: Path) -> None:
    store.add_measurements(study, [measurement(big=BIG)])
    (path,) = files(folder)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path == folder / digest[:2] / digest
    assert rows(store) == {digest: path.stat().st_size}
    assert store.artifact(digest).media_type == "application/x-npy"
    np.testing.assert_array_equal(np.load(path), BIG)


def test_arrays_from_64_kib_on_go_to_files(store: Store, study: StudyRecord, folder: Path) -> None:
    least = np.zeros(LARGE - HEADER, np.uint8)
    store.add_measurements(study, [measurement(s=least[1:])])
    assert files(folder) == []
    assert not folder.exists()
    store.add_measurements(study, [measurement("b", s=least)])
    assert [path.stat().st_size for path in files(folder)] == [LARGE] == [65536]
    with store.reading() as connection:
        query = "SELECT data IS NULL, artifact IS NULL FROM measurement_vector ORDER BY 1"
        found = [tuple(map(bool, row)) for row in connection.exec_driver_sql(query)]
    assert found == [(False, True), (True, False)]


def test_the_same_content_is_kept_once(store: Store, study: StudyRecord, folder: Path) -> None:
    many = [measurement(f"layer.{i}", a=BIG, b=BIG.copy()) for i in range(20)]
    assert store.add_measurements(study, many) == 20
    assert len(files(folder)) == len(rows(store)) == 1


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(0, 25_000) | st.integers((LARGE - HEADER) // 8 - 2, (LARGE - HEADER) // 8 + 2),
    kind=st.sampled_from(["f8", ">f8", "i8", "c16", "f2", "u1", "M8[s]"]),
    columns=st.sampled_from([None, 1, 2]),
)
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
def test_any_array_comes_back_bit_for_bit(
    seed: int, size: int, kind: str, columns: int | None, store: Store, study: StudyRecord
) -> None:
    dtype = np.dtype(kind)
    whole = size * 8 // (16 * dtype.itemsize) * 16
    array = np.frombuffer(np.random.default_rng(seed).bytes(whole * dtype.itemsize), dtype)
    if columns is not None:
        array = array.reshape(-1, columns)[:, ::-1]
    store.drop_checkpoints(study, "pass")
    store.add_checkpoint(study, "pass", 0, {"s": array})
    found = store.checkpoints(study, "pass")[0]["s"]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()


# where


def test_the_folder_of_sqlite_is_beside_the_file(tmp_path: Path) -> None:
    path, link = tmp_path / "a.db", tmp_path / "link.db"
    with Store.open(path) as store:
        study = store.open_study("s", {}, {})
        store.add_measurements(study, [measurement(big=BIG)])
    assert len(files(tmp_path / "a.db.artifacts")) == 1
    link.symlink_to(path)
    shutil.copy(path, tmp_path / "b.db")
    shutil.copytree(tmp_path / "a.db.artifacts", tmp_path / "b.db.artifacts")
    for same in (link, tmp_path / "b.db"):
        with Store.open(same) as store:
            assert store.measurements(study, vectors=True)[0].vectors["big"].shape == BIG.shape
    shutil.copy(path, tmp_path / "alone.db")
    with Store.open(tmp_path / "alone.db") as store:
        assert store.measurements(study)[0].layer == "a"
        with pytest.raises(StorageError, match=r"alone\.db\.artifacts.* is missing: restore it"):
            store.measurements(study, vectors=True)


def test_the_folder_of_postgresql_is_in_the_environment(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BITFRONT_ARTIFACTS", raising=False)
    with Store.open(postgres) as store:
        study = store.open_study("s", {}, {})
        store.add_measurements(study, [measurement(big=BIG)])
        assert rows(store) == {}
        for ask in (
            lambda: store.put_artifact(b"x", "text/plain"), store.collect,
            lambda: store.open_artifact("ab"),
        ):  # fmt: skip
            with pytest.raises(StorageError, match="no artifact folder here: set BITFRONT_ARTIF"):
                ask()
    monkeypatch.setenv("BITFRONT_ARTIFACTS", str(tmp_path / "files"))
    with Store.open(postgres) as store:
        store.add_measurements(study, [measurement("b", big=BIG)])
        assert len(rows(store)) == len(files(tmp_path / "files")) == 1
        found = store.measurements(study, vectors=True)
        assert [m.vectors["big"].tobytes() for m in found] == [BIG.tobytes()] * 2
    monkeypatch.delenv("BITFRONT_ARTIFACTS")
    with Store.open(postgres) as store, pytest.raises(StorageError, match="set BITFRONT_ARTIFACTS"):
        store.measurements(study, vectors=True)


# artifacts of all kinds


def test_databases_that_share_a_folder_leave_each_others_files(
    database: str, folder: Path, store: Store, tmp_path: Path
) -> None:
    mine = store.put_artifact(b"mine", "text/plain")
    with Store.open(tmp_path / "other.db", artifacts=folder.parent) as other:
        theirs = other.put_artifact(b"mine", "text/plain")
        assert theirs.path != mine.path
        assert other.collect(grace=0.0).files == 1
        assert files(folder) == [mine.path]
    with Store.open(database, artifacts=folder.parent) as again:
        assert again.artifact(mine.hash) == mine


def test_bytes_and_files_are_put_and_opened(store: Store, folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "page.html"
    source.write_bytes(b"<html>" * 50_000)
    put = store.put_artifact(source, "text/html")
    assert put == store.artifact(put.hash)
    assert (put.bytes, put.media_type) == (300_000, "text/html")
    assert put.path == folder / put.hash[:2] / put.hash
    assert store.put_artifact(source.read_bytes(), "text/plain") == put
    source.unlink()
    with store.open_artifact(put.hash) as file:
        assert file.read() == b"<html>" * 50_000
    empty = store.put_artifact(b"", "text/plain")
    with store.open_artifact(empty.hash) as file:
        assert file.read() == b""
    assert len(files(folder)) == 2


def test_what_cannot_be_put_or_found(store: Store, folder: Path, tmp_path: Path) -> None:
    for ask in (store.artifact, store.open_artifact):
        with pytest.raises(UnknownName, match="no artifact 'ab12': it was never put, or was coll"):
            ask("ab12")
    for path, why in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(InvalidInput, match=rf"cannot be read \({why}.*\): name another file"):
            store.put_artifact(path, "text/plain")
    assert files(folder) == []


def test_a_file_that_changes_while_it_is_put(
    store: Store, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "log.txt"
    source.write_text("one")
    copyfile = shutil.copyfile

    def late(origin: Path, target: Path) -> None:
        source.write_text("two")
        copyfile(origin, target)

    monkeypatch.setattr(shutil, "copyfile", late)
    with pytest.raises(StorageError, match=r"log\.txt' changed while it was read"):
        store.put_artifact(source, "text/plain")
    assert files(folder) == []
    assert rows(store) == {}


# damage


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: os.truncate(path, 1000), "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "is damaged"),
    ],
)
def test_a_file_that_is_missing_or_damaged(
    store: Store, study: StudyRecord, folder: Path, spoil: Callable[[Path], object], word: str
) -> None:
    store.add_measurements(study, [measurement(big=BIG)])
    (path,) = files(folder)
    whole = path.read_bytes()
    spoil(path)
    for ask in (
        lambda: store.measurements(study, vectors=True), lambda: store.open_artifact(path.name),
    ):  # fmt: skip
        with pytest.raises(StorageError) as caught:
            ask()
        line = f"artifact file {str(path)!r} {word}: restore it from a copy"
        assert str(caught.value).startswith(line)
    if not path.exists() or path.stat().st_size != len(whole):
        store.put_artifact(whole, "application/x-npy")  # whoever has it, mends it
    else:
        path.write_bytes(whole)
    assert store.measurements(study, vectors=True)[0].vectors["big"].shape == BIG.shape


@pytest.mark.parametrize("place", ["write", "flush"])
def test_a_disk_that_is_full(
    store: Store, study: StudyRecord, folder: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_half(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[:1000])
        raise full

    def flush(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            raise full

    with monkeypatch.context() as patch:
        if place == "write":
            patch.setattr(Path, "write_bytes", write_half)
        else:
            patch.setattr(os, "fsync", flush)
        with pytest.raises(StorageError) as caught:
            store.add_measurements(study, [measurement(big=BIG)])
    line = str(caught.value)
    assert "cannot be written (No space left on device): the disk is full: make room" in line
    assert "\n" not in line
    assert files(folder) == []
    assert store.measurements(study) == []
    assert store.add_measurements(study, [measurement(big=BIG)]) == 1


def test_a_file_that_may_not_grow(store: Store, study: StudyRecord, folder: Path) -> None:
    with file_limit(LARGE), pytest.raises(StorageError, match=r"cannot be written \(File too lar"):
        store.add_measurements(study, [measurement(big=BIG)])
    assert files(folder) == []
    assert store.measurements(study) == []


def test_a_folder_that_is_read_only(store: Store, study: StudyRecord, folder: Path) -> None:
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot make a read-only folder: only root may mount a tmpfs")
    try:
        line = r"cannot be written \(Read-only file system\): choose another place"
        with pytest.raises(StorageError, match=line):
            store.add_measurements(study, [measurement(big=BIG)])
        assert store.add_measurements(study, [measurement(small=BIG[:9])]) == 1
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_file_in_place_of_the_folder(store: Store, study: StudyRecord, folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("text")
    with pytest.raises(StorageError, match="cannot be read \\(Not a directory\\)"):
        store.add_measurements(study, [measurement(big=BIG)])
    assert folder.read_text() == "text"


# collecting


def test_what_rows_refer_to_stays(store: Store, study: StudyRecord, folder: Path) -> None:
    store.add_measurements(study, [measurement(big=BIG)])
    store.add_checkpoint(study, "pass", 0, {"a": BIG})
    store.add_checkpoint(study, "pass", 1, {"a": BIG + 1})
    store.add_trial(
        study, Trial({"a": "w4"}, "", 0.0, 0.0, {}, {}, 0.0), "", {"s": BIG, "t": BIG + 2}
    )
    assert store.collect(grace=0.0) == Collected(0, 0)
    assert len(files(folder)) == 4
    store.drop_checkpoints(study, "pass")
    assert store.collect() == Collected(0, 0)  # they were just written
    dropped = sorted(files(folder), key=lambda path: path.stat().st_size)[-2:]
    size = sum(path.stat().st_size for path in dropped)
    assert store.collect(grace=0.0) == Collected(2, size)
    assert len(files(folder)) == len(rows(store)) == 2
    assert store.measurements(study, vectors=True)[0].vectors["big"].tobytes() == BIG.tobytes()
    assert store.trial_vectors(study, 1)["t"].tobytes() == (BIG + 2).tobytes()


def test_grace_is_from_when_it_was_wanted_last(store: Store, folder: Path) -> None:
    old, again, new = (store.put_artifact(text, "text/plain") for text in (b"a", b"b", b"c"))
    for artifact in (old, again):
        age(artifact.path, 4000)
    store.put_artifact(b"b", "text/plain")
    assert store.collect() == Collected(1, 1)
    assert rows(store).keys() == {again.hash, new.hash} == {path.name for path in files(folder)}
    assert store.collect() == Collected(0, 0)
    age(new.path, 10)
    assert store.collect(grace=5.0) == Collected(1, 1)
    for bad in (-1.0, float("nan")):
        with pytest.raises(InvalidInput, match=r"a grace of .* seconds: give 0 or more"):
            store.collect(grace=bad)


def test_left_over_files_go_and_those_of_others_stay(store: Store, folder: Path) -> None:
    kept = store.put_artifact(b"kept", "text/plain")
    part = folder / kept.hash[:2]
    stray = part / (kept.hash[:2] + "0" * 62)
    partial, writing = (part / f".{kept.hash}.{name}{PARTIAL}" for name in ("0a", "0b"))
    foreign = [folder / "README", part / "notes.txt", folder / "ab.txt"]
    for path in (stray, partial, writing, *foreign):
        path.write_text("x")
        age(path, 4000)
    age(writing, -4000)
    assert store.collect() == Collected(2, 2)
    assert set(files(folder)) == {kept.path, writing, *foreign}
    assert store.collect(grace=0.0) == Collected(1, 4)  # what is being written stays
    assert set(files(folder)) == {writing, *foreign}


def test_a_row_whose_file_is_gone_goes(store: Store) -> None:
    lost = store.put_artifact(b"lost", "text/plain")
    lost.path.unlink()
    assert store.collect() == Collected(0, 0)
    with pytest.raises(UnknownName):
        store.artifact(lost.hash)
    assert store.put_artifact(b"lost", "text/plain").path.read_bytes() == b"lost"


def test_collecting_where_nothing_was_written(store: Store, folder: Path) -> None:
    assert store.collect(grace=0.0) == Collected(0, 0)
    assert not folder.exists()


def test_every_column_of_arrays_is_known_to_refer() -> None:
    found = {f"{column.table.name}.{column.name}" for column in referring()}
    assert found >= {
        f"{table}.artifact" for table in ("measurement_vector", "trial_vector", "checkpoint")
    }


# at once


def test_a_transaction_that_is_undone_leaves_a_file_to_collect(
    store: Store, study: StudyRecord, folder: Path
) -> None:
    gone = StudyRecord(study.id + 1, "gone", "", {}, {})
    with pytest.raises(UnknownName):
        store.add_measurements(gone, [measurement(big=BIG)])
    assert (len(files(folder)), rows(store)) == (1, {})
    assert store.collect() == Collected(0, 0)
    assert store.collect(grace=0.0).files == 1
    assert files(folder) == []


def test_what_is_collected_between_file_and_row_is_written_again(
    store: Store,
    study: StudyRecord,
    other: Store,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put, collected = Folder.put, list[int]()

    def interrupted(self: Folder, sources: Mapping[str, bytes | Path]) -> None:
        put(self, sources)
        if not collected:
            collected.append(other.collect(grace=0.0).files)

    monkeypatch.setattr(Folder, "put", interrupted)
    store.add_measurements(study, [measurement(big=BIG)])
    assert collected == [1]
    assert len(files(folder)) == 1
    found = store.measurements(study, vectors=True)
    assert found[0].vectors["big"].tobytes() == BIG.tobytes()


@pytest.mark.parametrize("known", [False, True], ids=["new", "with a row"])
def test_collecting_waits_for_who_has_recorded(
    store: Store,
    study: StudyRecord,
    other: Store,
    known: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if known:  # a row that nothing refers to any more
        store.add_checkpoint(study, "old", 0, {"s": BIG})
        store.drop_checkpoints(study, "old")
    want, collecting = Folder.want, list[Future[Collected]]()
    with ThreadPoolExecutor(1) as pool:

        def looked(self: Folder, hash: str, size: int) -> bool:
            there = want(self, hash, size)
            if threading.current_thread() is threading.main_thread() and store.folder is self:
                looks.append(there)
                if len(looks) == 2:  # within the transaction: the file was seen
                    collecting.append(pool.submit(other.collect, 0.0))
                    with pytest.raises(TimeoutError):
                        collecting[0].result(timeout=0.3)
            return there

        looks: list[bool] = []
        monkeypatch.setattr(Folder, "want", looked)
        store.add_checkpoint(study, "new", 0, {"s": BIG})
    assert looks == [known, True]
    assert collecting[0].result() == Collected(0, 0)
    assert other.checkpoints(study, "new")[0]["s"].tobytes() == BIG.tobytes()


def test_writers_of_the_same_content_beside_collectors(
    database: str, folder: Path, store: Store, study: StudyRecord
) -> None:
    rounds, writers = 12, 3
    start, ended = threading.Barrier(writers + 2), threading.Event()

    def write(name: str) -> None:
        with Store.open(database, artifacts=folder.parent) as own:
            start.wait()
            for number in range(rounds):
                given = BIG + number % 2
                own.add_checkpoint(study, name, number, {"s": given})
                found = own.checkpoints(study, name)[number]["s"]
                assert found.tobytes() == given.tobytes()
                own.drop_checkpoints(study, name)
            own.add_measurements(study, [measurement(name, s=BIG, t=BIG + 1)])

    def collect() -> int:
        count = 0
        with Store.open(database, artifacts=folder.parent) as own:
            start.wait()
            while not ended.is_set():
                count += own.collect(grace=0.0).files
        return count

    with ThreadPoolExecutor(writers + 2) as pool:
        collecting = [pool.submit(collect) for _ in range(2)]
        writing = [pool.submit(write, f"writer {i}") for i in range(writers)]
        try:
            for future in writing:
                future.result()
        finally:
            ended.set()
        assert sum(future.result() for future in collecting) > 0
    found = store.measurements(study, vectors=True)
    assert len(found) == writers
    store.collect(grace=0.0)
    assert {path.name for path in files(folder)} == rows(store).keys()
    assert len(rows(store)) == 2


# For each line on standard input, forks a writer that goes on until it is killed.
WRITERS = """
import os, sys
import numpy as np
from bitfront.storage import Store

def write():
    with Store.open(sys.argv[1], artifacts=sys.argv[2]) as store:
        study = store.open_study("a", {}, {})
        print(os.getpid(), flush=True)
        for number in range(10**6):
            name = f"pass {os.getpid()}"
            store.add_checkpoint(study, name, number, {"s": np.full(10_000, number % 3 + 0.0)})
            if number % 2:
                store.drop_checkpoints(study, name)

for line in sys.stdin:
    child = os.fork()
    if not child:
        write()
    os.waitpid(child, 0)
    print("killed", flush=True)
"""


def test_killed_writers_beside_a_collector_leave_no_row_without_its_file(
    database: str, folder: Path
) -> None:
    rng = np.random.default_rng(0)
    ended = threading.Event()

    def collect() -> None:
        with Store.open(database, artifacts=folder.parent) as own:
            while not ended.is_set():
                own.collect(grace=0.0)

    Store.open(database, artifacts=folder.parent).close()
    command = [sys.executable, "-c", WRITERS, database, str(folder.parent)]
    with (
        ThreadPoolExecutor(1) as pool,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as writers,
    ):
        assert writers.stdin is not None
        assert writers.stdout is not None
        collecting = pool.submit(collect)
        try:
            for _ in range(6):
                print(file=writers.stdin, flush=True)
                pid = int(writers.stdout.readline())
                ended.wait(rng.uniform(0.0, 0.15))
                os.kill(pid, signal.SIGKILL)
                assert writers.stdout.readline() == "killed\n"
        finally:
            ended.set()
        collecting.result()
    with Store.open(database, artifacts=folder.parent) as store:
        study = store.study("a")
        with store.reading() as connection:
            names = connection.scalars(select(CheckpointRow.pass_key).distinct()).all()
        for name in names:
            for number, part in store.checkpoints(study, name).items():
                assert part["s"].tobytes() == np.full(10_000, number % 3 + 0.0).tobytes()
        for path in files(folder):
            age(path, 100)
        store.collect(grace=10.0)
        assert {path.name for path in files(folder)} == rows(store).keys()


# Records an array, and is killed when its file is there and its row is not.
KILLED = """
import os, signal, sys
import numpy as np
from bitfront.storage import Store
from bitfront.storage.folder import Folder

put = Folder.put
def dying(self, sources):
    put(self, sources)
    os.kill(os.getpid(), signal.SIGKILL)
Folder.put = dying
with Store.open(sys.argv[1], artifacts=sys.argv[2]) as store:
    store.add_checkpoint(store.study("llama"), "pass", 0, {"s": np.arange(10_000.0)})
"""


def test_a_writer_killed_between_file_and_row(
    store: Store, study: StudyRecord, database: str, folder: Path
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, database, str(folder.parent)])
    assert done.returncode == -signal.SIGKILL
    assert len(files(folder)) == 1
    assert (store.checkpoints(study, "pass"), rows(store)) == ({}, {})
    store.add_checkpoint(study, "pass", 0, {"s": BIG})  # finds the file
    assert len(files(folder)) == 1
    assert store.checkpoints(study, "pass")[0]["s"].tobytes() == BIG.tobytes()


def test_the_files_of_a_pass_go_when_it_ends(
    store: Store, study: StudyRecord, folder: Path
) -> None:
    store.add_checkpoint(study, "other", 0, {"a": BIG})
    for i in range(3):  # the first is a part of another pass too
        store.add_checkpoint(study, "pass", i, {"a": BIG + i})
    store.add_checkpoint(study, "pass", 3, {"a": BIG[:9]})
    assert len(files(folder)) == 3
    assert store.finish_pass(study, "pass", [measurement(big=BIG)]) == 1
    assert len(files(folder)) == len(rows(store)) == 2
    assert store.checkpoints(study, "other")[0]["a"].tobytes() == BIG.tobytes()
    assert store.finish_pass(study, "other", []) == 0
    assert len(files(folder)) == len(rows(store)) == 1
    assert store.measurements(study, vectors=True)[0].vectors["big"].tobytes() == BIG.tobytes()
    assert store.discard([]) == Collected(0, 0)
    assert store.discard({path.name for path in files(folder)}) == Collected(0, 0)
    assert store.discard(["0" * 64]) == Collected(0, 0)


def test_a_pass_ends_where_files_cannot_be_removed(
    store: Store, study: StudyRecord, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise StorageError("the file cannot be removed", "change its permissions")

    store.add_checkpoint(study, "pass", 0, {"a": BIG})
    with monkeypatch.context() as patched:
        patched.setattr(Folder, "remove", refused)
        with pytest.warns(BitfrontWarning, match="parts of a finished pass stay: the file cannot"):
            assert store.finish_pass(study, "pass", [measurement()]) == 1
    assert store.checkpoints(study, "pass") == {}
    assert len(files(folder)) == 1
    assert store.collect(grace=0.0).files == 1


def test_a_pass_that_another_ends_while_it_is_read(
    store: Store, other: Store, study: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(2):
        store.add_checkpoint(study, "pass", i, {"a": BIG + i})
    read = Folder.read

    def ended(self: Folder, hash: str) -> bytes:
        monkeypatch.setattr(Folder, "read", read)
        other.finish_pass(study, "pass", [measurement()])
        return read(self, hash)

    monkeypatch.setattr(Folder, "read", ended)
    assert store.checkpoints(study, "pass") == {}
