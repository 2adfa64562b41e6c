"""Databases that cannot be opened or read."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bitfront.storage import store as storage
from tests.commands import Commands
from tests.malformed.cases import (
    AGAIN,
    MODULE,
    ROOT,
    Spoil,
    Words,
    contents,
    overwrite,
    refusal,
    trials,
    typed,
)


def page_of(table: str) -> Spoil:
    """Overwrites the root page of a table."""

    def spoil(db: Path) -> None:
        with closing(sqlite3.connect(db)) as connection:
            query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
            (root,) = connection.execute(query, (table,)).fetchone()
            (size,) = connection.execute("PRAGMA page_size").fetchone()
        overwrite(db, (root - 1) * size, b"\xff" * size)

    return spoil


def updated(statement: str) -> Spoil:
    def spoil(db: Path) -> None:
        with closing(sqlite3.connect(db)) as connection:
            connection.execute(statement)
            connection.commit()

    return spoil


DAMAGED = "database '.*bitfront.db' is damaged: restore it from a copy, or name another file"


DATABASES: dict[str, tuple[Spoil, str]] = {
    "a text": (
        lambda db: db.write_text("no database\n" * 999),
        "database '.*bitfront.db' is not a database: name another file",
    ),
    "cut in half": (lambda db: os.truncate(db, db.stat().st_size // 2), DAMAGED),
    "a page overwritten": (page_of("study"), DAMAGED),
    "broken settings": (updated("UPDATE study SET settings = '{'"), DAMAGED),
    "a newer Bitfront's": (
        updated("UPDATE bitfront_version SET version_num = '9999'"),
        "has schema 9999, this Bitfront knows up to .*: update Bitfront, or name another database",
    ),
}


@pytest.mark.parametrize("case", DATABASES)
@pytest.mark.parametrize("words", [("front", "m"), ("search", "m", *typed(ROOT, [], AGAIN))])
def test_a_database_that_cannot_be_read(words: Words, case: str, begun: Commands) -> None:
    spoil, line = DATABASES[case]
    db = Path(begun.db)
    spoil(db)
    before = db.read_bytes()
    refusal(begun, words, line)
    assert db.read_bytes() == before


PLACES = {
    "@/llama": "database '.*llama' is a folder: name a file in it",
    "@/text.txt/a.db": r"the folder of database '.*a\.db' cannot be made .*: name a database in",
    "@/" + "x" * 300: "database '.*x' cannot be opened .*too long.*: name another file",
    "mysql://root@localhost/x": "kind 'mysql' is not supported: give a path, or a URL like",
    "sqlite://": "'sqlite://' would be lost at exit: name a file",
    "postgresql://host:port/x": "the database's URL cannot be read: give a path, or a URL like",
    "postgresql://me:secret@127.0.0.1:1/x": (
        r"'postgresql://me:\*\*\*@127.* cannot be reached .*: check its URL, and that its server"
    ),
}


@pytest.mark.parametrize("where", PLACES)
def test_a_place_that_no_database_is_at(where: str, bitfront: Commands, folder: Path) -> None:
    before = contents(folder)
    words = typed(folder, ["search", "s"], {**MODULE, "db": where})
    refusal(bitfront, words, PLACES[where])
    assert contents(folder) == before


def test_a_database_that_another_program_writes_to(
    begun: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = storage.connect
    monkeypatch.setattr(storage, "connect", lambda url, timeout: connect(url, 0.2))
    known = trials(begun)
    with closing(sqlite3.connect(begun.db, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for words in (["front", "m"], typed(ROOT, ["search", "m"], AGAIN)):
            line = "database '.*bitfront.db' is locked: another program is writing to it: end that"
            refusal(begun, words, line)
        other.execute("ROLLBACK")
    assert trials(begun) == known
