"""Bringing a database's tables up to what this version of Bitfront knows."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from bitfront.errors import StorageError

from .engine import Database
from .failures import named
from .models import Table

VERSION_TABLE = "bitfront_version"
_LOCK = 0x62697466726F6E74  # "bitfront": PostgreSQL's advisory lock on migrating


def migrate(database: Database) -> None:
    """Create or upgrade the tables, in one transaction that other processes wait for.

    Raises ``StorageError`` when the database is of a newer Bitfront, has other tables of these
    names, or cannot be written to.
    """
    with database.writing() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config = configuration(connection)
        scripts = ScriptDirectory.from_config(config)
        newest = scripts.get_current_head()
        current = version(connection)
        if current == newest:
            return
        if current is None:
            _refuse_others(database, connection)
        elif current not in {script.revision for script in scripts.walk_revisions()}:
            raise StorageError(
                f"{named(database.url)} has schema {current}, this Bitfront knows up to {newest}",
                "update Bitfront, or name another database",
            )
        command.upgrade(config, "head")


def configuration(connection: Connection) -> Config:
    """Alembic's configuration for migrating over ``connection``, without a file of its own."""
    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.attributes.update(connection=connection, version_table=VERSION_TABLE)
    return config


def version(connection: Connection) -> str | None:
    """The database's schema revision; None before the first migration."""
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def _refuse_others(database: Database, connection: Connection) -> None:
    taken = set(inspect(connection).get_table_names()) & Table.metadata.tables.keys()
    if taken:
        raise StorageError(
            f"{named(database.url)} has a table {min(taken)!r} that is not Bitfront's",
            "name another database",
        )
