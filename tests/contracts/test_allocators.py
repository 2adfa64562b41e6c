"""What every registered allocator promises (``search.base``)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from bitfront.errors import Infeasible, ProblemError, UnknownName
from bitfront.search import ALLOCATORS, allocate, front
from bitfront.types import Allocation, Problem
from tests.reference import allocation as reference

SOLVERS = list(ALLOCATORS)
MIXING = [name for name in SOLVERS if name != "uniform"]  # uniform needs one scheme that fits
SEEKING = [name for name in SOLVERS if name != "random"]  # random looks at no loss


def make(
    seed: int = 0, L: int = 6, C: int = 4, R: int = 2, slack: float = 0.4, **other: Any
) -> Problem:
    """A problem like those of real models: more bits, less loss, more cost."""
    rng = np.random.default_rng(seed)
    bits = np.linspace(2, 8, C)
    size = rng.integers(1, 50, L)[:, None]
    loss = rng.lognormal(-3, 2, (L, 1)) * 4.0**-bits * rng.lognormal(0, 0.2, (L, C))
    costs: dict[str, Any] = {
        "bytes": size * np.rint(bits * 4),
        "seconds": size**0.7 * (bits + rng.random((L, C))) * 1e-3,
    }
    costs = dict(list(costs.items())[:R])
    limits = {k: (1 - slack) * t.min(1).sum() + slack * t.max(1).sum() for k, t in costs.items()}
    names = tuple(f"l{i}" for i in range(L)), tuple(f"w{b:.0f}" for b in bits)
    fixed = other.pop("fixed", {})
    limits = {k: v + fixed.get(k, 0.0) for k, v in limits.items()}
    return Problem(*names, loss, costs, other.pop("limits", limits), fixed=fixed, **other)


def barred(L: int, C: int, *pairs: tuple[int, int]) -> np.ndarray:
    allowed = np.ones((L, C), dtype=bool)
    for pair in pairs:
        allowed[pair] = False
    return allowed


def pinned() -> Problem:
    allowed = np.ones((6, 4), dtype=bool)
    allowed[2] = [False, True, False, False]
    return make(6, allowed=allowed)


CROSSED = np.array([[2.0, 1.0], [1.0, 2.0]])
PROBLEMS = {
    "one budget": make(1, R=1),
    "two budgets": make(2),
    "tight": make(3, slack=0.05),
    "loose": make(4, slack=1.01),
    "grouped": make(5, groups=((0, 3), (1, 2, 5))),
    "pinned": pinned(),
    "barred": make(7, allowed=barred(6, 4, (0, 3), (1, 0), (4, 1))),
    "fixed part": make(8, fixed={"bytes": 1e6, "seconds": 1.0}),
    "one layer": make(9, L=1),
    "one scheme": make(10, C=1, limits={"bytes": 1e6}),
    "a floor": make(17, R=1, limits={}, floors={"bytes": 3000.0}),
    "floors and limits": make(18, floors={"bytes": 1800.0, "seconds": 0.2}),
    "a floor and a fixed part": make(
        8, fixed={"bytes": 1e6, "seconds": 1.0}, floors={"bytes": 1e6 + 1500}
    ),
    "a floor that rules out the least loss": dataclasses.replace(
        make(19, R=1), loss=-make(19, R=1).loss, floors={"bytes": 2500.0}
    ),
    "no limits": make(11, limits={}),
    "no costs": Problem(("a", "b"), ("x", "y"), [[1, 0], [0, 1]], {}, {}),  # type: ignore[arg-type]
    "equal losses": Problem(
        ("a", "b"), ("x", "y"), np.ones((2, 2)), {"bytes": CROSSED}, {"bytes": 3.0}
    ),
    "zero losses": dataclasses.replace(make(12), loss=np.zeros((6, 4))),
    "zero costs": dataclasses.replace(
        make(13, R=1), costs={"bytes": np.zeros((6, 4))}, limits={"bytes": 0.0}
    ),
    "negative losses": dataclasses.replace(make(14), loss=make(14).loss - 1e-3),
    "negative costs": dataclasses.replace(
        make(15, R=1), costs={"bytes": make(15).costs["bytes"] - 600}, limits={"bytes": -1000.0}
    ),
    "barred entries may be nan": dataclasses.replace(
        make(16),
        loss=np.where(barred(6, 4, (0, 3), (1, 0)), make(16).loss, np.nan),
        allowed=barred(6, 4, (0, 3), (1, 0)),
    ),
}  # fmt: skip


@pytest.fixture(params=SOLVERS)
def solver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=PROBLEMS)
def problem(request: pytest.FixtureRequest) -> Problem:
    return PROBLEMS[request.param]


def solved(problem: Problem, solver: str) -> Allocation:
    try:
        return allocate(problem, solver)
    except Infeasible:
        if solver != "uniform":
            raise
        pytest.skip("no single scheme fits")


def test_keeps_every_constraint(problem: Problem, solver: str) -> None:
    found = solved(problem, solver)
    assert found.layers == problem.layers
    choice = [problem.schemes.index(name) for name in found.choice]
    assert problem.allowed is not None
    assert all(problem.allowed[i, c] for i, c in enumerate(choice))
    assert all(len({choice[i] for i in group}) == 1 for group in problem.groups)
    for name, limit in problem.limits.items():
        assert found.costs[name] <= limit * (1 + 1e-12)  # rounding of sums
    for name, floor in problem.floors.items():
        assert found.costs[name] >= floor * (1 - 1e-12)
    assert found.solver == solver
    assert found.seconds >= 0


def test_reports_what_its_choice_gives(problem: Problem, solver: str) -> None:
    found = solved(problem, solver)
    choice = tuple(problem.schemes.index(name) for name in found.choice)
    assert found.loss == float(reference.total(problem.loss, choice))
    assert found.costs == pytest.approx(problem.totals(choice), rel=1e-13)
    assert list(found.costs) == list(problem.costs)


def test_bounds_the_optimum(problem: Problem, solver: str) -> None:
    found = solved(problem, solver)
    optimum = reference.optimum(problem)
    assert optimum is not None
    best = float(optimum[0])
    rounding = 1e-14 * float(np.nansum(np.abs(problem.loss)))
    assert math.isnan(found.bound) or found.bound <= best + rounding
    assert found.loss >= best - rounding
    assert found.gap == pytest.approx(found.loss - found.bound, nan_ok=True)
    if found.optimal:
        assert found.loss <= best + rounding
        assert found.gap == 0


def test_is_deterministic(problem: Problem, solver: str) -> None:
    first, second = solved(problem, solver), solved(problem, solver)
    assert dataclasses.replace(first, seconds=0).choice == second.choice
    assert (first.loss, first.optimal) == (second.loss, second.optimal)
    np.testing.assert_equal((first.bound, first.gap), (second.bound, second.gap))


def test_prints_nothing(problem: Problem, solver: str, capfd: pytest.CaptureFixture[str]) -> None:
    solved(problem, solver)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("solver", SEEKING)
def test_takes_the_least_loss_where_limits_leave_it(solver: str) -> None:
    problem = dataclasses.replace(PROBLEMS["loose"], loss=np.tile([3.0, 2.0, 1.0, 0.0], (6, 1)))
    assert set(allocate(problem, solver).choice) == {"w8"}


@pytest.mark.parametrize("solver", SEEKING)
def test_meets_a_limit_exactly(solver: str) -> None:
    """The total of one scheme is the limit: summed naively, so off by roundings."""
    costs = np.full((30, 2), 0.1) * [1, 3]
    limit = sum(costs[:, 1].tolist())
    names = tuple(map(str, range(30)))
    problem = Problem(names, ("a", "b"), np.tile([1.0, 0.5], (30, 1)), {"t": costs}, {"t": limit})
    found = allocate(problem, solver)
    assert set(found.choice) == {"b"}


def test_says_which_limit_binds_and_the_least(solver: str) -> None:
    problem = make(20)
    least = float(reference.least(dataclasses.replace(problem, limits={}), "bytes"))
    problem = dataclasses.replace(problem, limits={**problem.limits, "bytes": least - 1})
    with pytest.raises(Infeasible, match=rf"bytes is {least - 1:.0f}.*{least:.0f}") as caught:
        allocate(problem, solver)
    assert caught.value.binding == {"bytes": (least - 1, least)}
    met = dataclasses.replace(problem, limits={"bytes": least})
    if solver in MIXING:
        assert allocate(met, solver).costs["bytes"] == least


def test_says_which_floor_is_out_of_reach_and_the_greatest(solver: str) -> None:
    problem = make(20)
    most = float(problem.costs["bytes"].max(axis=1).sum())
    high = dataclasses.replace(problem, limits={}, floors={"bytes": most + 1})
    words = rf"bytes must be at least {most + 1:.0f}, the greatest possible is {most:.0f}: lower"
    with pytest.raises(Infeasible, match=words) as caught:
        allocate(high, solver)
    assert caught.value.short == {"bytes": (most + 1, most)}
    met = dataclasses.replace(problem, limits={}, floors={"bytes": most})
    assert allocate(met, solver).costs["bytes"] == most


@pytest.mark.parametrize("solver", MIXING)
def test_says_when_a_limit_clashes_with_a_floor(solver: str) -> None:
    costs = {"a": np.array([[1.0, 5.0]] * 3), "b": np.array([[1.0, 2.0]] * 3)}
    problem = Problem(
        tuple("xyz"), ("s", "t"), np.zeros((3, 2)), costs, {"a": 8.0}, floors={"b": 5.0}
    )
    with pytest.raises(Infeasible, match=r"a <= 8 and b >= 5 together.*raise a to 11") as caught:
        allocate(problem, solver)
    assert "lower b to 4" in caught.value.remedy
    assert caught.value.clash == (("a", 1, 11.0), ("b", -1, 4.0))
    raised = dataclasses.replace(problem, limits={"a": 11.0})
    assert allocate(raised, solver).costs == {"a": 11.0, "b": 5.0}
    lowered = dataclasses.replace(problem, floors={"b": 4.0})
    assert allocate(lowered, solver).costs == {"a": 7.0, "b": 4.0}


def test_a_floor_above_the_limit_is_refused() -> None:
    with pytest.raises(ProblemError, match="bytes of at least 9 and at most 8: no total is both"):
        make(21, limits={"bytes": 8.0}, floors={"bytes": 9.0})
    with pytest.raises(ProblemError, match="a floor on 'energy'"):
        make(21, floors={"energy": 9.0})


@pytest.mark.parametrize("solver", MIXING)
@pytest.mark.parametrize("seed", range(4))
def test_finds_the_one_total_between_a_floor_and_a_limit(solver: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table: Any = 2.0 ** np.arange(15).reshape(5, 3) + 1  # every choice has a total of its own
    secret = rng.integers(0, 3, 5)
    total = float(table[np.arange(5), secret].sum())
    problem = Problem(
        tuple("vwxyz"), tuple("012"), rng.random((5, 3)), {"a": table}, {"a": total},
        floors={"a": total},
    )  # fmt: skip
    assert allocate(problem, solver).choice == tuple(str(c) for c in secret)


@pytest.mark.parametrize("solver", MIXING)
def test_says_when_limits_clash(solver: str) -> None:
    """Each limit can be met alone, by the other scheme."""
    costs = {"a": np.array([[1.0, 5.0]] * 3), "b": np.array([[5.0, 1.0]] * 3)}
    names = ("x", "y", "z"), ("s", "t")
    problem = Problem(*names, np.zeros((3, 2)), costs, {"a": 8.0, "b": 7.0})
    with pytest.raises(Infeasible, match="together") as caught:
        allocate(problem, solver)
    for name in ("a", "b"):
        least = float(reference.least(problem, name))
        assert f"{name} to {least:.0f}" in caught.value.remedy
        raised = dataclasses.replace(problem, limits={**problem.limits, name: least})
        assert allocate(raised, solver).costs[name] == least


@pytest.mark.parametrize("solver", MIXING)
@pytest.mark.parametrize("seed", range(8))
def test_finds_the_needle(solver: str, seed: int) -> None:
    """Limits that only one allocation meets: heuristics must not call them infeasible."""
    rng = np.random.default_rng(seed)
    costs = {name: rng.integers(1, 30, (5, 4)).astype(float) for name in ("a", "b", "c")}
    secret = rng.integers(0, 4, 5)
    limits = {name: float(table[np.arange(5), secret].sum()) for name, table in costs.items()}
    names = tuple("vwxyz"), tuple("0123")
    problem = Problem(*names, rng.random((5, 4)), costs, limits)
    found = allocate(problem, solver)
    assert all(found.costs[name] <= limit for name, limit in limits.items())


def test_refuses_a_group_without_a_common_scheme(solver: str) -> None:
    allowed = np.array([[True, False], [False, True], [True, True]])
    costs = {"bytes": np.ones((3, 2))}
    problem = Problem(
        tuple("abc"), ("s", "t"), np.ones((3, 2)), costs, {"bytes": 9.0},
        allowed=allowed, groups=((0, 1),),
    )  # fmt: skip
    with pytest.raises(ProblemError, match="a, b"):
        allocate(problem, solver)
    alone = dataclasses.replace(
        problem, allowed=np.array([[True, True], [False, False], [True, True]]), groups=()
    )
    with pytest.raises(ProblemError, match="no scheme is allowed for b"):
        allocate(alone, solver)


def test_refuses_numbers_that_cannot_be_added(solver: str) -> None:
    problem = dataclasses.replace(make(1), loss=np.full((6, 4), 1e308))
    with pytest.raises(ProblemError, match="loss adds up"):
        allocate(problem, solver)


@pytest.mark.parametrize("solver", MIXING)
def test_time_limit_leaves_an_allocation(solver: str) -> None:
    problem = make(30, L=300, C=16)
    found = allocate(problem, solver, time_limit=1e-6)
    assert all(found.costs[name] <= limit for name, limit in problem.limits.items())
    assert found.bound <= allocate(problem).loss


def test_unknown_solver() -> None:
    with pytest.raises(UnknownName, match=r"choose from .*ilp"):
        allocate(make(), "simplex")


def test_uniform_leaves_layers_that_cannot_take_the_scheme_at_their_best() -> None:
    problem = make(7, slack=0.6, allowed=barred(6, 4, (0, 0), (0, 1), (0, 2)))
    found = allocate(problem, "uniform")
    assert found.choice[0] == "w8"
    assert len(set(found.choice[1:])) == 1


def test_uniform_says_that_a_mixture_may_fit() -> None:
    costs = {"a": np.array([[1.0, 5.0]] * 3), "b": np.array([[5.0, 1.0]] * 3)}
    problem = Problem(tuple("xyz"), ("s", "t"), np.zeros((3, 2)), costs, {"a": 11.0, "b": 11.0})
    with pytest.raises(Infeasible, match="no single scheme"):
        allocate(problem, "uniform")
    assert allocate(problem).optimal


ONE_LIMIT = ("one budget", "grouped", "pinned", "barred", "fixed part", "equal losses", "one layer")


@pytest.mark.parametrize("name", ONE_LIMIT)
def test_each_point_of_the_front_is_optimal_for_its_cost(name: str) -> None:
    problem = PROBLEMS[name]
    points = front(problem, "bytes")
    assert len({p.costs["bytes"] for p in points}) == len(points)
    for point in points:
        alone = dataclasses.replace(problem, limits={"bytes": point.costs["bytes"]})
        exact = reference.optimum(alone)
        assert exact is not None
        assert point.loss == pytest.approx(float(exact[0]), rel=1e-12)
        assert point.optimal
        assert point.gap == 0


def test_front_over_an_unknown_resource() -> None:
    with pytest.raises(ProblemError, match=r"energy.*bytes, seconds"):
        front(make(), "energy")
