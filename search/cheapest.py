"""The other way round: the least cost within a loss.

The roles change and the problem is the same: the cost is what is minimized, the loss one more
limited resource, the first, so that of equal costs the least loss is taken.
"""

from __future__ import annotations

import math
from dataclasses import replace

from bitfront.errors import Infeasible, ProblemError
from bitfront.types import Allocation, Problem

from .base import allocate
from .ilp import proven
from .limits import exactly, unused


def cheapest(
    problem: Problem, resource: str, most: float, *, time_limit: float | None = None
) -> Allocation:
    """The least total of ``resource`` with a loss of at most ``most``, within all limits; proven.

    ``most`` may be exceeded by rounding only, as limits may. ``optimal`` says that no allocation
    within them has a lower total of ``resource``, up to rounding; ``bound`` and ``gap``, which are
    of the loss, are nan. With a ``time_limit`` (seconds) that runs out, the cheapest found.

    Raises ``ProblemError`` for a resource without costs or a loss that is not finite, and
    ``Infeasible`` when no allocation within the limits has so small a loss, with the least of any.
    """
    if resource not in problem.costs:
        known = ", ".join(problem.costs) or "no costs at all"
        raise ProblemError(f"the least total of {resource!r}", f"the problem has {known}")
    loss = unused("loss", problem)
    turned = replace(
        problem,
        loss=problem.costs[resource],
        costs={loss: problem.loss, **problem.costs},
        limits={**problem.limits, loss: most},
    )
    try:
        found = proven(turned, time_limit, explain=False)
    except Infeasible:
        best = allocate(problem, time_limit=time_limit)  # where limits clash, it says which
        if not best.optimal or best.loss <= most:
            raise  # the time ran out
        raise Infeasible(
            f"no allocation within the limits has a loss of at most {exactly(most)}, "
            f"the least possible is {exactly(best.loss)}",
            f"raise the loss to {exactly(best.loss)}, or the limits",
            {loss: (most, best.loss)},
        ) from None
    return replace(
        found,
        loss=found.costs[loss],
        costs={name: found.costs[name] for name in problem.costs},
        bound=math.nan,
        gap=math.nan,
    )
