"""Limits that no allocation can meet; names and spelling of limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from bitfront.errors import Infeasible
from bitfront.types import Problem

from .items import Items, merge


def require(items: Items) -> None:
    """Raises ``Infeasible`` when a limit is below the least total of its resource.

    Names each such resource with its limit and the least that would do, in ``binding`` too.
    """
    least = items.least()
    fixed = items.problem.fixed
    binding = {
        name: (items.problem.limits[name], math.fsum([least[r], fixed.get(name, 0.0)]))
        for r, name in enumerate(items.resources)
        if least[r] > items.room[r] + items.slack[r]
    }
    if binding:
        words = (
            f"the limit on {name} is {exactly(limit)}, the least possible is {exactly(total)}"
            for name, (limit, total) in binding.items()
        )
        remedy = " and ".join(f"{name} to {exactly(total)}" for name, (_, total) in binding.items())
        raise Infeasible("; ".join(words), f"raise {remedy}, or allow smaller schemes", binding)


def unused(name: str, problem: Problem) -> str:
    """A name for one more resource: ``name``, primed while the problem has a cost so called."""
    while name in problem.costs:
        name += "'"
    return name


def exactly(number: float) -> str:
    """The shortest spelling that reads back as the same double: a limit so spelled will do."""
    return repr(float(number)).removesuffix(".0")


def fitting(
    problem: Problem, allocations: Sequence[Mapping[str, str]], limits: bool = True
) -> list[bool]:
    """Of each allocation (layer -> scheme) whether ``problem`` allows it.

    It must name the problem's layers, give each an allowed scheme, the same throughout a group, and
    with ``limits`` be within these.
    """
    items = merge(problem)
    index = {scheme: i for i, scheme in enumerate(problem.schemes)}

    def fits(schemes: Mapping[str, str]) -> bool:
        if schemes.keys() != set(problem.layers):
            return False
        chosen = [index.get(schemes[layer], -1) for layer in problem.layers]
        picks = [{chosen[i] for i in members} for members in items.members]
        if any(len(pick) > 1 or -1 in pick for pick in picks):
            return False
        one = np.array([pick for (pick,) in picks], dtype=np.intp)
        if not items.allowed[np.arange(len(one)), one].all():
            return False
        return not limits or items.fits(one)

    return [fits(schemes) for schemes in allocations]
