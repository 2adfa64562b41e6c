"""Engines on what is left when choices are fixed: which should decide it?

``python -m benchmarks.cores [--patience SECONDS]``

For each problem of ``benchmarks.solvers`` the allocation and the bound that ``ilp`` has after its
first search (256 states) leave a core: the items with a choice left. Every engine proves the same
core from the same start, to a gap of 0, in a process of its own. JSON on standard output, a table
of CPU seconds on standard error; "-" is no proof within the patience.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks.common import arguments, commit, show, write
from benchmarks.rivals import gscip, highs
from benchmarks.solvers import problem
from bitfront.types import Problem

ENGINES = ("inside", "cp-sat", "mathopt-highs", "mathopt-gscip")
WIDTHS = (256, 2048, 16_384, 131_072)
GRACE = 10.0
CASES = [
    "random 20 64 3 0", "random 100 8 1 0", "random 100 32 1 1", "random 100 32 2 0",
    "random 100 32 2 1", "random 100 16 3 0", "random 1000 32 1 1", "random 1000 16 2 0",
    "random 1000 16 2 2", "random 2000 16 3 0", "random 2000 16 3 2", "random 10000 32 1 0",
    "random 10000 32 2 0", "random 10000 32 2 1", "coarse 50 8 2 0", "coarse 200 8 3 0",
    "alike 224 12 2 0", "alike 2000 16 2 0",
]  # fmt: skip


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--patience", type=float, default=30.0, help="seconds a proof")
    parser.add_argument("--one", nargs=2, help="(internal) one problem, one engine")
    options = parser.parse_args()
    if options.one:
        name, engine = options.one
        json.dump(prove(name, engine, options), sys.stdout)
        return
    rows = []
    for name in CASES:
        row: dict[str, Any] = {"problem": name}
        for engine in ENGINES:
            row[engine] = _apart(name, engine, options)
            row |= {key: row[engine].pop(key) for key in ("items", "choices") if key in row[engine]}
        rows.append(row)
        print(row, file=sys.stderr)
    write(
        {
            "commit": commit(),
            "machine": f"{platform.machine()}, one thread, Python {platform.python_version()}, "
            f"ortools {version('ortools')}",
            "patience": options.patience,
            "cores": rows,
        }
    )
    show(
        "CPU seconds to the proof",
        ["problem", "items", "choices", *ENGINES],
        [
            [r["problem"], r.get("items"), r.get("choices")]
            + [r[e]["cpu"] if r[e].get("proven") else "-" for e in ENGINES]
            for r in rows
        ],
    )


def prove(name: str, engine: str, options: Any) -> dict[str, Any]:
    """One engine on one core, in this process."""
    from bitfront.search.closing import Solution, close, limit_rows
    from bitfront.search.core import Row, decide, open_items
    from bitfront.search.dual import climb
    from bitfront.search.exact import incumbent
    from bitfront.search.inside import decide_inside
    from bitfront.search.items import merge

    items = merge(problem(name, options))
    dual = climb(items)
    found = close(items, dual, Solution(incumbent(items, dual, math.inf), dual.bound))
    best = found.picks
    kept = dual.keep(items, items.losses(best))
    kept[np.arange(len(best)), best] = True
    free = open_items(kept)
    objective, rows = Row(items.loss, items.rounding(best) / 2), limit_rows(items)
    wall, cpu = time.perf_counter(), time.process_time()
    deadline = wall + options.patience
    if engine == "inside":
        for width in WIDTHS:
            answer = decide_inside(kept, objective, rows, best, dual.prices, width, deadline)
            if answer.proven:
                break
        proven = answer.proven
    elif engine == "cp-sat":
        proven = decide(kept, objective, rows, best, options.patience).proven
    else:
        rival = highs if engine == "mathopt-highs" else gscip
        choice, bound = rival(_core(items, best, kept, free), options.patience, 0.0)
        core = _core(items, best, kept, free)
        loss = math.nan if choice is None else core.loss[np.arange(len(free)), choice].sum()
        proven = bool(loss - bound <= 1e-9 * abs(items.losses(best)))
    return {
        "proven": bool(proven),
        "seconds": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "items": len(free),
        "choices": int(np.count_nonzero(kept[free])),
    }


def _core(items: Any, best: Any, kept: Any, free: Any) -> Problem:
    """The core as a problem of its own; what is dropped is dear instead."""
    fixed = np.setdiff1d(np.arange(len(best)), free)
    names = tuple(map(str, range(len(free)))), tuple(map(str, range(items.loss.shape[1])))
    dear = 1e3 * float(np.ptp(items.loss[free], axis=1).sum())
    limits = {
        name: float(room + slack - table[fixed, best[fixed]].sum())
        for name, table, room, slack in zip(
            items.resources, items.cost, items.room, items.slack, strict=True
        )
    }
    costs = {n: table[free] for n, table in zip(items.resources, items.cost, strict=True)}
    return Problem(*names, np.where(kept[free], items.loss[free], dear), costs, limits)


def _apart(name: str, engine: str, options: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.cores", "--patience", str(options.patience)]
    command += ["--assets", str(options.assets), "--one", name, engine]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=3 * options.patience + GRACE,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"proven": False, "killed": True}
    if done.returncode:
        return {"proven": False, "error": done.stderr.strip().splitlines()[-1]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))  # HiGHS prints stray lines


if __name__ == "__main__":
    main()
