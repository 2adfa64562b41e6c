"""Allocators at scale, ours and others', on the same problems in one run.

``python -m benchmarks.solvers [--pulp FOLDER] [--only TITLE] [--solvers NAME ...] ...``

JSON on standard output, Markdown tables on standard error. Every solver runs on every problem in a
process of its own, one thread, killed ``--patience`` seconds and a grace after its start. Figures
of a run: seconds and CPU seconds of the solve alone (CPU seconds are what to compare on a busy
machine; medians of ``REPEATS`` where it takes less than ``SHORT``), the excess of the loss over the
best that any solver found, the gap that it proves.

    random  layers of 10^3 to 10^6 weights, sensitivities over six orders of magnitude, losses that
            fall by about 4 a bit, costs in bytes, seconds and BOPs; limits 30 % up from least to
            most, as for all kinds
    coarse  losses and costs are small integers, as in published tables: many ties
    alike   few kinds of layers, each many times, as in a transformer, with 5 % noise on the losses
    golden  HAWQ-V3's ResNet18 under one limit, and under all three at once
    real    the assets' models, profiled at the start (``benchmarks.assets_problems``)

``--pulp`` is a folder with PuLP in it (``pip install --target FOLDER pulp``); without it CBC is
left out, and that is said.
"""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import arguments, commit, show, write
from bitfront.types import Problem

SEEDS = 3
SHORT, REPEATS = 0.2, 9  # seconds; runs in one process, of what takes less
GRACE = 10.0  # seconds after ``--patience`` until a process is killed
OURS = ("ilp", "ilp 1e-4", "lagrange", "greedy", "greedy-up")
THEIRS = ("milp", "milp 1e-4", "cbc", "cbc 1e-4", "autoround", "mathopt-highs", "mathopt-gscip")
MOST = {"cbc": 30_000, "mathopt-highs": 20_000, "mathopt-gscip": 20_000, "milp": 1_000_000,
        "autoround": 400_000}  # fmt: skip
SIZES = [
    ("random", 20, 2, 1), ("random", 20, 8, 2), ("random", 20, 64, 3),
    ("random", 100, 8, 1), ("random", 100, 32, 2), ("random", 100, 16, 3),
    ("random", 1000, 8, 1), ("random", 1000, 16, 2), ("random", 2000, 16, 3),
    ("random", 10_000, 32, 1), ("random", 10_000, 32, 2), ("random", 10_000, 32, 3),
    ("random", 100_000, 64, 1), ("random", 100_000, 64, 3),
    ("coarse", 20, 4, 1), ("coarse", 50, 8, 1), ("coarse", 50, 8, 2), ("coarse", 200, 8, 3),
    ("alike", 224, 12, 1), ("alike", 224, 12, 2), ("alike", 2000, 16, 2),
]  # fmt: skip


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pulp", type=Path, help="folder with PuLP")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds a solve")
    parser.add_argument("--largest", type=int, default=100_000, help="most layers to try")
    parser.add_argument("--only", default="", help="problems, by part of their title")
    parser.add_argument("--solvers", nargs="+", default=[*OURS, *THEIRS], metavar="NAME")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--one", nargs=2, help="(internal) solve one problem: its name, a solver")
    options = parser.parse_args()
    if options.one:
        name, solver = options.one
        json.dump(solve(name, solver, options), sys.stdout)
        return
    if options.pulp is None:
        print("no --pulp: CBC is left out", file=sys.stderr)
    rows = []
    for kind, L, C, R in SIZES:
        title = f"{kind} {L} × {C}, {R}"
        if options.largest >= L and options.only in title:
            names = [f"{kind} {L} {C} {R} {seed}" for seed in range(seeds(L, options.seeds))]
            rows.append(measured(title, names, L * C, options))
    if options.only in ("", "golden"):
        for case in ("size", "bops", "latency", "all"):
            rows.append(measured(f"golden {case}", [f"golden {case}"], 0, options))
    if options.only in ("", "real"):
        rows += real(options)
    report = {
        "commit": commit(),
        "machine": f"{platform.machine()}, one thread, Python {platform.python_version()}, "
        f"ortools {version('ortools')}, scipy {version('scipy')}",
        "patience": options.patience,
        "problems": rows,
    }
    write(report)
    tables(rows, options.solvers)


