"""What docs/storage.md says of tables, queries and Python is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bitfront.storage import Store
from bitfront.storage.engine import BUSY_TIMEOUT
from bitfront.storage.models import Table
from bitfront.types import Estimate, Trial

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "storage.md").read_text()


def snippet(language: str) -> str:
    """The one block of ``language``."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return str(block)


def fill(where: str) -> None:
    """Record three trials, of which the second one is worse in everything than the first."""
    figures = {"w4": (0.2, 400.0), "w5": (0.3, 500.0), "w8": (0.1, 800.0)}
    with Store.open(where) as store:
        study = store.open_study("llama", {}, {})
        for scheme, (kl, size) in figures.items():
            metrics = {"kl": Estimate(kl, 0.01, 8), "perplexity": Estimate(9.0, 0.1, 8)}
            costs = {"bytes": size, "bops": 1.0}
            store.add_trial(study, Trial({"a": scheme}, "ilp", kl, kl, costs, metrics, 1.0))


def test_every_table_is_described() -> None:
    described = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)
    assert set(described) == Table.metadata.tables.keys()


def test_the_query_runs(database: str) -> None:
    fill(database)
    with Store.open(database) as store, store.reading() as connection:
        rows = connection.exec_driver_sql(snippet("sql")).all()
    assert [(row.kl, row.bytes) for row in rows] == [(0.2, 400.0), (0.3, 500.0), (0.1, 800.0)]


def test_the_program_prints_the_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fill("bitfront.db")
    exec(compile(snippet("python"), "docs/storage.md", "exec"), {})
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["400.0", "800.0"]


def test_the_timeout_is_the_one_described() -> None:
    assert f"waits {BUSY_TIMEOUT:.0f} seconds" in TEXT
