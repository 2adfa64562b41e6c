"""Databases of every schema that there has been, written by the code of that time, read by today's.

``schemas/write.py`` wrote them.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from bitfront.storage import Store
from bitfront.storage.engine import Database, connect, locate
from bitfront.storage.migrate import configuration, version
from bitfront.storage.models import Table
from bitfront.types import Estimate, Measurement, Place, Timing

HERE = Path(__file__).parent / "schemas"
REVISIONS = sorted(path.stem for path in HERE.glob("*.sql"))


def recorded(revision: str) -> Any:
    return json.loads((HERE / f"{revision}.json").read_text())


def build(where: str, revision: str) -> None:
    """Make the database of ``revision`` at ``where``."""
    dump = (HERE / f"{revision}.sql").read_text()
    if "://" in where:
        with closing(sqlite3.connect(":memory:")) as source:
            source.executescript(dump)
            copy(source, where, revision)
    else:
        with closing(sqlite3.connect(where)) as target:
            target.executescript(dump)


def copy(source: sqlite3.Connection, where: str, revision: str) -> None:
    """Fill the tables of ``revision``, made by the migrations up to it, with the rows of a dump."""
    url = locate(where)
    database = Database(url, connect(url, 1.0))
    try:
        with database.writing() as connection:
            command.upgrade(configuration(connection), revision)
            for table in [table.name for table in Table.metadata.sorted_tables]:
                _fill(connection, table, source)
    finally:
        database.close()


def _fill(connection: Connection, table: str, source: sqlite3.Connection) -> None:
    if source.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [table]).fetchone() is None:
        return
    rows = source.execute(f'SELECT * FROM "{table}"')
    names = [f'"{column[0]}"' for column in rows.description]
    places = ", ".join(["%s"] * len(names))
    for row in rows:
        insertion = f'INSERT INTO "{table}" ({", ".join(names)}) VALUES ({places})'
        connection.exec_driver_sql(insertion, row)
    if '"id"' in names:
        last = f"(SELECT max(id) FROM {table})"
        connection.exec_driver_sql(
            f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {last})"
        )


def check(store: Store, wrote: Any) -> None:
    study = store.study("golden")
    assert_fields(study, wrote["study"])
    measured = store.measurements(study, vectors=True)
    assert len(measured) == len(wrote["measurements"])
    for measurement, given in zip(measured, wrote["measurements"], strict=True):
        same_figures(measurement.values, given.pop("values"))
        same_arrays(measurement.vectors, given.pop("vectors"))
        assert_fields(measurement, given)
    parts = store.checkpoints(study, "pass")
    assert [str(index) for index in parts] == list(wrote["checkpoints"])
    for index, part in wrote["checkpoints"].items():
        same_arrays(parts[int(index)], part)
    trials = store.trials(study)
    assert len(trials) == len(wrote["trials"])
    for trial, given in zip(trials, wrote["trials"], strict=True):
        same_figures(trial.metrics, given.pop("metrics"))
        same_arrays(store.trial_vectors(study, trial.id), given.pop("vectors"))
        assert_fields(trial, given)
        assert list(trial.schemes) == list(given["schemes"])  # in the model's order
        assert store.find_trial(study, trial.schemes, "by hand") is not None
    (selection,), (export,) = store.selections(study), store.exports(study)
    assert_fields(selection, wrote["selection"])
    assert_fields(export, wrote["export"])
    jobs = store.jobs()
    assert len(jobs) == len(wrote.get("jobs", []))
    for job, given in zip(reversed(jobs), wrote.get("jobs", []), strict=True):
        events, progress = store.events(job.id), given.pop("progress")
        for event, expected in zip(events, given.pop("events"), strict=True):
            assert_fields(event, expected)
        assert (job.progress is None) == (progress is None)
        if progress is not None:
            assert_fields(job.progress, progress)
        assert_fields(job, given)
    workers = store.workers()
    assert len(workers) == len(wrote.get("workers", []))
    for worker, given in zip(workers, wrote.get("workers", []), strict=True):
        assert_fields(worker, given)
    if timed := wrote.get("timings"):
        kernel, scheme = timed["kernel"], timed["scheme"]
        found = store.timings(Place(**timed["place"]), [kernel])
        expected = Timing(timed["seconds"], timed["spread"], timed["repeats"])
        assert found == {(kernel, scheme): expected}


def assert_fields(found: Any, expected: dict[str, Any]) -> None:
    """That the fields which there were then are the same; there may be others now."""
    assert repr({name: getattr(found, name) for name in expected}) == repr(expected)


def same_figures(found: Any, expected: dict[str, list[Any]]) -> None:
    figures = {name: Estimate(*three) for name, three in expected.items()}
    assert repr(sorted(found.items())) == repr(sorted(figures.items()))  # nan equals nan


def same_arrays(found: Any, expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, given in expected.items():
        array = np.resize(np.array(given["values"], given["dtype"]), given["shape"])
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def test_there_is_a_database_of_every_schema(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db") as store, store.reading() as connection:
        scripts = ScriptDirectory.from_config(configuration(connection))
        known = sorted(script.revision for script in scripts.walk_revisions())
    assert known == REVISIONS, "run tests/golden/schemas/write.py"


@pytest.mark.parametrize("revision", REVISIONS)
def test_an_old_database_gives_back_what_was_recorded(
    revision: str, database: str, tmp_path: Path
) -> None:
    build(database, revision)
    with Store.open(database, artifacts=tmp_path / "files") as store:
        assert store.folder is not None
        folder = store.folder.path
    for name, packed in recorded(revision)["files"].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(zlib.decompress(base64.b64decode(packed)))
    for _ in range(2):
        with Store.open(database, artifacts=tmp_path / "files") as store:
            check(store, recorded(revision))
            with store.reading() as connection:
                assert version(connection) == REVISIONS[-1]
    with Store.open(database, artifacts=tmp_path / "files") as store:
        study = store.study("golden")
        more = [Measurement("mse", "", "new", "w4", {}, {"large": np.arange(1e4)})]
        assert store.add_measurements(study, more) == 1
        store.collect(grace=0.0)
        last = store.measurements(study, vectors=True)[-1]
        assert last.vectors["large"].tolist() == list(range(10_000))


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_dump_is_of_its_revision(revision: str) -> None:
    with closing(sqlite3.connect(":memory:")) as source:
        source.executescript((HERE / f"{revision}.sql").read_text())
        assert source.execute("SELECT * FROM bitfront_version").fetchall() == [(revision,)]
        assert source.execute("PRAGMA foreign_key_check").fetchall() == []
