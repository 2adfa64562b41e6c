"""The migrations give the tables of the models, and nothing else of Alembic shows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from bitfront.errors import StorageError
from bitfront.storage import Store
from bitfront.storage.migrate import VERSION_TABLE, configuration, version
from bitfront.storage.models import Real, Table


def same_type(
    context: object, column: object, inspected: object, kind: object, model: object
) -> bool | None:
    """Let Alembic compare a ``Real`` by what it is in the database."""
    return False if isinstance(model, Real) and "DOUBLE" in str(kind) else None


def test_migrations_give_the_tables_of_the_models(database: str) -> None:
    with Store.open(database) as store, store.reading() as connection:
        options = {"version_table": VERSION_TABLE, "compare_type": same_type}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Table.metadata) == []


def test_opening_again_migrates_nothing(database: str) -> None:
    revisions = []
    for _ in range(2):
        with Store.open(database) as store, store.reading() as connection:
            revisions.append(version(connection))
    assert revisions[0] == revisions[1] is not None


def test_migrations_can_be_undone(database: str) -> None:
    with Store.open(database) as store:
        with store.writing() as connection:
            command.downgrade(configuration(connection), "base")
        with store.reading() as connection:
            assert inspect(connection).get_table_names() == [VERSION_TABLE]
    with Store.open(database) as store:
        assert store.studies() == []


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as other:  # a name that the last table's index wants
        other.executescript(
            "CREATE TABLE x (y); CREATE INDEX ix_trial_metric_metric_value ON x (y)"
        )
    with pytest.raises(StorageError, match="already exists"):
        Store.open(path)
    with closing(sqlite3.connect(path)) as other:
        tables = other.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    assert tables == [("x",)]


def test_sqlite_is_set_up_to_lose_nothing(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db") as store, store.reading() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 15000,
    }
