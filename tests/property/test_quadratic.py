"""The objective with interactions against enumeration, pair by pair, on small random problems."""

from __future__ import annotations

import dataclasses
import itertools
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitfront.errors import Infeasible, ProblemError
from bitfront.search import allocate
from bitfront.search.coupled import coupled
from bitfront.search.descent import improved
from bitfront.search.items import merge
from bitfront.search.relaxation import relaxed
from bitfront.types import Interactions, Problem
from tests.property.test_search import problems, widened
from tests.reference import allocation as reference

EPS = float(np.finfo(float).eps)
Choice = tuple[int, ...]


@st.composite
def interacting(draw: st.DrawFn) -> Problem:
    """A problem with vectors of any size beside its losses; nan where barred."""
    problem = draw(problems())
    L, C = problem.loss.shape
    n = draw(st.integers(0, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = 10.0 ** draw(st.floats(-3, 2))
    vectors = size * rng.standard_normal((L, C, n)) * rng.lognormal(0, 1, (L, C, 1))
    if draw(st.booleans()):  # all along one direction, which is where layers add up
        vectors = np.abs(vectors)
    vectors[~problem.allowed] = np.nan
    shrink = draw(st.sampled_from([0.0, 0.2, 0.7, 1.0]))
    found = Interactions(problem.layers, problem.schemes, vectors.astype(np.float32), shrink)
    return dataclasses.replace(problem, interactions=found)


def literal(problem: Problem, choice: Choice) -> float:
    """F: every layer's loss, and every pair's product."""
    assert problem.interactions is not None
    v = problem.interactions.vectors.astype(np.float64)
    total = sum(float(problem.loss[i, c]) for i, c in enumerate(choice))
    for (i, c), (j, d) in itertools.combinations(enumerate(choice), 2):
        total += problem.interactions.shrink * float(v[i, c] @ v[j, d])
    return total


def grain(problem: Problem) -> float:
    """More than any sum over a choice is off by."""
    assert problem.interactions is not None
    v = np.nan_to_num(problem.interactions.vectors.astype(np.float64))
    longest = np.sqrt((v**2).sum(2).max(1)).sum()
    losses = np.abs(np.where(problem.allowed, problem.loss, 0)).max(1).sum()
    return 200 * EPS * float(losses + longest**2)


def fitting(problem: Problem) -> list[Choice]:
    limits = {name: reference.whole(limit) for name, limit in problem.limits.items()}
    floors = {name: reference.whole(floor) for name, floor in problem.floors.items()}
    return [
        choice
        for choice, _, costs in reference.totals(problem)
        if all(costs[name] <= limit for name, limit in limits.items())
        and all(costs[name] >= floor for name, floor in floors.items())
    ]


def chosen(problem: Problem, names: tuple[str, ...]) -> Choice:
    return tuple(problem.schemes.index(name) for name in names)


@settings(max_examples=200)
@given(interacting())
def test_it_is_within_all_limits_bounded_and_never_worse_than_additive(problem: Problem) -> None:
    wide = fitting(widened(problem))
    if not wide:
        with pytest.raises(Infeasible):
            allocate(problem, "quadratic")
        return
    if not fitting(problem):
        return  # within the limits by rounding only: either answer is right
    found, eps = allocate(problem, "quadratic"), grain(problem)
    choice = chosen(problem, found.choice)
    assert choice in wide
    assert found.loss == problem.objective(found.schemes)
    assert found.loss == pytest.approx(literal(problem, choice), abs=eps)
    assert found.gap == found.loss - found.bound
    least = min(literal(problem, c) for c in wide)
    assert found.bound <= least + eps
    if found.optimal:
        assert found.loss <= min(literal(problem, c) for c in fitting(problem)) + eps
    additive = allocate(problem)
    assert found.loss <= problem.objective(additive.schemes)
    assert found.costs == pytest.approx(problem.totals(choice), rel=1e-13)


@settings(max_examples=100)
@given(interacting())
def test_no_move_of_one_or_two_groups_lowers_it(problem: Problem) -> None:
    possible = fitting(problem)
    assume(possible and possible == fitting(widened(problem)))
    best = chosen(problem, allocate(problem, "quadratic").choice)
    groups = [*problem.groups, *((i,) for i in range(len(best)))]
    alone = [g for g in groups if len(g) > 1 or not any(g[0] in h for h in problem.groups)]
    for other in possible:
        if sum(any(best[i] != other[i] for i in g) for g in alone) <= 2:
            assert literal(problem, other) >= literal(problem, best) - grain(problem)


@settings(max_examples=100)
@given(interacting(), st.data())
def test_every_tangent_bounds_the_objective(problem: Problem, data: st.DataObject) -> None:
    """Also at points that no allocation has, and with groups merged."""
    assert problem.interactions is not None
    items = merge(problem)
    objective = coupled(items, problem.interactions)
    n = problem.interactions.vectors.shape[2]
    r = np.array(data.draw(st.lists(st.floats(-100, 100), min_size=n, max_size=n)))
    tangent = objective.linearized(r)
    for choice in reference.choices(problem):
        picks = np.array([choice[m[0]] for m in items.members])
        value = literal(problem, choice)
        eps = grain(problem) + objective.rounding(r)
        assert objective.value(picks) == pytest.approx(value, abs=eps)
        assert tangent.losses(picks) - objective.half(r) <= value + eps
        change = objective.changes(picks)
        for g, c in np.argwhere(items.allowed):
            moved = picks.copy()
            moved[g] = c
            expected = objective.value(moved) - objective.value(picks)
            assert change[g, c] == pytest.approx(expected, abs=8 * eps)


def many(L: int, C: int, n: int, seed: int = 0, R: int = 1) -> Problem:
    """Like a model's: more bits, less loss, and some of what each layer does is common to all."""
    rng = np.random.default_rng(seed)
    bits = np.linspace(2, 8, C)
    size = rng.integers(1, 50, L)[:, None]
    loss = rng.lognormal(-3, 1.5, (L, 1)) * 4.0**-bits * rng.lognormal(0, 0.2, (L, C))
    v = rng.standard_normal((L, C, n)) + 0.3 * rng.standard_normal(n)
    v *= np.sqrt(2 * loss / np.square(v).sum(2))[:, :, None]
    costs: dict[str, Any] = {
        "bytes": size * np.rint(4 * bits), "seconds": size**0.7 * (bits + rng.random((L, C))),
    }  # fmt: skip
    costs = dict(list(costs.items())[:R])
    limits = {k: 0.65 * t.min(1).sum() + 0.35 * t.max(1).sum() for k, t in costs.items()}
    names = tuple(f"l{i}" for i in range(L)), tuple(f"w{b:.2f}" for b in bits)
    return Problem(
        *names, loss, costs, limits, interactions=Interactions(*names, v.astype(np.float32), 0.3)
    )


@pytest.mark.parametrize("R", [1, 2])
def test_it_is_close_to_the_bound_on_many_layers(R: int) -> None:
    problem = many(150, 6, 64, R=R)
    found, additive = allocate(problem, "quadratic"), allocate(problem)
    assert found.loss < problem.objective(additive.schemes)
    assert 0 < found.gap < 0.01 * found.loss
    again = allocate(problem, "quadratic")
    assert (found.choice, found.loss, found.bound) == (again.choice, again.loss, again.bound)


def test_thousands_of_layers_take_seconds() -> None:
    problem = many(2000, 8, 256)
    began = time.process_time()
    found = allocate(problem, "quadratic")
    assert time.process_time() - began < 30  # about 4
    assert 0 < found.gap < 1e-3 * found.loss


def test_a_time_limit_leaves_an_allocation() -> None:
    problem = many(200, 6, 32)
    found = allocate(problem, "quadratic", time_limit=1e-6)
    assert found.costs["bytes"] <= problem.limits["bytes"]
    assert found.bound <= allocate(problem, "quadratic").loss


@pytest.mark.parametrize("gap", [0.02, 0.2, 1.0])
def test_a_gap_ends_the_work_once_it_is_reached(gap: float) -> None:
    problem = many(150, 6, 64)
    found, whole = allocate(problem, "quadratic", gap=gap), allocate(problem, "quadratic")
    assert found.loss == problem.objective(found.schemes)
    assert found.gap <= gap * found.loss
    assert found.bound <= whole.loss < found.loss  # which went on
    assert found.costs["bytes"] <= problem.limits["bytes"]


@settings(max_examples=100)
@given(interacting(), st.sampled_from([1e-3, 0.1, 1.0, 3.0]))
def test_the_bound_holds_at_any_gap(problem: Problem, gap: float) -> None:
    wide = fitting(widened(problem))
    assume(fitting(problem))
    found, eps = allocate(problem, "quadratic", gap=gap), grain(problem)
    assert chosen(problem, found.choice) in wide
    assert found.bound <= min(literal(problem, c) for c in wide) + eps


@pytest.mark.parametrize("shrink", [None, 0.0])
def test_without_interactions_it_is_the_additive_optimum(shrink: float | None) -> None:
    problem = many(20, 4, 8)
    assert problem.interactions is not None
    other = None if shrink is None else dataclasses.replace(problem.interactions, shrink=shrink)
    problem = dataclasses.replace(problem, interactions=other)
    found, additive = allocate(problem, "quadratic"), allocate(problem)
    assert (found.choice, found.loss, found.bound) == (
        additive.choice, additive.loss, additive.bound,
    )  # fmt: skip
    assert found.optimal
    assert found.solver == "quadratic"


def test_improving_never_makes_worse_from_anywhere() -> None:
    problem = many(12, 4, 6)
    assert problem.interactions is not None
    items = merge(problem)
    objective = coupled(items, problem.interactions)
    rng = np.random.default_rng(0)
    for _ in range(20):
        start: NDArray[np.intp] = rng.integers(0, 2, 12)
        assert items.fits(start)
        prices = relaxed(objective, start, np.inf).prices
        end = improved(objective, start, prices, np.inf)
        assert items.fits(end)
        assert objective.value(end) <= objective.value(start)


def test_interactions_that_cannot_be_are_refused() -> None:
    problem = many(3, 2, 4)
    found = problem.interactions
    assert found is not None
    with pytest.raises(ProblemError, match=r"shape \(3, 2\): expected"):
        Interactions(found.layers, found.schemes, np.zeros((3, 2), np.float32), 0.5)
    with pytest.raises(ProblemError, match=r"shrink 1\.5"):
        dataclasses.replace(found, shrink=1.5)
    with pytest.raises(ProblemError, match="shrink nan"):
        dataclasses.replace(found, shrink=float("nan"))
    other = dataclasses.replace(found, layers=("a", "b", "c"))
    with pytest.raises(ProblemError, match="other layers or schemes"):
        dataclasses.replace(problem, interactions=other)
    broken = np.array(found.vectors)
    broken[1, 1, 0] = np.inf
    with pytest.raises(ProblemError, match=r"layer 'l1' under 'w8\.00' is not finite"):
        dataclasses.replace(problem, interactions=dataclasses.replace(found, vectors=broken))
    allowed = np.ones((3, 2), dtype=bool)
    allowed[1, 1] = False
    barred = dataclasses.replace(
        problem, allowed=allowed, interactions=dataclasses.replace(found, vectors=broken)
    )
    assert np.isfinite(allocate(barred, "quadratic").loss)
