"""Allocators against enumeration in rational arithmetic, on small random problems."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bitfront.errors import Infeasible, InvalidInput
from bitfront.search import ALLOCATORS, allocate, front
from bitfront.search.core import scaled
from bitfront.search.randomized import randomized
from bitfront.types import Problem
from tests.reference import allocation as reference

EPS = float(np.finfo(float).eps)


@st.composite
def tables(draw: st.DrawFn, shape: tuple[int, int], signed: bool) -> np.ndarray:
    """Integers, tenths, or doubles over twelve orders of magnitude; often with equal entries."""
    kind = draw(st.sampled_from(["integers", "tenths", "wide", "zeros"]))
    n = shape[0] * shape[1]
    whole = draw(st.lists(st.integers(-4 if signed else 0, 12), min_size=n, max_size=n))
    table = np.array(whole, dtype=float).reshape(shape)
    if kind == "tenths":
        return table / 10
    if kind == "zeros":
        return table * 0
    if kind == "wide":
        powers = draw(st.lists(st.floats(-9, 2), min_size=n, max_size=n))
        return table * 10.0 ** np.array(powers).reshape(shape)
    return table


@st.composite
def problems(
    draw: st.DrawFn, resources: int | None = None, plain: bool = False, floors: bool = True
) -> Problem:
    L, C = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    R = draw(st.integers(1, 3)) if resources is None else resources
    loss = draw(tables((L, C), signed=True))
    costs = {f"r{i}": draw(tables((L, C), signed=False)) for i in range(R)}
    allowed = np.ones((L, C), dtype=bool)
    groups: tuple[tuple[int, ...], ...] = ()
    if not plain:
        bars = draw(st.lists(st.tuples(st.integers(0, L - 1), st.integers(1, max(1, C - 1)))))
        for i, c in bars:
            if C > 1:
                allowed[i, c] = False
        if L > 2 and draw(st.booleans()):
            groups = ((0, 2),)
    limits, least = {}, {}
    for name, table in costs.items():
        low, high = table.min(axis=1).sum(), table.max(axis=1).sum()
        limits[name] = float(low + draw(st.floats(0, 1)) * (high - low))
        if draw(st.booleans()):  # exactly the total of some choice, summed naively
            pick = [draw(st.integers(0, C - 1)) for _ in range(L)]
            limits[name] = float(sum(table[i, c] for i, c in enumerate(pick)))
        if floors and draw(st.integers(0, 3)) == 0:
            least[name] = draw(st.floats(0, 1)) * limits[name]
            if draw(st.booleans()):
                least[name] = limits[name]  # this total and no other
            elif draw(st.booleans()):
                del limits[name]
    names = tuple(f"l{i}" for i in range(L)), tuple(f"s{c}" for c in range(C))
    return Problem(*names, loss, costs, limits, allowed=allowed, groups=groups, floors=least)


def widened(problem: Problem) -> Problem:
    """Limits and floors with the rounding granted: (L + 1)·eps·Σ|terms| + 4·eps·limit."""
    limits: dict[str, float] = {}
    floors: dict[str, float] = {}
    for sign, bounds, wide in ((1, problem.limits, limits), (-1, problem.floors, floors)):
        for name, bound in bounds.items():
            size = float(np.abs(problem.costs[name]).max(axis=1).sum()) + bound
            wide[name] = bound + sign * ((len(problem.layers) + 1) * size + 4 * bound) * EPS
    return dataclasses.replace(problem, limits=limits, floors=floors)


def kept(problem: Problem, costs: Mapping[str, float]) -> bool:
    """Whether totals are within limits and floors, up to the rounding that is granted."""
    wide = widened(problem)
    below = all(costs[name] <= limit for name, limit in wide.limits.items())
    return below and all(costs[name] >= floor for name, floor in wide.floors.items())


@settings(max_examples=300)
@given(problems())
def test_ilp_finds_the_optimum(problem: Problem) -> None:
    strict, wide = reference.optimum(problem), reference.optimum(widened(problem))
    if wide is None:
        with pytest.raises(Infeasible):
            allocate(problem)
        return
    if strict is None:
        return  # within the limits by rounding only: either answer is right
    got = allocate(problem)
    assert kept(problem, got.costs)
    assert all(len({got.choice[i] for i in group}) == 1 for group in problem.groups)
    # each loss is a rounded double: totals closer than eps·Σ|loss| are equal to an allocator
    rounding = 2 * EPS * float(np.abs(np.where(problem.allowed, problem.loss, 0)).max(axis=1).sum())
    assert float(wide[0]) - rounding <= got.loss <= float(strict[0]) + rounding
    assert got.optimal
    assert got.gap == 0
    assert got.bound == got.loss
    if strict == wide and rounding == 0:
        assert got.loss == wide[0]


@settings(max_examples=150)
@given(problems())
def test_ilp_breaks_ties_by_the_first_cost(problem: Problem) -> None:
    assume(bool((problem.loss == np.rint(problem.loss)).all()))  # so that equal is equal
    best = reference.optimum(problem)
    assume(best is not None and best == reference.optimum(widened(problem)))
    assert best is not None
    assert allocate(problem).costs["r0"] == pytest.approx(float(best[1]), rel=8 * EPS)


@settings(max_examples=150)
@given(problems(), st.sampled_from([name for name in ALLOCATORS if name != "ilp"]))
def test_heuristics_bound_the_optimum(problem: Problem, solver: str) -> None:
    try:
        got = allocate(problem, solver)
    except Infeasible:
        assert solver == "uniform" or reference.optimum(problem) is None
        return
    assert kept(problem, got.costs)
    best = reference.optimum(widened(problem))
    assert best is not None
    rounding = 2 * EPS * float(np.abs(np.where(problem.allowed, problem.loss, 0)).max(axis=1).sum())
    assert got.bound <= float(best[0]) + rounding
    assert got.loss >= float(best[0]) - rounding


@settings(max_examples=150)
@given(problems(plain=True))
def test_greedy_up_ends_where_no_single_step_up_fits(problem: Problem) -> None:
    assume(reference.optimum(problem) is not None)
    found = allocate(problem, "greedy-up")
    choice = [problem.schemes.index(name) for name in found.choice]
    for i, j in itertools.product(range(len(choice)), range(len(problem.schemes))):
        if problem.loss[i, j] >= problem.loss[i, choice[i]]:
            continue
        moved = [*choice[:i], j, *choice[i + 1 :]]
        totals = {
            name: sum((Fraction(float(table[k, c])) for k, c in enumerate(moved)), Fraction(0))
            for name, table in problem.costs.items()
        }
        above = any(totals[name] > limit for name, limit in problem.limits.items())
        assert above or any(totals[name] < floor for name, floor in problem.floors.items())


@settings(max_examples=100)
@given(problems(resources=1, floors=False))
def test_greedy_up_is_never_worse_than_the_least_cost(problem: Problem) -> None:
    assume(reference.optimum(problem) is not None)
    limit = {"r0": float(reference.least(dataclasses.replace(problem, limits={}), "r0"))}
    start = reference.optimum(widened(dataclasses.replace(problem, limits=limit)))
    assert start is not None
    rounding = 2 * EPS * float(np.abs(np.where(problem.allowed, problem.loss, 0)).max(axis=1).sum())
    assert allocate(problem, "greedy-up").loss <= float(start[0]) + rounding


@settings(max_examples=150)
@given(problems(), st.integers(0, 9))
def test_random_keeps_limits_and_looks_at_no_loss(problem: Problem, seed: int) -> None:
    assume(reference.optimum(problem) is not None)
    found = randomized(problem, seed=seed)
    assert kept(problem, found.costs)
    other = dataclasses.replace(problem, loss=-3 * problem.loss[::-1])
    assert randomized(other, seed=seed).choice == found.choice


def test_random_draws_every_scheme_equally_often_where_limits_leave_it() -> None:
    names = tuple(map(str, range(2000))), tuple("abcd")
    problem = Problem(*names, np.zeros((2000, 4)), {"t": np.ones((2000, 4))}, {"t": 2000.0})
    first, second = (randomized(problem, seed=seed).choice for seed in (0, 1))
    assert first == allocate(problem, "random").choice
    assert first != second
    spread = math.sqrt(2000 * 0.25 * 0.75)
    for choice in (first, second):
        assert all(abs(choice.count(name) - 500) < 5 * spread for name in "abcd")
    with pytest.raises(InvalidInput, match="seed -1"):
        randomized(problem, seed=-1)


@settings(max_examples=150)
@given(problems(resources=1))
def test_front_is_the_hull(problem: Problem) -> None:
    corners = reference.hull(problem, "r0")
    points = front(problem, "r0")
    costs, losses = [p.costs["r0"] for p in points], [p.loss for p in points]
    assert costs == sorted(costs)
    assert losses == sorted(losses, reverse=True)
    # corners that the doubles cannot tell from the line between others may be absent
    xs = [float(x) for x, _ in corners]
    ys = [float(y) for _, y in corners]
    tolerance = 1e-12 * (max(map(abs, ys)) + float(np.abs(problem.loss).max()))
    assert costs[0] == pytest.approx(xs[0], rel=1e-12)
    assert losses[-1] == pytest.approx(ys[-1], abs=tolerance)
    for cost, loss in zip(costs, losses, strict=True):
        at = max(min(cost, xs[-1]), xs[0])
        assert loss == pytest.approx(float(np.interp(at, xs, ys)), abs=_steepness(corners, at))


def _steepness(corners: list[tuple[Fraction, Fraction]], at: float) -> float:
    """How far the loss on the hull moves when the cost moves by its rounding."""
    slopes = [float((a[1] - b[1]) / (b[0] - a[0])) for a, b in itertools.pairwise(corners)]
    sizes = max(abs(float(y)) for _, y in corners)
    return 1e-12 * sizes + 64 * EPS * (abs(at) + 1) * max(slopes, default=0.0) + math.ulp(1e-12)


@pytest.mark.parametrize("seed", range(24))
def test_ilp_equals_dynamic_programming(seed: int) -> None:
    """Too many choices to enumerate; in tenths, so that no table is exact in doubles."""
    rng = np.random.default_rng(seed)
    L, C = int(rng.integers(5, 25)), int(rng.integers(2, 12))
    steps = np.arange(1, C + 1)
    sizes = rng.integers(1, 6, (L, 1))
    a, b = sizes * steps, rng.integers(0, 9, (L, C)) + rng.integers(1, 4, (L, 1)) * steps
    loss = np.rint(10 ** rng.uniform(0, 6, (L, 1)) * 2.0**-steps * rng.uniform(0.8, 1.2, (L, C)))
    loss = loss.astype(np.int64)
    limits = [int(0.7 * t.min(1).sum() + 0.3 * t.max(1).sum()) for t in (a, b)]
    optimum = reference.dynamic(loss, [a, b], limits)

    costs: dict[str, np.ndarray] = {"a": a / 10, "b": b / 10}
    names = tuple(f"l{i}" for i in range(L)), tuple(f"s{c}" for c in range(C))
    found = allocate(Problem(*names, loss / 10, costs, {"a": limits[0] / 10, "b": limits[1] / 10}))
    choice = [names[1].index(name) for name in found.choice]
    assert int(loss[np.arange(L), choice].sum()) == optimum
    assert found.optimal


def test_losses_that_cancel_are_proven() -> None:
    """A choice that gains much and fits no limit leaves 1e-16 of doubt, which is rounding."""
    loss = np.array([[0.0, 0, 0, 0], [0, 0, 0, 0], [0, -1, 1, 0.001]])
    costs = {
        "r0": np.array([[0.0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]),
        "r1": np.array([[0.0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]),
    }
    names = ("l0", "l1", "l2"), ("s0", "s1", "s2", "s3")
    found = allocate(Problem(*names, loss, costs, {"r0": 0.5, "r1": 0.0}))
    assert found.choice[2] == "s3"
    assert (found.loss, found.gap, found.optimal) == (0.001, 0, True)


@settings(max_examples=200)
@given(st.lists(st.floats(-1e3, 1e3), min_size=8, max_size=8), st.integers(0, 2**60))
def test_integer_totals_beyond_doubles_are_read_exactly(entries: list[float], whole: int) -> None:
    table = np.array(entries).reshape(4, 2)
    read = scaled(table, np.ones((4, 2), dtype=bool), 0.0)
    exact = sum(map(Fraction, read.base.tolist())) + Fraction(read.unit) * whole
    assert read.total(whole) == float(exact)


def test_losses_that_are_all_equal() -> None:
    names = ("l0", "l1"), ("s0", "s1")
    costs = {"r0": np.array([[5.0, 1], [5, 1]]), "r1": np.array([[0.0, 3], [0, 3]])}
    found = allocate(Problem(*names, np.zeros((2, 2)), costs, {"r0": 6.0, "r1": 4.0}))
    assert found.costs == {"r0": 6.0, "r1": 3.0}
    assert found.optimal


def test_a_linear_program_that_cycles_is_given_up() -> None:
    """Found by the test above: GLOP's dual simplex never came back from the third limit's cut."""
    h = float.fromhex
    problem = Problem(
        layers=("a", "b", "c"),
        schemes=("x", "y", "z"),
        loss=np.array([[1, 6, 3], [-1, -4, 10], [-1, 7, 12]]),
        costs={
            "r0": np.array([[9, 6, 9], [3, 3, 9], [0, 3, 9]]),
            "r1": np.array(
                [
                    [h("0x1.a406ac16772e7p-6"), h("0x1.16c25787b7186p-4"), 0],
                    [h("0x1.5944e8c53e0ccp+1"), h("0x1.9ccd476aa1feep+1"), 4.25e-6],
                    [3, h("0x1.ac1cd160d721dp-28"), 0],
                ]
            ),
            "r2": np.array([[6, 3, 2], [0, 8, 4], [7, 10, 2]]),
        },
        limits={"r0": 15, "r1": h("0x1.800023b315dbcp+1"), "r2": 17},
        groups=((0, 2),),
    )  # fmt: skip
    found = allocate(problem, "ilp")
    assert found.optimal
    assert found.loss == 12.0
