"""Fixtures that every kind of test may use."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.commands import Commands

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line sets it, before torch
os.environ.setdefault("SDNQ_USE_TORCH_COMPILE", "0")  # minutes; test_export_diffusers has one test

# machines are shared: how long an example takes says nothing
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def assets() -> Path:
    """Real models and data: ``BITFRONT_ASSETS``, or ``shared/assets`` beside the checkout."""
    folder = Path(os.environ.get("BITFRONT_ASSETS", ROOT.parent / "shared" / "assets"))
    if not folder.is_dir():
        pytest.skip(f"no real models and data in {folder}: set BITFRONT_ASSETS to their folder")
    return folder


@pytest.fixture
def postgres() -> Iterator[str]:
    """URL of a fresh, empty schema on the server that ``BITFRONT_TEST_POSTGRES_URL`` names."""
    server = os.environ.get("BITFRONT_TEST_POSTGRES_URL")
    if not server:
        pytest.skip("no PostgreSQL to test on: set BITFRONT_TEST_POSTGRES_URL to a server's URL")
    import psycopg

    schema = f"bitfront_test_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        yield f"{server}{'&' if '?' in server else '?'}options=-csearch_path%3D{schema}"
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def bitfront(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Commands:
    """The command line, with a fresh SQLite database."""
    from tests.commands import Commands

    return Commands(tmp_path / "bitfront.db", capfd)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where to open a fresh, empty database; the test runs once on each kind there is."""
    if request.param == "sqlite":
        return str(tmp_path / "bitfront.db")
    url: str = request.getfixturevalue("postgres")
    return url
