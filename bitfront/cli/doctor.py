"""``bitfront doctor``: whether this machine has what Bitfront needs."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Literal

import typer

from bitfront.errors import BitfrontError

from .common import Db
from .output import Json, emit, quiet_stdout, table

Verdict = Literal["ok", "missing", "failed"]

REQUIRED = (
    "torch", "transformers", "diffusers", "ortools", "optuna", "numpy", "scipy", "sqlalchemy",
    "alembic", "safetensors", "compressed-tensors", "accelerate", "plotly",
)  # fmt: skip
OPTIONAL = {
    "datasets": "data of the hub",
    "psycopg": "PostgreSQL",
    "scikit-learn": "bitfront demo",
    "pillow": "transformers' image processors",
    "sdnq": "exports of diffusers pipelines",
}
FREE = 1 << 30  # bytes of temporary space below which a large model may not fit


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. Only ``failed`` is in the way of the main job."""

    what: str
    verdict: Verdict
    found: str


def doctor(db: Db = None, as_json: Json = False) -> None:
    """Check versions, devices, the database and disk space; exit code 2 if something fails."""
    with quiet_stdout():
        checks = [
            *(_package(name) for name in REQUIRED),
            *(_package(name, purpose) for name, purpose in OPTIONAL.items()),
            _tried("device", _device),
            _tried("solver", _solver),
            _tried("database", lambda: _database(db)),
            _tried("temporary space", _space),
        ]
    failed = [check for check in checks if check.verdict == "failed"]
    if as_json:
        emit(
            {
                "ok": not failed,
                "python": platform.python_version(),
                "checks": [asdict(c) for c in checks],
            }
        )
    else:
        table(["check", "verdict", "found"], [[c.what, c.verdict, c.found] for c in checks])
        typer.echo("all is well" if not failed else f"{len(failed)} checks failed")
    if failed:
        raise typer.Exit(2)


def _package(name: str, purpose: str = "") -> Check:
    try:
        return Check(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        if purpose:
            return Check(name, "missing", f"only needed for {purpose}")
        return Check(name, "failed", "not installed: install bitfront again")


def _tried(what: str, look: Callable[[], str]) -> Check:
    try:
        return Check(what, "ok", look())
    except (BitfrontError, OSError, RuntimeError, ImportError) as error:
        return Check(what, "failed", " ".join(str(error).split()))


def _device() -> str:
    import torch

    from bitfront.tasks.placement import device_of

    device = device_of("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    size = (torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)).sum().item()
    if size != 64**3:
        raise RuntimeError(f"a matrix product on {device} gives {size}")
    return f"{device} ({name}), {torch.get_num_threads()} threads"


def _solver() -> str:
    from bitfront.search import allocate
    from bitfront.search.problem_file import parse_problem

    data = {"schemes": ["a", "b"], "loss": [[2, 1], [3, 1]], "costs": {"size": [[1, 2], [1, 2]]}}
    found = allocate(parse_problem(data, {"size": 3.0}))
    if found.choice != ("a", "b") or not found.optimal:
        raise RuntimeError(f"a problem of two layers is answered by {found.choice}")
    return "solves a problem of two layers to gap 0"


def _database(db: str | None) -> str:
    from bitfront.storage import Store
    from bitfront.storage.failures import named

    with Store.open(db) as store:
        return f"{named(store.url)}, {len(store.studies())} studies"


def _space() -> str:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        raise OSError(f"{folder} cannot be written to: set TMPDIR")
    if free < FREE:
        raise OSError(f"{free / 1e9:.2f} GB free in {folder}: make room, or set TMPDIR")
    return f"{free / 1e9:.0f} GB free in {folder}"
