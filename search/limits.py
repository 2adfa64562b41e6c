"""Limits and floors that no allocation can meet; their names and spelling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from bitfront.errors import Infeasible
from bitfront.types import Problem

from .items import Float, Items, merge


def require(items: Items, least: Float | None = None) -> None:
    """Raises ``Infeasible`` when a limit or floor cannot be met, whatever the others.

    least: (R,) the least totals, where not those of ``items``, which are without conversions.

    Names each such resource with its limit and the least total that would do, or its floor and the
    greatest total; in ``binding`` and ``short`` too.
    """
    least = items.least() if least is None else least
    binding: dict[str, tuple[float, float]] = {}
    short: dict[str, tuple[float, float]] = {}
    for r, name in enumerate(items.resources):
        if least[r] > items.room[r] + items.slack[r]:
            kind = binding if items.sign[r] > 0 else short
            kind[name] = (items.bound(r), total(items, r, least[r]))
    words = [
        *(
            f"the limit on {name} is {exactly(a)}, the least possible is {exactly(b)}"
            for name, (a, b) in binding.items()
        ),
        *(
            f"{name} must be at least {exactly(a)}, the greatest possible is {exactly(b)}"
            for name, (a, b) in short.items()
        ),
    ]
    if words:
        raise Infeasible("; ".join(words), _remedy(binding, short), binding, short)


def total(items: Items, r: int, used: float) -> float:
    """The total, fixed part included, of which row ``r`` has ``used``."""
    fixed = items.problem.fixed.get(items.resources[r], 0.0)
    return math.fsum([items.sign[r] * used, fixed])


def _remedy(binding: dict[str, tuple[float, float]], short: dict[str, tuple[float, float]]) -> str:
    up = " and ".join(f"{name} to {exactly(total)}" for name, (_, total) in binding.items())
    down = " and ".join(f"{name} to {exactly(total)}" for name, (_, total) in short.items())
    remedies = []
    if up:
        remedies.append(f"raise {up}, or allow smaller schemes")
    if down:
        remedies.append(f"lower {down}, or allow larger schemes")
    return "; ".join(remedies)


def unused(name: str, problem: Problem) -> str:
    """A name for one more resource: ``name``, primed while the problem has a cost so called."""
    while name in problem.costs:
        name += "'"
    return name


def exactly(number: float) -> str:
    """The shortest spelling that reads back as the same double: a limit so spelled will do."""
    return repr(float(number)).removesuffix(".0")


def stated(items: Items) -> str:
    """All limits and floors, in words."""
    return " and ".join(
        f"{name} {'<=' if items.sign[r] > 0 else '>='} {exactly(items.bound(r))}"
        for r, name in enumerate(items.resources)
    )


def clashing(items: Items, clash: Sequence[tuple[str, int, float]]) -> Infeasible:
    """Of limits that can each be met, but not together.

    clash: resources, the sign of a limit or floor, and the total that would do if the others stay.
    """
    ways = [
        f"{verb} {' or '.join(f'{name} to {exactly(b)}' for name, s, b in clash if s == sign)}"
        for verb, sign in (("raise", 1), ("lower", -1))
        if any(s == sign for _, s, _ in clash)
    ]
    return Infeasible(
        f"no allocation is within {stated(items)} together, though each can be met alone",
        f"keep the others and {', or '.join(ways)}" if ways else "loosen several",
        clash=clash,
    )


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
