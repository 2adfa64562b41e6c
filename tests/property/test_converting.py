"""Limits on totals with conversions, against enumeration; of integers, so that sums are exact."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfront.errors import Infeasible, ProblemError
from bitfront.search import ALLOCATORS, allocate, cheapest, fitting, near, several
from bitfront.types import Allocation, Conversions, Problem

INTS = st.integers(0, 12)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Up to 6 layers, of which two may be a group and pairs hand over; one or two limits."""
    L, C = draw(st.integers(2, 6)), draw(st.integers(2, 4))

    def table() -> np.ndarray:
        return np.array(draw(st.lists(INTS, min_size=L * C, max_size=L * C)), float).reshape(L, C)

    costs = {"seconds": table(), **({"bytes": table()} if draw(st.booleans()) else {})}
    pairs = [(a, b) for a in range(L) for b in range(a + 1, L)]
    ends = draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=8))
    weights = draw(st.lists(INTS, min_size=len(ends), max_size=len(ends)))
    other = np.array(draw(st.lists(st.booleans(), min_size=L * C, max_size=L * C))).reshape(L, C)
    allowed = np.ones((L, C), dtype=bool)
    for i, c in draw(st.lists(st.tuples(st.integers(0, L - 1), st.integers(1, C - 1)))):
        allowed[i, c] = False
    limits = {name: float(draw(st.integers(0, 14 * L))) for name in costs}
    return Problem(
        tuple(f"l{i}" for i in range(L)), tuple(f"s{c}" for c in range(C)), table(), costs, limits,
        fixed={"seconds": float(draw(INTS))}, allowed=allowed,
        groups=((0, L - 1),) if draw(st.booleans()) else (),
        conversions={"seconds": Conversions(np.array(ends), np.array(weights, float), other)},
    )  # fmt: skip


def choices(problem: Problem) -> Iterator[tuple[int, ...]]:
    for choice in itertools.product(range(len(problem.schemes)), repeat=len(problem.layers)):
        allowed = all(problem.allowed[i, c] for i, c in enumerate(choice))
        if allowed and all(len({choice[i] for i in group}) == 1 for group in problem.groups):
            yield choice


def seconds(problem: Problem, choice: tuple[int, ...]) -> float:
    """Literally: the fixed part, each layer's, and each pair whose layouts differ."""
    found = problem.conversions["seconds"]
    total = problem.fixed.get("seconds", 0.0)
    for layer, scheme in enumerate(choice):
        total += problem.costs["seconds"][layer, scheme]
    for (a, b), weight in zip(found.ends.tolist(), found.costs.tolist(), strict=True):
        if bool(found.other[a, choice[a]]) != bool(found.other[b, choice[b]]):
            total += weight
    return float(total)


def totals(problem: Problem, choice: tuple[int, ...]) -> dict[str, float]:
    other = {
        name: float(sum(table[i, c] for i, c in enumerate(choice)))
        for name, table in problem.costs.items()
    }
    return {**other, "seconds": seconds(problem, choice)}


def inside(problem: Problem) -> list[tuple[int, ...]]:
    return [
        c
        for c in choices(problem)
        if all(totals(problem, c)[name] <= limit for name, limit in problem.limits.items())
    ]


def loss(problem: Problem, choice: tuple[int, ...]) -> float:
    return float(sum(problem.loss[i, c] for i, c in enumerate(choice)))


def indices(problem: Problem, found: Allocation) -> tuple[int, ...]:
    return tuple(problem.schemes.index(s) for s in found.choice)


@settings(max_examples=400)
@given(problems())
def test_the_least_loss_is_found_and_proven(problem: Problem) -> None:
    fits = inside(problem)
    if not fits:
        with pytest.raises(Infeasible) as caught:
            allocate(problem)
        if len(problem.limits) == 1:  # what is said to be the least possible is
            least = min(seconds(problem, c) for c in choices(problem))
            assert caught.value.binding["seconds"][1] == pytest.approx(least)
        return
    found = allocate(problem)
    choice = indices(problem, found)
    assert choice in fits
    assert found.loss == min(loss(problem, c) for c in fits)
    assert found.optimal
    assert found.gap == 0
    assert dict(found.costs) == totals(problem, choice)


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from(sorted(ALLOCATORS)))
def test_every_solver_stays_within_the_limits(problem: Problem, solver: str) -> None:
    fits = inside(problem)
    try:
        found = allocate(problem, solver)
    except Infeasible:
        assert not fits or solver != "ilp"  # others may not find what there is
        return
    assert indices(problem, found) in fits
    assert dict(found.costs) == totals(problem, indices(problem, found))
    least = min(loss(problem, c) for c in fits)
    assert found.loss >= least
    assert not found.bound > least + 1e-9