def real(options: Any) -> list[dict[str, Any]]:
    """All solvers on the problems of the assets' models, from files that are gone afterwards."""
    from benchmarks.assets_problems import write_problems
    from bitfront.search import read_problem

    with tempfile.TemporaryDirectory(prefix="bitfront-") as folder:
        rows = []
        for path, count in write_problems(Path(folder), options.assets):
            L, C = read_problem(path, {}).loss.shape
            name = f"real {path} {count}"
            rows.append(measured(f"{path.stem} {L} × {C}, {count}", [name], L * C, options))
        return rows


def seeds(layers: int, most: int) -> int:
    return most if layers < 1000 else 1


def problem(name: str, options: Any) -> Problem:
    kind, *numbers = name.split()
    if kind == "golden":
        return golden(numbers[0], options.assets)
    if kind == "real":
        return limited(Path(numbers[0]), int(numbers[1]))
    L, C, R, seed = map(int, numbers)
    return {"random": random_problem, "coarse": coarse, "alike": alike}[kind](L, C, R, seed)


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


def coarse(L: int, C: int, R: int, seed: int) -> Problem:
    """See the module docstring."""
    rng = np.random.default_rng(seed)
    steps = np.arange(C)
    loss = rng.integers(1, 30, (L, 1)) * (C - steps) + rng.integers(0, 5, (L, C))
    costs = {
        f"r{r}": rng.integers(1, 12, (L, 1)) * (steps + 1.0) + rng.integers(0, 3, (L, C))
        for r in range(R)
    }
    return _within(loss.astype(float), costs)


