"""How others solve the same program, for ``benchmarks.solvers``; one run is one process.

    milp      scipy's ``milp``, which is HiGHS, at a relative gap of 0 or as asked
    cbc       PuLP with its CBC, as ModelOpt, MCT and Quark call it
    autoround dynamic programming over layers as in AutoRound's AutoScheme (``auto_scheme/``): from
              each total of bits only the least loss stays, totals that cost more and lose more are
              dropped, then all but ``BEAM`` states; one budget, costs in whole units
    mathopt-* the same program through OR-Tools' MathOpt: HiGHS, GSCIP

All get the problem as tables and give (choice, bound), which the caller looks at. The losses given
to programs with absolute tolerances (HiGHS stops at a gap of 1e-6, CBC at 1e-5) are scaled up to a
mean of ``SIZE``, or they would stop early on small ones.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import numpy as np

from bitfront.types import Problem

BEAM = 10_000
SIZE = 1e8  # of all losses at the mean of each layer
UNITS = 2.0**31  # that AutoRound's budget is counted in, where costs are not whole


def _scale(problem: Problem) -> float:
    mean = float(problem.loss.mean(axis=1).sum())
    return SIZE / mean if mean > 0 else 1.0


def milp(problem: Problem, seconds: float, gap: float) -> tuple[Any, float]:
    from scipy.optimize import LinearConstraint, milp
    from scipy.sparse import csr_array, vstack

    L, C = problem.loss.shape
    one = csr_array(
        (np.ones(L * C), (np.repeat(np.arange(L), C), np.arange(L * C))), shape=(L, L * C)
    )
    rows = [csr_array(problem.costs[name].reshape(1, -1)) for name in problem.limits]
    limits = [v - problem.fixed.get(name, 0.0) for name, v in problem.limits.items()]
    low = np.concatenate([np.ones(L), np.full(len(rows), -np.inf)])
    found = milp(
        problem.loss.ravel() * _scale(problem),
        integrality=np.ones(L * C),
        bounds=(0, 1),
        constraints=LinearConstraint(
            vstack([one, *rows]), low, np.concatenate([np.ones(L), limits])
        ),
        options={"time_limit": seconds, "mip_rel_gap": gap},
    )
    if found.x is None:
        return None, math.nan
    return found.x.reshape(L, C).argmax(axis=1).tolist(), float(found.mip_dual_bound) / _scale(
        problem
    )


def cbc(problem: Problem, seconds: float, gap: float) -> tuple[Any, float]:
    import pulp

    L, C = problem.loss.shape
    program = pulp.LpProblem("allocation", pulp.LpMinimize)
    x = [[pulp.LpVariable(f"x{i}_{c}", cat="Binary") for c in range(C)] for i in range(L)]
    flat = [v for row in x for v in row]

    def total(table: Any) -> Any:
        return pulp.LpAffineExpression(zip(flat, table.ravel().tolist(), strict=True))

    program += total(problem.loss * _scale(problem))
    for row in x:
        program += pulp.lpSum(row) == 1
    for name, limit in problem.limits.items():
        program += total(problem.costs[name]) <= limit - problem.fixed.get(name, 0.0)
    program.solve(pulp.PULP_CBC_CMD(msg=False, timeLimit=seconds, gapRel=gap, threads=1))
    if program.sol_status not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
        return None, math.nan
    choice = [int(np.argmax([v.value() for v in row])) for row in x]
    proven = program.sol_status == pulp.LpSolutionOptimal
    loss = float(problem.loss[np.arange(L), choice].sum())
    return choice, loss * (1 - gap) if proven else math.nan


def autoround(problem: Problem, seconds: float, gap: float) -> tuple[Any, float]:
    ((name, limit),) = problem.limits.items()
    cost = problem.costs[name]
    if not (cost == np.rint(cost)).all():
        cost, limit = np.ceil(cost * (UNITS / limit)), UNITS
    most = int(limit - problem.fixed.get(name, 0.0))
    bits, loss = np.zeros(1, dtype=np.int64), np.zeros(1)
    trail = []
    for own, more in zip(problem.loss, cost.astype(np.int64), strict=True):
        total = (bits + more[:, None]).ravel()
        value = (loss + own[:, None]).ravel()
        order = np.lexsort((value, total))
        order = order[total[order] <= most]
        low = np.minimum.accumulate(value[order])
        first = np.ones(len(order), dtype=bool)
        first[1:] = low[1:] < low[:-1]
        stay = order[first]
        if len(stay) > BEAM:
            stay = stay[np.linspace(0, len(stay) - 1, BEAM).astype(int)]
        if not len(stay):
            return None, math.nan
        trail.append(stay)
        before = len(bits)
        trail[-1] = (stay % before, stay // before)
        bits, loss = total[stay], value[stay]
    at, choice = int(loss.argmin()), []
    for parent, scheme in reversed(trail):
        choice.append(int(scheme[at]))
        at = int(parent[at])
    return choice[::-1], math.nan


def mathopt(problem: Problem, seconds: float, gap: float, engine: str) -> tuple[Any, float]:
    from ortools.math_opt.python import mathopt as mo

    L, C = problem.loss.shape
    model = mo.Model()
    x = [[model.add_binary_variable() for _ in range(C)] for _ in range(L)]
    flat = [v for row in x for v in row]
    for row in x:
        model.add_linear_constraint(mo.fast_sum(row) == 1)

    def total(table: Any) -> Any:
        return mo.fast_sum(a * v for a, v in zip(table.ravel().tolist(), flat, strict=True))

    for name, limit in problem.limits.items():
        model.add_linear_constraint(
            total(problem.costs[name]) <= limit - problem.fixed.get(name, 0.0)
        )
    model.minimize(total(problem.loss * _scale(problem)))
    options = mo.SolveParameters(
        time_limit=timedelta(seconds=seconds), relative_gap_tolerance=gap,
        absolute_gap_tolerance=0.0,
        threads=None if engine == "HIGHS" else 1,  # which MathOpt's HiGHS refuses
    )  # fmt: skip
    done = mo.solve(model, getattr(mo.SolverType, engine), params=options)
    if not done.has_primal_feasible_solution():
        return None, math.nan
    values = done.variable_values()
    choice = [int(np.argmax([values[v] for v in row])) for row in x]
    return choice, float(done.termination.objective_bounds.dual_bound) / _scale(problem)


def highs(problem: Problem, seconds: float, gap: float) -> tuple[Any, float]:
    return mathopt(problem, seconds, gap, "HIGHS")


def gscip(problem: Problem, seconds: float, gap: float) -> tuple[Any, float]:
    return mathopt(problem, seconds, gap, "GSCIP")


RIVALS = {
    "milp": milp,
    "cbc": cbc,
    "autoround": autoround,
    "mathopt-highs": highs,
    "mathopt-gscip": gscip,
}
