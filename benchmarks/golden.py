"""Allocators: published answers and scaling. ``python -m benchmarks.golden [--assets FOLDER]``.

JSON on standard output:

    golden   the nine HAWQ-V3 ResNet18 instances: published bits found, gap, seconds
    scaling  random problems of 20 to 10 000 layers under 1 to 3 limits: per solver the seconds,
             the gap, and the loss over the best one found

A random layer has 10^3 to 10^6 weights and a sensitivity over six orders of magnitude; its loss
falls by about 4 a bit. The limits are on bytes, seconds and BOPs, 30 % up from least to greatest.
Three seeds a row; seconds and gaps are medians and the worst.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import arguments, commit
from bitfront.errors import Infeasible
from bitfront.search import ALLOCATORS, allocate, parse_problem
from bitfront.types import Problem

SIZES = [
    (L, C, R) for L in (20, 100, 1000, 10_000) for C in (8, 32) for R in (1, 2, 3) if L * R < 30_000
]
SEEDS = range(3)
PATIENCE = 60.0  # seconds a problem


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--largest", type=int, default=10_000, help="most layers to try")
    options = parser.parse_args()
    report = {
        "commit": commit(),
        "machine": f"{platform.machine()}, one thread, Python {platform.python_version()}, "
        f"ortools {version('ortools')}",
        "golden": golden(options.assets / "golden" / "hawq_v3_resnet18.json"),
        "scaling": [scaling(*size) for size in SIZES if size[0] <= options.largest],
    }
    json.dump(report, sys.stdout, indent=1)


def golden(path: Path) -> list[dict[str, Any]]:
    data = json.loads(path.read_text())
    rows = []
    for case in data["instances"]:
        found = allocate(parse_problem(data, {case["resource"]: case["limit"]}))
        bits = [int(name.removeprefix("int")) for name in found.choice]
        rows.append(
            {
                "resource": case["resource"],
                "fraction": case["fraction"],
                "published": bits == case["published_bits"],
                "gap": found.gap,
                "optimal": found.optimal,
                "seconds": round(found.seconds, 4),
            }
        )
    return rows


def random_problem(L: int, C: int, R: int, seed: int) -> Problem:
    """See the module docstring."""
    rng = np.random.default_rng(seed)
    bits = np.linspace(2, 8, C)
    weights = 10 ** rng.uniform(3, 6, (L, 1))
    reuse = 10 ** rng.uniform(-0.5, 0.5, (L, 1))
    loss = 10 ** rng.uniform(-6, 0, (L, 1)) * 4.0 ** (2 - bits) * rng.lognormal(0, 0.3, (L, C))
    costs = {
        "bytes": np.round(weights * bits / 8),
        "seconds": weights**0.8 * (bits + 2 * rng.random((L, C))) * reuse * 1e-7,
        "bops": np.round(weights * bits**2 * reuse**-1),
    }
    costs = dict(list(costs.items())[:R])
    limits = {
        name: float(0.7 * table.min(axis=1).sum() + 0.3 * table.max(axis=1).sum())
        for name, table in costs.items()
    }
    layers = tuple(f"layer{i}" for i in range(L))
    return Problem(layers, tuple(f"s{i}" for i in range(C)), loss, costs, limits)


def scaling(L: int, C: int, R: int) -> dict[str, Any]:
    problems = [random_problem(L, C, R, seed) for seed in SEEDS]
    exact = [allocate(p, time_limit=PATIENCE) for p in problems]
    row: dict[str, Any] = {"layers": L, "schemes": C, "limits": R}
    for solver in ["ilp", *(name for name in ALLOCATORS if name != "ilp")]:
        try:
            found = exact if solver == "ilp" else [allocate(p, solver) for p in problems]
        except Infeasible:  # uniform: no single scheme fits
            row[solver] = None
            continue
        pairs = list(zip(found, exact, strict=True))
        row[solver] = {
            "seconds": round(statistics.median(a.seconds for a in found), 3),
            "worst_seconds": round(max(a.seconds for a in found), 3),
            "proven": sum(a.optimal for a in found),
            "worst_gap": max(a.gap / a.loss for a in found),
            "worst_excess": max(a.loss / e.loss - 1 for a, e in pairs),
        }
    print(L, C, R, row["ilp"], file=sys.stderr)
    return row


if __name__ == "__main__":
    main()
