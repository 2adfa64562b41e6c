"""A server in the test's own process, and a database with something in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from bitfront.service.api import Settings, create_app
from bitfront.storage import Store
from bitfront.types import Estimate, Measurement, Trial

LAYERS: list[dict[str, Any]] = [
    {"name": "a", "kind": "linear", "rows": 8, "cols": 16, "macs": 128},
    {"name": "b/c", "kind": "linear", "rows": 4, "cols": 8, "macs": 32},
]
BASE = "http://127.0.0.1:8765"


def fill(store: Store, name: str = "llama", trials: int = 6) -> None:
    """A study of two layers: trials that get dearer and better but for one, and measurements."""
    study = store.open_study(
        name,
        {"weights": "sha256:0"},
        {
            "layers": LAYERS, "container": "safetensors", "recipe": None,
            "metrics": {"kl": {"better": "lower"}, "top1": {"better": "higher"}},
            "classes": {"a": "attention", "b/c": "feed-forward"},
        },
    )  # fmt: skip
    for i in range(trials):
        kl = 1.0 / (i + 1) if i != 2 else 0.9  # the third is dominated
        metrics = {"kl": Estimate(kl, 0.01, 8), "calibration/kl": Estimate(kl, 0.01, 8)}
        if i:
            metrics["top1"] = Estimate(0.5 + 0.01 * i, 0.0, 8)
        schemes = {"a": f"w{i + 2}", "b/c": "keep" if i % 2 else "w8"}
        costs = {"bytes": 100.0 * (i + 1), "bits": 10.0 * (i + 1)}
        settings = {"budgets": [f"{i + 2}bpw"], "profiler": "fisher", "estimates": "kl"}
        solver = "ilp" if i % 2 else "greedy"
        store.add_trial(study, Trial(schemes, solver, kl, kl / 2, costs, metrics, 1.0, settings))
    store.add_measurements(
        study,
        [
            Measurement("fisher", "k", layer["name"], f"w{bits}",
                        {"kl": Estimate(1.0 / bits, 0.1, 8)}, seconds=0.5)
            for layer in LAYERS for bits in (2, 4, 8)
        ],
    )  # fmt: skip


@contextmanager
def serving(db: str | None, **settings: Any) -> Iterator[TestClient]:
    """A client of a server with these settings, from this machine."""
    app = create_app(Settings(db=db, **{"poll": 0.01, "burst": 100_000, **settings}))
    with TestClient(app, base_url=BASE) as client:
        yield client


def problem(response: Any, status: int, name: str) -> dict[str, Any]:
    """The problem that a response must be."""
    found: dict[str, Any] = response.json()
    assert (response.status_code, found["status"]) == (status, status), found
    assert response.headers["content-type"] == "application/problem+json"
    assert found["type"] == f"docs/service.md#{name}", found
    assert found["title"]
    assert found["detail"]
    assert found["hint"]
    return found


def made(folder: Path) -> str:
    """A folder with a model's files, as far as the server looks."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return str(folder)
