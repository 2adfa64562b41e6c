"""Multiple-choice knapsacks by enumeration, exact: doubles are integers in units of 2^-1074."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.types import Problem

UNIT = 2**1074


def whole(value: float) -> int:
    numerator, denominator = float(value).as_integer_ratio()
    return numerator * (UNIT // denominator)


def total(table: Any, choice: tuple[int, ...]) -> Fraction:
    """The exact sum of a table's entries under ``choice`` (a scheme index per layer)."""
    return sum((Fraction(float(table[i, c])) for i, c in enumerate(choice)), Fraction(0))


def choices(problem: Problem) -> Iterator[tuple[int, ...]]:
    """Every choice that respects groups, pins and bars."""
    assert problem.allowed is not None
    columns = range(len(problem.schemes))
    options = [[c for c in columns if problem.allowed[i, c]] for i in range(len(problem.layers))]
    for choice in itertools.product(*options):
        if all(len({choice[i] for i in group}) <= 1 for group in problem.groups):
            yield choice


def totals(problem: Problem) -> list[tuple[tuple[int, ...], int, dict[str, int]]]:
    """(choice, loss, resource -> total with its fixed part) of every choice, in units."""
    loss = [[whole(x) if x == x else 0 for x in row] for row in problem.loss.tolist()]
    costs = {
        name: [[whole(x) if x == x else 0 for x in row] for row in table.tolist()]
        for name, table in problem.costs.items()
    }
    fixed = {name: whole(problem.fixed.get(name, 0.0)) for name in costs}
    return [
        (
            choice,
            sum(loss[i][c] for i, c in enumerate(choice)),
            {n: fixed[n] + sum(t[i][c] for i, c in enumerate(choice)) for n, t in costs.items()},
        )
        for choice in choices(problem)
    ]


def inside(problem: Problem, costs: dict[str, int], apart: str = "") -> bool:
    """Whether totals in units are within every limit, but that on ``apart``, and every floor."""
    above = any(costs[n] > whole(b) for n, b in problem.limits.items() if n != apart)
    return not above and all(costs[n] >= whole(b) for n, b in problem.floors.items())


def optimum(problem: Problem) -> tuple[Fraction, Fraction] | None:
    """The least loss and its least first cost within the limits; None when nothing fits."""
    fitting = [
        (loss, next(iter(costs.values()), 0))
        for _, loss, costs in totals(problem)
        if inside(problem, costs)
    ]
    if not fitting:
        return None
    loss, cost = min(fitting)
    return Fraction(loss, UNIT), Fraction(cost, UNIT)


def least(problem: Problem, resource: str) -> Fraction:
    """The least total of one resource within the floors, and the limits on the others."""
    return min(
        Fraction(costs[resource], UNIT)
        for _, _, costs in totals(problem)
        if inside(problem, costs, resource)
    )


def hull(problem: Problem, resource: str) -> list[tuple[Fraction, Fraction]]:
    """Corners (cost, loss) of the lower left hull of all choices, from cheapest to least loss."""
    points = sorted({(costs[resource], loss) for _, loss, costs in totals(problem)})
    corners: list[tuple[int, int]] = []
    for x, y in points:
        if corners and y >= corners[-1][1]:
            continue
        while len(corners) > 1:
            (ax, ay), (bx, by) = corners[-2:]
            if (ay - by) * (x - bx) > (by - y) * (bx - ax):
                break
            corners.pop()
        corners.append((x, y))
    return [(Fraction(x, UNIT), Fraction(y, UNIT)) for x, y in corners]


def dynamic(
    loss: NDArray[np.int64], costs: Sequence[NDArray[np.int64]], limits: Sequence[int]
) -> int:
    """The least total of integers ``loss`` (L, C) within two budgets, by dynamic programming.

    costs: two tables (L, C) of integers, not negative. Every pair of totals is tabulated.
    """
    (a, b), (most_a, most_b) = costs, limits
    never = np.iinfo(np.int64).max // 2
    best = np.zeros((most_a + 1, most_b + 1), dtype=np.int64)
    for row, x, y in zip(loss.tolist(), a.tolist(), b.tolist(), strict=True):
        after = np.full_like(best, never)
        for value, i, j in zip(row, x, y, strict=True):
            if i <= most_a and j <= most_b:
                rest = best[: most_a + 1 - i, : most_b + 1 - j] + value
                np.minimum(after[i:, j:], rest, out=after[i:, j:])
        best = after
    return int(best[-1, -1])
