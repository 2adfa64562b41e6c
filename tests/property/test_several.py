"""Several allocations that differ, against enumeration in rational arithmetic."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bitfront.errors import Infeasible, InvalidInput
from bitfront.search import allocate, several
from bitfront.types import Allocation, Problem
from tests.property.test_neighbours import Choice, changes, fitting, rounding
from tests.property.test_search import problems, widened
from tests.reference import allocation as reference


def taken(problem: Problem, found: Allocation) -> Choice:
    return tuple(problem.schemes.index(name) for name in found.choice)


@settings(max_examples=300)
@given(problems(), st.integers(1, 6), st.integers(1, 3))
def test_each_is_the_best_of_those_that_differ(problem: Problem, count: int, distance: int) -> None:
    left = fitting(widened(problem))
    if not left:
        with pytest.raises(Infeasible):
            several(problem, count, distance)
        return
    assume(left == fitting(problem))  # else some fit by rounding only
    found = several(problem, count, distance)
    for one in found:
        choice = taken(problem, one)
        assert choice in left
        assert one.loss == float(reference.total(problem.loss, choice))
        assert one.loss <= float(min(left.values())) + rounding(problem)
        assert one.optimal
        assert one.gap == 0
        assert list(one.costs) == list(problem.costs)
        assert one.costs == pytest.approx(problem.totals(choice), rel=1e-13)
        left = {c: loss for c, loss in left.items() if changes(problem, c, choice) >= distance}
    assert len(found) == count or not left


@settings(max_examples=50)
@given(problems())
def test_the_first_is_the_allocators_own(problem: Problem) -> None:
    try:
        best = allocate(problem)
    except Infeasible:
        assume(False)
    first, *_ = several(problem, 2)
    assert (first.choice, first.loss, first.costs) == (best.choice, best.loss, best.costs)


def made(L: int = 8, C: int = 3, **other: object) -> Problem:
    rng = np.random.default_rng(5)
    size = rng.integers(1, 50, (L, 1)).astype(float)
    bits = np.array([2.0, 4.0, 8.0, 16.0][:C])
    loss = rng.lognormal(-3, 2, (L, 1)) * 4.0**-bits
    names = tuple(f"l{i}" for i in range(L)), tuple(f"w{b:.0f}" for b in bits)
    costs = {"bits": size * bits}
    return Problem(*names, loss, costs, {"bits": 4 * float(size.sum())}, **other)  # type: ignore[arg-type]


def test_is_deterministic() -> None:
    first, second = several(made(), 6, 2), several(made(), 6, 2)
    assert [a.choice for a in first] == [a.choice for a in second]
    assert [a.loss for a in first] == sorted(a.loss for a in first)
    assert len({a.choice for a in first}) == 6


def test_groups_count_once() -> None:
    problem = made(4, 2, groups=((0, 1, 2),))
    free = dataclasses.replace(problem, limits={})
    assert len(several(free, 9, 2)) == 2  # of the four, two that differ in the group and the layer
    assert len(several(free, 9, 3)) == 1


def test_all_there_are_and_no_more() -> None:
    """Far more asked for than there are: the end is told soon, however many constraints clash."""
    free = dataclasses.replace(made(3, 3), limits={})
    found = several(free, 99)
    assert len({one.choice for one in found}) == len(found) == 27


def test_a_cost_may_have_any_name() -> None:
    problem = made()
    costs = {**problem.costs, "changed groups": np.ones_like(problem.loss)}
    named = dataclasses.replace(problem, costs=costs)
    found = several(named, 3)
    assert [one.choice for one in found] == [one.choice for one in several(problem, 3)]
    assert [one.costs["changed groups"] for one in found] == [8.0] * 3


@pytest.mark.parametrize(
    ("count", "distance", "words"), [(0, 1, "a count of 0"), (2, 0, "a distance of 0")]
)
def test_refuses_less_than_one(count: int, distance: int, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        several(made(), count, distance)


def test_says_when_nothing_fits_at_all() -> None:
    with pytest.raises(Infeasible, match="the least possible"):
        several(dataclasses.replace(made(), limits={"bits": 1.0}), 3)


@pytest.mark.parametrize("distance", [1, 5])
def test_a_limit_that_no_price_meets_yet_leaves_the_bound_close(distance: int) -> None:
    """Relaxed, the next best differ in many groups at no price; the budget still needs its own."""
    problem = made(50, 4)
    found = several(problem, 8, distance)
    assert all(one.optimal for one in found)
    hard = allocate(problem, "lagrange").bound
    name = "far from the last"
    left = np.array([[s != c for s in problem.schemes] for c in found[0].choice], dtype=float)
    apart = dataclasses.replace(
        problem,
        costs={**problem.costs, name: -left},
        limits={**problem.limits, name: -distance},
    )
    assert allocate(apart, "lagrange").bound >= hard * (1 - 1e-9)
