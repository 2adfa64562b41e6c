"""Allocations that are good and unlike each other, so that each is worth measuring.

    D(a, b)   in how many items (groups, and layers in no group) a and b take different schemes

The k-th is the least loss with D at least ``distance`` from each of those before. D is linear in
the choice: one more limited resource, of which an item that leaves an earlier allocation uses -1.
"""

from __future__ import annotations

from dataclasses import replace

from bitfront.errors import Infeasible, InvalidInput
from bitfront.types import Allocation, Problem

from .ilp import proven
from .items import merge
from .limits import unused
from .neighbours import CHANGES, changes


def several(
    problem: Problem, count: int, distance: int = 1, *, time_limit: float | None = None
) -> list[Allocation]:
    """The least loss within all limits, then the least that differs from it, and so on; proven.

    Any two differ in at least ``distance`` groups. ``bound``, ``gap`` and ``optimal`` of each are
    against all that differ so from those before it. Fewer than ``count`` where there are no more.

    ``time_limit`` is in seconds, for each of them; then there may be fewer too where none was found
    in it. Raises ``InvalidInput`` for a count or distance below 1, and what ``ilp`` raises when
    nothing is within the limits at all.
    """
    for name, value in (("count", count), ("distance", distance)):
        if value < 1:
            raise InvalidInput(f"a {name} of {value}", "give a whole number from 1")
    items = merge(problem)
    found = [proven(problem, time_limit)]
    apart = problem
    while len(found) < count:
        name = unused(CHANGES, apart)
        apart = replace(
            apart,
            costs={**apart.costs, name: -changes(items, found[-1].choice)},
            limits={**apart.limits, name: -distance},
        )
        try:
            other = proven(apart, time_limit, explain=False)
        except Infeasible:
            break
        costs = {resource: other.costs[resource] for resource in problem.costs}
        found.append(replace(other, costs=costs))
    return found
