"""Starts from tables that are believed less: losses to a power, each measured.

Sums of losses are of layers alone. Far from full precision layers' losses together are less than
that sum where outputs are wrong already, and by how much is not known beforehand. Of s^α with α
below 1 the sum says less of the worst layers, and so shares out the budget more evenly. So α is
searched for, from table to table, by allocations that are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bitfront.pool import Pool
from bitfront.search import allocate
from bitfront.types import Allocation, Problem, Trial

DOWN = (0.8, 0.6, 0.45, 0.35)
UP = (1.4, 2.0)
SHARE = 4  # one of so many measurements is spent on starts, at most
TABLES = 3  # the best so many, by what their allocations measured


def tempered(
    pool: Pool,
    problems: Mapping[str, Problem],
    trials: Mapping[str, Trial],
    solver: str,
    measure: Callable[[Allocation, str, float], Trial],
    allowance: int,
) -> int:
    """Adds to ``pool`` allocations of powers of the tables; how many were measured.

    problems: by table. trials: what each table's own allocation measured. measure: builds an
    allocation of a table's power and measures it on the calibration data.
    """
    spent, most = 0, allowance // SHARE
    seen = {_choice(trials[name], problem) for name, problem in problems.items()}
    order = sorted(problems, key=lambda name: pool[trials[name].id].value(pool.metric))
    for name in order[:TABLES]:
        problem = problems[name]
        for powers in (DOWN, UP):
            last = pool[trials[name].id].value(pool.metric)
            for power in powers:
                allocation = allocate(_power(problem, power), solver)
                if allocation.choice in seen:
                    continue
                if spent == most:
                    return spent
                seen.add(allocation.choice)
                trial = measure(allocation, name, power)
                spent += 1
                pool.add([trial])
                value = pool[trial.id].value(pool.metric)
                if value > last:
                    break
                last = value
    return spent


def _choice(trial: Trial, problem: Problem) -> Sequence[str]:
    return tuple(trial.schemes[layer] for layer in problem.layers)


def _power(problem: Problem, power: float) -> Problem:
    """Losses to a power, with their signs; the greatest is 1."""
    loss = np.where(problem.allowed, problem.loss, 0.0)
    scale = float(np.abs(loss).max()) or 1.0
    powers = np.sign(loss) * (np.abs(loss) / scale) ** power
    return replace(problem, loss=powers, interactions=None)
