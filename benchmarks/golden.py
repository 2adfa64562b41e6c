"""Allocators on published answers. ``python -m benchmarks.golden [--assets FOLDER]``.

JSON on standard output:

    golden   the nine HAWQ-V3 ResNet18 instances: published bits found, gap, seconds; the excess of
             each solver's loss over the optimum
    joint    the same tables under limits on size, BOPs and latency at once, which the paper
             has not: every combination of its three fractions, checked against all allocations

``benchmarks.solvers`` has larger problems, and other solvers.
"""

from __future__ import annotations

import itertools
import json
import math
import platform
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import arguments, commit
from bitfront.errors import Infeasible
from bitfront.search import ALLOCATORS, allocate, parse_problem
from bitfront.types import Problem


def main() -> None:
    options = arguments(__doc__).parse_args()
    report = {
        "commit": commit(),
        "machine": f"{platform.machine()}, one thread, Python {platform.python_version()}, "
        f"ortools {version('ortools')}",
        "golden": golden(options.assets / "golden" / "hawq_v3_resnet18.json"),
        "joint": joint(options.assets / "golden" / "hawq_v3_resnet18.json"),
    }
    json.dump(report, sys.stdout, indent=1)


def golden(path: Path) -> list[dict[str, Any]]:
    data = json.loads(path.read_text())
    rows = []
    for case in data["instances"]:
        problem = parse_problem(data, {case["resource"]: case["limit"]})
        found = allocate(problem)
        bits = [int(name.removeprefix("int")) for name in found.choice]
        rows.append(
            {
                "resource": case["resource"],
                "fraction": case["fraction"],
                "published": bits == case["published_bits"],
                "gap": found.gap,
                "optimal": found.optimal,
                "seconds": round(found.seconds, 4),
                "excess": {
                    name: _loss(problem, name) / found.loss - 1
                    for name in ALLOCATORS
                    if name != "ilp" and not math.isnan(_loss(problem, name))
                },
            }
        )
    return rows


def _loss(problem: Problem, solver: str) -> float:
    try:
        return allocate(problem, solver).loss
    except Infeasible:  # uniform: no single scheme fits
        return math.nan


def joint(path: Path) -> list[dict[str, Any]]:
    data = json.loads(path.read_text())
    limits: dict[str, dict[float, float]] = {}
    for case in data["instances"]:
        limits.setdefault(case["resource"], {})[case["fraction"]] = case["limit"]
    whole = parse_problem(data, {})
    losses, costs = everything(whole)
    rows = []
    for fractions in itertools.product(*limits.values()):
        within = {name: limits[name][f] for name, f in zip(limits, fractions, strict=True)}
        fits = np.all(
            [costs[name] <= limit * (1 + 1e-12) for name, limit in within.items()], axis=0
        )
        row: dict[str, Any] = {"fractions": dict(zip(limits, fractions, strict=True))}
        try:
            found = allocate(replace(whole, limits=within))
        except Infeasible:
            rows.append({**row, "feasible": False, "checked": not fits.any()})
            continue
        least = float(losses[fits].min())
        rows.append(
            {
                **row,
                "feasible": True,
                "bits": [int(name.removeprefix("int")) for name in found.choice],
                "loss": found.loss,
                "costs": found.costs,
                "optimal": found.optimal,
                "checked": abs(found.loss - least) <= 1e-12 * abs(least),
                "seconds": round(found.seconds, 4),
            }
        )
    return rows


def everything(problem: Problem) -> tuple[Any, dict[str, Any]]:
    """The losses and costs of all allocations (few layers and schemes), by adding up."""
    members = [[*g] for g in problem.groups]
    members += [[i] for i in range(len(problem.layers)) if not any(i in g for g in members)]

    def sums(table: Any) -> Any:
        total = np.zeros(1)
        for group in members:
            total = (total[:, None] + table[group].sum(axis=0)).ravel()
        return total

    return sums(problem.loss), {name: sums(table) for name, table in problem.costs.items()}


if __name__ == "__main__":
    main()
