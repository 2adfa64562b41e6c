"""A database that notes every attempt to record a unit of work, and what came of a job in it.

A unit that was measured a second time, although it had been recorded, shows as two attempts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import text

from bitfront.storage import Store
from bitfront.storage.engine import Database, connect, locate

KEYS = {  # table -> what a row of it is known by, in SQL
    "measurement": "NEW.profiler || '/' || NEW.settings || '/' || NEW.layer || '/' || NEW.scheme",
    "checkpoint": "NEW.pass_key || '/' || NEW.position",
    "trial_metric": "(SELECT key FROM trial WHERE id = NEW.trial_id) || '/' || NEW.metric",
    "selection": "NEW.request_key",
}
_TRIGGER = {
    "sqlite": "CREATE TRIGGER note_{table} BEFORE INSERT ON {table} BEGIN "
    "INSERT INTO attempt VALUES ('{table}', {key}); END",
    "postgresql": "CREATE FUNCTION note_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "INSERT INTO attempt VALUES ('{table}', {key}); RETURN NEW; END $$; "
    "CREATE TRIGGER note_{table} BEFORE INSERT ON {table} "
    "FOR EACH ROW EXECUTE FUNCTION note_{table}()",
}


def watched(db: str | Path) -> None:
    """Make the new database ``db``, and have it note every attempt to insert a row."""
    Store.open(db).close()
    with _opened(db) as database, database.writing() as connection:
        connection.execute(text("CREATE TABLE attempt (kind TEXT, key TEXT)"))
        for table, key in KEYS.items():
            trigger = _TRIGGER[connection.dialect.name]
            connection.exec_driver_sql(trigger.format(table=table, key=key))


def attempts(db: str | Path) -> list[tuple[str, str]]:
    """Every attempt so far: the table, and what the row is known by."""
    with _opened(db) as database, database.reading() as connection:
        rows = connection.execute(text("SELECT kind, key FROM attempt"))
        return [(kind, key) for kind, key in rows]


def reached(db: str | Path, count: int, alive: Callable[[], bool]) -> bool:
    """Wait until ``count`` attempts were noted, or nobody is alive to make them; whether they were.

    By one connection, and with pauses: whoever is watched needs the processor.
    """
    with _opened(db) as database:
        while True:
            at_work = alive()
            with database.reading() as connection:
                if connection.scalar(text("SELECT COUNT(*) FROM attempt")) >= count:
                    return True
            if not at_work:
                return False
            time.sleep(0.005)


def outcome(db: str | Path, name: str) -> tuple[Any, Any]:
    """Trials and answers, without the numbers and times that a database gives."""
    with Store.open(db) as store:
        study = store.study(name)
        trials = store.trials(study)
        keys = {t.id: t.key for t in trials}
        answers = sorted(
            (s.request_key, keys[s.trial_id], str(_unnumbered(s.details, keys)))
            for s in store.selections(study)
        )
    figures = [(t.key, t.solver, t.predicted, dict(t.costs), dict(t.metrics)) for t in trials]
    return sorted(figures, key=lambda f: f[0]), answers


def _unnumbered(details: Mapping[str, Any], keys: Mapping[int, str]) -> dict[str, Any]:
    """What is recorded of an answer, with trials by key and not by number."""
    return {**details, "measured": [keys[id] for id in details["measured"]]}


@contextmanager
def _opened(db: str | Path) -> Iterator[Database]:
    """A database as it is, which opening a store would migrate."""
    url = locate(db)
    database = Database(url, connect(url, 15.0))
    try:
        yield database
    finally:
        database.close()
