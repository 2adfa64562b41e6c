"""Moves around an allocation against enumeration in rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bitfront.errors import ProblemError
from bitfront.search import near, within
from bitfront.search.neighbours import CHANGES
from bitfront.types import Problem
from tests.property.test_search import problems
from tests.reference import allocation as reference

Choice = tuple[int, ...]


def fitting(problem: Problem) -> dict[Choice, Fraction]:
    """Every choice within the limits, with its exact loss."""
    return {
        choice: Fraction(loss, reference.UNIT)
        for choice, loss, costs in reference.totals(problem)
        if reference.inside(problem, costs)
    }


def changes(problem: Problem, a: Choice, b: Choice) -> int:
    """Groups, and layers in none, that differ."""
    alone = [(i,) for i in range(len(a)) if not any(i in g for g in problem.groups)]
    return sum(any(a[i] != b[i] for i in item) for item in [*problem.groups, *alone])


def named(problem: Problem, choice: Choice) -> tuple[str, ...]:
    return tuple(problem.schemes[c] for c in choice)


def rounding(problem: Problem) -> float:
    """More than correctly rounded sums, and differences of entries, are off by."""
    return 16 * 2.0**-52 * float(abs(problem.loss).max(initial=0.0)) * len(problem.layers)


@st.composite
def started(draw: st.DrawFn) -> tuple[Problem, Choice]:
    problem = draw(problems())
    possible = sorted(fitting(problem))
    assume(possible)
    return problem, draw(st.sampled_from(possible))


@settings(max_examples=200)
@given(started(), st.integers(1, 6))
def test_the_nearest_are_the_best_moves_of_one_and_two(
    case: tuple[Problem, Choice], count: int
) -> None:
    problem, start = case
    possible, eps = fitting(problem), rounding(problem)
    found = near(problem, named(problem, start), count)
    assert len({a.choice for a in found}) == len(found) <= count
    better = sorted(
        float(loss)
        for choice, loss in possible.items()
        if 1 <= changes(problem, start, choice) <= 2 and loss < possible[start] - Fraction(eps)
    )
    assert len(found) >= min(count, len(better))
    for allocation, loss in zip(found, better, strict=False):
        assert allocation.loss <= loss + eps
    for allocation in found:
        choice = tuple(problem.schemes.index(s) for s in allocation.choice)
        assert 1 <= changes(problem, start, choice) <= 2
        assert allocation.loss <= float(possible[start]) + eps
    assert [a.loss for a in found] == pytest.approx(sorted(a.loss for a in found), abs=eps)


@settings(max_examples=150)
@given(started(), st.integers(0, 3))
def test_within_a_radius_is_the_least_loss_there(case: tuple[Problem, Choice], radius: int) -> None:
    problem, start = case
    found = within(problem, named(problem, start), radius)
    choice = tuple(problem.schemes.index(s) for s in found.choice)
    assert changes(problem, start, choice) <= radius
    least = min(
        loss for other, loss in fitting(problem).items() if changes(problem, start, other) <= radius
    )
    assert found.loss <= float(least) + rounding(problem)
    assert found.costs[CHANGES] == changes(problem, start, choice)


def problem_of_four(limit: float) -> Problem:
    loss = [[4.0, 1.0], [3.0, 1.0], [2.0, 1.0], [1.5, 1.0]]
    size = [[1.0, 2.0]] * 4
    return Problem(tuple("abcd"), ("lo", "hi"), loss, {"size": size}, {"size": limit})  # type: ignore[arg-type, dict-item]


def test_the_best_two_moves_come_first() -> None:
    moves = near(problem_of_four(6), ("lo",) * 4, 99)
    assert (moves[0].choice, moves[0].loss) == (("hi", "hi", "lo", "lo"), 5.5)


def test_a_start_that_is_barred_is_refused() -> None:
    problem = problem_of_four(8)
    allowed = problem.allowed.copy()
    allowed[1, 0] = False
    barred = Problem(
        problem.layers, problem.schemes, problem.loss, problem.costs, problem.limits,
        allowed=allowed, groups=((0, 3),),
    )  # fmt: skip
    with pytest.raises(ProblemError, match="layer 'b' starts at lo"):
        near(barred, ("lo",) * 4, 3)
    with pytest.raises(ProblemError, match="layer 'a' starts at"):
        within(barred, ("lo", "hi", "lo", "hi"), 3)
