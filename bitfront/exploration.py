"""Exploration of one point by a registered explorer, other than by refinement.

The explorer begins from what was measured, for whichever budget. What it asks for is built and
measured on the calibration data until it is hopeless beside the best so far (``pruning``). Seeded,
and told the same of what is recorded, it asks for the same allocations again after a kill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import count

from bitfront.exploring import explore
from bitfront.pool import Pool
from bitfront.pruning import Hopeless, loss_of
from bitfront.search import EXPLORERS
from bitfront.study import Progress, Study
from bitfront.types import Allocation, Problem, Trial


def explored(
    study: Study,
    pool: Pool,
    problem: Problem,
    explorer: str,
    measure: Callable[[Mapping[str, str], Hopeless], Trial],
    allowance: int,
    progress: Progress,
) -> int:
    """Adds to ``pool`` what an explorer asks for; how many allocations that were, those given up
    too, ``allowance`` at most.

    problem: what layers may take, within which limits; the pool holds an allocation within them.
    All of the pool that it allows, within the limits or not, are the explorer's starts. measure:
    builds an allocation and measures it on the calibration data, unless that gives it up. One that
    is given up stays out of the pool, and the explorer is told what is expected of it
    (``loss_of``); of a metric of wholes nothing is given up.
    """
    metric, asked = pool.metric, count()
    starts = [(_allocation(problem, at.trial), at.value(metric)) for at in pool.possible(problem)]

    def loss(allocation: Allocation) -> float:
        progress("exploring", next(asked), allowance)
        best = min(pool.within(problem), key=lambda at: (at.value(metric), at.trial.key))
        hopeless = Hopeless(metric, best.sums[metric])
        trial = measure(allocation.schemes, hopeless)
        pool.add([trial])
        return loss_of(study, trial, hopeless)

    found = explore(EXPLORERS[explorer]([problem], starts, seed=0), loss, allowance)
    progress("exploring", allowance, allowance)
    return len(found)


def _allocation(problem: Problem, trial: Trial) -> Allocation:
    """A measured allocation as explorers are told of it."""
    schemes, unknown = trial.schemes, math.nan
    return Allocation(
        problem.layers, tuple(schemes[layer] for layer in problem.layers),
        problem.objective(schemes), trial.costs, unknown, unknown, False, 0.0, trial.solver,
    )  # fmt: skip