def alike(L: int, C: int, R: int, seed: int) -> Problem:
    """See the module docstring."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 7, L)
    whole = random_problem(7, C, R, seed)
    noise = rng.lognormal(0, 0.05, (L, C))
    return _within(whole.loss[kinds] * noise, {n: t[kinds] for n, t in whole.costs.items()})


def _within(loss: Any, costs: dict[str, Any]) -> Problem:
    limits = {
        name: float(np.round(0.7 * table.min(axis=1).sum() + 0.3 * table.max(axis=1).sum(), 9))
        for name, table in costs.items()
    }
    L, C = loss.shape
    names = tuple(f"layer{i}" for i in range(L)), tuple(f"s{c}" for c in range(C))
    return Problem(*names, loss, costs, limits)


def limited(path: Path, count: int) -> Problem:
    """The problem of a file under limits on its first ``count`` resources."""
    from bitfront.search import read_problem

    known = read_problem(path, {})
    within = _within(known.loss, dict(list(known.costs.items())[:count]))
    return replace(within, layers=known.layers, schemes=known.schemes)


def golden(case: str, assets: Path) -> Problem:
    from bitfront.search import parse_problem

    data = json.loads((assets / "golden" / "hawq_v3_resnet18.json").read_text())
    middle = {c["resource"]: c["limit"] for c in data["instances"] if c["fraction"] == 0.5}
    limits = middle if case == "all" else {case: middle[case]}
    return _untied(parse_problem(data, limits))


def _untied(tied: Problem) -> Problem:
    """The same with each group as one layer: the rivals know no groups."""
    members = {group[0]: list(group) for group in tied.groups}
    later = {i for group in tied.groups for i in group[1:]}
    rows = [members.get(i, [i]) for i in range(len(tied.layers)) if i not in later]

    def total(table: Any) -> Any:
        return np.array([[math.fsum(column) for column in table[row].T] for row in rows])

    return Problem(
        tuple(tied.layers[row[0]] for row in rows),
        tied.schemes,
        total(tied.loss),
        {name: total(table) for name, table in tied.costs.items()},
        tied.limits,
    )


def solve(name: str, solver: str, options: Any) -> dict[str, Any]:
    """One solver on one problem, in this process."""
    from benchmarks.rivals import RIVALS

    if options.pulp is not None:
        sys.path.append(str(options.pulp))
    instance = problem(name, options)
    engine, _, gap = solver.partition(" ")

    def run(instance: Problem) -> tuple[Any, float]:
        if engine in RIVALS:
            return RIVALS[engine](instance, options.patience, float(gap or 0))
        from bitfront.search import allocate

        found = allocate(instance, engine, time_limit=options.patience, gap=float(gap or 0))
        return [*map(instance.schemes.index, found.choice)], found.bound

    run(coarse(4, 3, 1, 0))  # imports, and what is built at the first call
    times: list[tuple[float, float]] = []
    while not times or (times[0][0] < SHORT and len(times) < REPEATS):
        wall, cpu = time.perf_counter(), _cpu()
        choice, bound = run(instance)
        times.append((time.perf_counter() - wall, _cpu() - cpu))
    seconds, used = (statistics.median(column) for column in zip(*times, strict=True))
    if choice is None:
        return {"seconds": seconds, "cpu": used}
    rows = np.arange(len(choice))
    loss = math.fsum(instance.loss[rows, choice].tolist())
    totals = {n: math.fsum(instance.costs[n][rows, choice].tolist()) for n in instance.limits}
    over = max(
        (totals[n] + instance.fixed.get(n, 0.0)) / limit - 1 for n, limit in instance.limits.items()
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": seconds, "cpu": used, "loss": loss, "over": over, "bound": bound,
        "peak_MiB": peak,
    }  # fmt: skip


def _cpu() -> float:
    """CPU seconds of this process and of those that it ran (CBC is one)."""
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, both))


def measured(title: str, names: list[str], size: int, options: Any) -> dict[str, Any]:
    """All solvers on all of ``names``; medians and the worst."""
    row: dict[str, Any] = {"problem": title, "instances": len(names)}
    found: dict[str, list[dict[str, Any]]] = {}
    for solver in options.solvers:
        engine = solver.split()[0]
        left_out = (
            (engine == "cbc" and options.pulp is None)
            or size > MOST.get(engine, math.inf)
            or (engine == "autoround" and len(problem(names[0], options).limits) > 1)
        )
        if not left_out:
            found[solver] = [_apart(name, solver, options) for name in names]
    best = [min(r[i].get("loss", math.inf) for r in found.values()) for i in range(len(names))]
    for solver, runs in found.items():
        done = [(r, b) for r, b in zip(runs, best, strict=True) if "loss" in r]
        row[solver] = {
            "seconds": statistics.median(r["seconds"] for r in runs),
            "cpu": statistics.median(r["cpu"] for r in runs),
            "worst_cpu": max(r["cpu"] for r in runs),
            "found": len(done),
            "killed": sum("killed" in r for r in runs),
        }
        if done:
            row[solver] |= {
                "worst_excess": max((r["loss"] - b) / abs(b) if b else 0.0 for r, b in done),
                "worst_gap": max((r["loss"] - r["bound"]) / abs(r["loss"] or 1) for r, _ in done),
                "worst_over": max(r["over"] for r, _ in done),
                "peak_MiB": max(r["peak_MiB"] for r, _ in done),
            }
    print(title, {k: _short(v) for k, v in row.items() if isinstance(v, dict)}, file=sys.stderr)
    return row


def _short(cell: dict[str, Any]) -> str:
    return f"{cell['cpu']:.3g} s, +{cell.get('worst_excess', math.nan):.2g}"


def _apart(name: str, solver: str, options: Any) -> dict[str, Any]:
    """``solve`` in a process that is killed when it overruns."""
    command = [sys.executable, "-m", "benchmarks.solvers", "--assets", str(options.assets)]
    command += ["--patience", str(options.patience), "--one", name, solver]
    if options.pulp is not None:
        command += ["--pulp", str(options.pulp)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment,
            timeout=options.patience + GRACE,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "cpu": seconds, "killed": True}
    if done.returncode:
        print(f"{solver} on {name}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return {"seconds": math.nan, "cpu": math.nan}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))  # HiGHS prints stray lines


def tables(rows: list[dict[str, Any]], solvers: list[str]) -> None:
    for title, key in (("CPU seconds, median", "cpu"), ("worst excess of the loss", "worst_excess"),
                       ("worst proven gap", "worst_gap")):  # fmt: skip
        show(
            title,
            ["problem, limits", *solvers],
            [[r["problem"], *((r.get(s) or {}).get(key) for s in solvers)] for r in rows],
        )


if __name__ == "__main__":
    main()