@settings(max_examples=100)
@given(problems())
def test_fitting_and_moves_count_conversions(problem: Problem) -> None:
    every = list(choices(problem))
    named = [dict(zip(problem.layers, (problem.schemes[j] for j in c), strict=True)) for c in every]
    fits = set(inside(problem))
    assert fitting(problem, named) == [c in fits for c in every]
    if not fits:
        return
    start = max(fits, key=lambda c: loss(problem, c))
    for found in near(problem, [problem.schemes[j] for j in start], 5):
        assert indices(problem, found) in fits
    unlike = several(problem, 3)
    assert {indices(problem, one) for one in unlike} <= fits
    ranked = sorted(loss(problem, c) for c in fits)
    assert [one.loss for one in unlike] == ranked[: len(unlike)]


@settings(max_examples=100)
@given(problems())
def test_upper_bounds_are_above_and_touch(problem: Problem) -> None:
    found = problem.conversions["seconds"]
    every = list(choices(problem))
    rows = np.arange(len(problem.layers))
    for at in every[:8]:
        more, table = found.above(at)
        assert found.total(at) == more + table[rows, at].sum()
        for choice in every[:64]:
            assert found.total(choice) <= more + table[rows, choice].sum()


@settings(max_examples=60)
@given(problems())
def test_the_least_cost_within_a_loss(problem: Problem) -> None:
    """Of another resource; seconds are limited."""
    if "bytes" not in problem.costs:
        return
    fits = inside(problem)
    if not fits:
        return
    most = sorted(loss(problem, c) for c in fits)[len(fits) // 2]
    found = cheapest(problem, "bytes", most)
    of = [totals(problem, c)["bytes"] for c in fits if loss(problem, c) <= most]
    assert found.costs["bytes"] == min(of)
    assert indices(problem, found) in fits


def test_a_long_chain(capfd: pytest.CaptureFixture[str]) -> None:
    """60 layers, of which each may be fast in one layout; proven, and nothing is printed."""
    rng = np.random.default_rng(3)
    L = 60
    fast = rng.uniform(0.3, 1.1, L)
    costs = np.stack([np.ones(L), fast, np.ones(L)], axis=1)
    loss = np.stack([np.zeros(L), rng.uniform(0, 1, L), rng.uniform(0, 0.2, L)], axis=1)
    ends = np.stack([np.arange(L - 1), np.arange(1, L)], axis=1)
    other = np.tile([False, True, False], (L, 1))
    names = tuple(f"l{i}" for i in range(L)), ("keep", "w8a8", "w4")
    problem = Problem(
        *names, loss, {"seconds": costs}, {"seconds": 0.85 * L},
        conversions={"seconds": Conversions(ends, np.full(L - 1, 0.2), other)},
    )  # fmt: skip
    found = allocate(problem)
    assert capfd.readouterr() == ("", "")
    assert found.optimal
    assert found.costs["seconds"] <= 0.85 * L
    # by dynamic programming over the chain on a grid: no better than the proven bound
    grid = 4000
    step = 0.85 * L / grid
    best = {(-1, 0): 0.0}
    for i in range(L):
        now: dict[tuple[int, int], float] = {}
        for (k, used), so_far in best.items():
            for j, kind in ((0, 0), (1, 1)):
                more = costs[i, j] + (0.2 if k not in (-1, kind) else 0.0)
                to = used + int(np.floor(more / step))  # rounded down: a relaxation
                if to <= grid:
                    key = (kind, to)
                    now[key] = min(now.get(key, np.inf), so_far + loss[i, j])
        best = now
    assert min(best.values()) <= found.loss + 1e-9


def test_bad_conversions() -> None:
    none = np.zeros((2, 1), dtype=bool)
    problem = Problem(("a", "b"), ("x",), np.zeros((2, 1)), {"s": np.zeros((2, 1))}, {})
    with pytest.raises(ProblemError, match="costs"):
        Conversions(np.array([[0, 1]]), np.array([-1.0]), np.zeros((2, 1), bool))
    with pytest.raises(ProblemError, match="between layers 0 to 2"):
        Conversions(np.array([[0, 2]]), np.array([1.0]), none)
    good = Conversions(np.array([[0, 1]]), np.array([1.0]), none)
    with pytest.raises(ProblemError, match="for a resource that has costs"):
        dataclasses.replace(problem, conversions={"t": good})
