"""Writes a small database with the code at hand: its SQL, and what was recorded, as JSON.

    PYTHONPATH=. python tests/golden/schemas/write.py tests/golden/schemas

Run once for each revision of the schema, by the code that brought it; ``test_schemas.py`` then
checks that later code still reads what it wrote. Arrays are given by few values, which are repeated
until the shape is filled.
"""

from __future__ import annotations

import base64
import json
import math
import re
import sqlite3
import sys
import tempfile
import zlib
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bitfront.storage import Store
from bitfront.types import Estimate, Measurement, Trial

PROFILED: list[dict[str, Any]] = [
    {
        "profiler": "fisher", "settings": "5e77", "layer": "blocks.0.fc", "scheme": "w4g32+gptq",
        "seconds": 1.5, "values": {"kl": [0.1, 0.01, 32], "cross_entropy": [-1e-300, math.nan, 32]},
        "vectors": {
            "kl": {"dtype": "float32", "shape": [4], "values": [0.1, math.nan, math.inf, -0.0]},
            "half": {"dtype": "float16", "shape": [2, 3], "values": [1.0, 2.5]},
        },
    },
    {
        "profiler": "mse", "settings": "", "layer": "kopf ü'\"%", "scheme": "w8", "seconds": 0.0,
        "values": {"mse": [math.inf, 0.0, 1]}, "vectors": {},
    },
]  # fmt: skip
LARGE = {"dtype": "float64", "shape": [100, 100], "values": [0.25, -1.5, 3e-9]}  # 80 KB
PART = {"s": {"dtype": "int64", "shape": [3], "values": [1, -2, 1 << 40]}}
MEASURED: list[dict[str, Any]] = [
    {
        "schemes": {"z": "w4", "a": "keep"}, "solver": "ilp", "predicted": 0.4, "bound": -math.inf,
        "costs": {"bytes": 1e9 + 1, "seconds@cpu:b1": math.nan}, "seconds": 2.0,
        "metrics": {"kl": [0.5, 0.01, 64]}, "settings": {"budgets": ["3.5bpw"], "seed": 0},
    },
    {
        "schemes": {"z": "w8"}, "solver": "uniform", "predicted": math.nan, "bound": 0.0,
        "costs": {"bytes": 2.0}, "seconds": 0.5, "metrics": {}, "settings": {},
    },
]  # fmt: skip

INFINITE = re.compile(r"(?<=[,(])(-?)Inf(?=[,)])")  # as some versions of SQLite dump it, unreadable


def array(given: dict[str, Any]) -> Any:
    return np.resize(np.array(given["values"], given["dtype"]), given["shape"])


def estimates(given: dict[str, list[Any]]) -> dict[str, Estimate]:
    return {name: Estimate(*three) for name, three in given.items()}


def write(store: Any, revision: str) -> dict[str, Any]:
    """Record everything that this revision has tables for; what that was, as JSON has it."""
    study = store.open_study("golden", {"weights": "sha256:ab", "text": "32 lines"}, {"seed": 7})
    profiled, part = json.loads(json.dumps([PROFILED, PART]))
    if revision >= "0004":
        profiled[1]["vectors"]["large"] = part["large"] = LARGE
    store.add_measurements(
        study,
        [
            Measurement(
                **{
                    **unit,
                    "values": estimates(unit["values"]),
                    "vectors": {name: array(v) for name, v in unit["vectors"].items()},
                }
            )
            for unit in profiled
        ],
    )
    store.add_checkpoint(study, "pass", 3, {name: array(v) for name, v in part.items()})
    trials = []
    for given in MEASURED:
        trial = Trial(**{**given, "metrics": estimates(given["metrics"])})
        vectors = PROFILED[0]["vectors"] if revision >= "0002" else {}
        more = {"vectors": {n: array(v) for n, v in vectors.items()}} if vectors else {}
        made = store.add_trial(study, trial, "by hand", **more)
        trials.append({**given, "id": made.id, "created": made.created, "vectors": vectors})
    first = trials[0]["id"]
    wrote = {
        "study": asdict(study),
        "measurements": profiled,
        "checkpoints": {"3": part},
        "trials": trials,
        "selection": asdict(store.add_selection(study, "3bpw", first, {"rounds": 2})),
        "export": asdict(store.add_export(study, first, "safetensors", "out", 5 << 30, {"ok": 1})),
    }
    if revision >= "0003":
        wrote["jobs"] = jobs(store)
    if revision >= "0005":
        wrote["workers"] = workers(store)
    if revision >= "0007":
        wrote["timings"] = timings(store)
    return wrote


def jobs(store: Any) -> list[dict[str, Any]]:
    """A job that succeeded, one that waits to be tried again, and one that runs."""
    for number in range(3):
        store.submit("search", "golden", {"number": number, "budgets": ["3bpw"]})
    done, failing, running = (store.claim(f"w{i}", 60.0) for i in range(3))
    store.advance(done, "profiling", 1, 4)
    store.succeed(done, {"trials": [1]})
    store.failed(failing, "out of memory", "use less", "a w4", 5.0)
    store.advance(running, "refining", 3, 20)
    store.move(running.id, "pause")
    return [
        {**asdict(store.job(job.id)), "events": [asdict(event) for event in store.events(job.id)]}
        for job in (done, failing, running)
    ]


def workers(store: Any) -> list[dict[str, Any]]:
    """One that lives for a century, and holds a job."""
    store.worker_seen("w2", "gpu-1", "0.1.0", "2026-01-01T00:00:00.000000+00:00", 3.2e9)
    return [asdict(worker) for worker in store.workers()]


def timings(store: Any) -> dict[str, Any]:
    """Of one kernel at one place."""
    from bitfront.types import Place, Timing

    place, timing = Place("ort-cpu", "onnxruntime 1.32.0", "x86 \u00b5", 2), Timing(1e-5, 2e-7, 50)
    store.add_timings(place, {("linear 4x4", "w8a8"): timing})
    return {"place": asdict(place), "kernel": "linear 4x4", "scheme": "w8a8", **asdict(timing)}


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "golden.db")
        Store.open(path).close()
        with closing(sqlite3.connect(path)) as connection:
            (revision,) = connection.execute("SELECT version_num FROM bitfront_version").fetchone()
            with Store.open(path) as store:
                wrote = write(store, revision)
            text = INFINITE.sub(r"\g<1>9e999", "\n".join(connection.iterdump()))
        files = {
            str(file.relative_to(f"{path}.artifacts")): base64.b64encode(
                zlib.compress(file.read_bytes(), 9)
            ).decode()
            for file in sorted(Path(f"{path}.artifacts").rglob("*"))
            if file.is_file()
        }
    (out / f"{revision}.sql").write_text(text + "\n")
    (out / f"{revision}.json").write_text(json.dumps({**wrote, "files": files}, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
