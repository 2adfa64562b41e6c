"""The least cost within a loss, against enumeration in rational arithmetic."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bitfront.errors import Infeasible, ProblemError
from bitfront.search import allocate, cheapest
from bitfront.types import Problem
from tests.property.test_search import EPS, problems
from tests.property.test_several import made, taken
from tests.reference import allocation as reference


def turned(problem: Problem, most: float) -> Problem:
    """The loss as the first, and a limited, cost; ``r0`` as the loss. For the reference only."""
    return dataclasses.replace(
        problem,
        loss=problem.costs["r0"],
        costs={"predicted": problem.loss, **problem.costs},
        limits={**problem.limits, "predicted": most},
    )


def granted(problem: Problem, most: float) -> Problem:
    """As ``turned``, each limit with the rounding granted to signed terms."""
    problem = turned(problem, most)
    limits: dict[str, float] = {}
    floors: dict[str, float] = {}
    for sign, bounds, wide in ((1, problem.limits, limits), (-1, problem.floors, floors)):
        for name, bound in bounds.items():
            table = np.abs(np.where(problem.allowed, problem.costs[name], 0.0))
            size = float(table.max(axis=1).sum()) + abs(bound)
            wide[name] = bound + sign * ((len(problem.layers) + 1) * size + 4 * abs(bound)) * EPS
    return dataclasses.replace(problem, limits=limits, floors=floors)


@st.composite
def asked(draw: st.DrawFn) -> tuple[Problem, float]:
    """A problem, and a loss between less than the least and the greatest, or just one's own."""
    problem = draw(problems())
    losses = sorted(Fraction(loss, reference.UNIT) for _, loss, _ in reference.totals(problem))
    assume(losses)
    if draw(st.booleans()):
        return problem, float(draw(st.sampled_from(losses)))
    low, high = float(losses[0]), float(losses[-1])
    return problem, low + draw(st.floats(-0.1, 1)) * (high - low)


@settings(max_examples=400)
@given(asked())
def test_the_least_cost_within_the_loss(case: tuple[Problem, float]) -> None:
    problem, most = case
    strict = reference.optimum(turned(problem, most))
    wide = reference.optimum(granted(problem, most))
    if wide is None:
        with pytest.raises(Infeasible):
            cheapest(problem, "r0", most)
        return
    assume(strict == wide)  # else some fit by rounding only
    found = cheapest(problem, "r0", most)
    choice = taken(problem, found)
    assert all(problem.allowed[i, c] for i, c in enumerate(choice))
    assert all(len({choice[i] for i in group}) == 1 for group in problem.groups)
    limits = granted(problem, most).limits
    assert found.loss == float(reference.total(problem.loss, choice)) <= limits["predicted"]
    assert list(found.costs) == list(problem.costs)
    assert all(found.costs[name] <= limits[name] for name in problem.limits)
    floors = granted(problem, most).floors
    assert all(found.costs[name] >= floor for name, floor in floors.items())
    rounding = 2 * EPS * float(problem.costs["r0"].max(axis=1).sum())
    assert found.costs["r0"] == pytest.approx(float(wide[0]), rel=0, abs=rounding)
    assert found.optimal
    assert math.isnan(found.bound)
    assert math.isnan(found.gap)
    if rounding == 0 or bool((problem.costs["r0"] == np.rint(problem.costs["r0"])).all()):
        size = float(np.abs(np.where(problem.allowed, problem.loss, 0)).max(axis=1).sum())
        assert found.loss == pytest.approx(float(wide[1]), rel=0, abs=8 * EPS * size)


@settings(max_examples=150)
@given(problems())
def test_says_the_least_loss_there_is(problem: Problem) -> None:
    try:
        best = allocate(problem)
    except Infeasible:  # whatever the loss: the limits' own error
        with pytest.raises(Infeasible, match=r"r[012]"):
            cheapest(problem, "r0", 1e6)
        return
    below = best.loss - 1e-3 * (1 + abs(best.loss)) - 1e-9 * float(np.abs(problem.loss).max())
    with pytest.raises(Infeasible, match="the least possible is") as caught:
        cheapest(problem, "r0", below)
    assert caught.value.binding == {"loss": (below, best.loss)}
    assert cheapest(problem, "r0", best.loss).loss <= best.loss + 1e-12 * (1 + abs(best.loss))


def test_it_undoes_allocate() -> None:
    """The least loss within a cost, then the least cost within that loss: no better than either."""
    problem = made()
    best = allocate(problem)
    back = cheapest(dataclasses.replace(problem, limits={}), "bits", best.loss)
    assert (back.choice, back.loss, back.costs) == (best.choice, best.loss, best.costs)


def test_what_else_the_costs_hold() -> None:
    """A fixed part, a cost that is called loss, a bar whose loss is unknown."""
    plain = made()
    allowed = np.ones((8, 3), dtype=bool)
    allowed[2, 0] = False
    costs = {**plain.costs, "loss": np.ones((8, 3))}
    loss = np.where(allowed, plain.loss, np.nan)
    problem = Problem(
        plain.layers, plain.schemes, loss, costs, {"loss": 10.0}, {"bits": 1000.0}, allowed
    )
    most = 2 * allocate(problem).loss
    found = cheapest(problem, "bits", most)
    bare = cheapest(dataclasses.replace(problem, fixed={}, limits={}), "bits", most)
    assert found.loss <= most
    assert found.choice == bare.choice
    assert found.costs == {"bits": bare.costs["bits"] + 1000, "loss": 8.0}


def test_time_that_runs_out_leaves_an_allocation() -> None:
    problem = made(200, 4)
    most = 1.5 * allocate(problem).loss
    found = cheapest(problem, "bits", most, time_limit=1e-6)
    assert found.loss <= most
    assert found.costs["bits"] >= cheapest(problem, "bits", most).costs["bits"]


def test_refuses_what_it_cannot_mean() -> None:
    with pytest.raises(ProblemError, match=r"energy.*bits"):
        cheapest(made(), "energy", 1.0)
    with pytest.raises(ProblemError, match="limit on loss is nan"):
        cheapest(made(), "bits", math.nan)
