"""The bounded search inside the duality gap, against enumeration and against CP-SAT."""

from __future__ import annotations

import itertools
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ortools.sat.python import cp_model

from bitfront.search import allocate
from bitfront.search.core import Row, decide
from bitfront.search.dual import climb
from bitfront.search.inside import decide_inside
from bitfront.search.items import merge
from bitfront.types import Problem
from tests.reference import allocation as reference

WHOLE = 1e-12  # the precision of tables of integers, which are exact


@settings(max_examples=200)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 4), st.integers(1, 3),
    st.sampled_from([1, 2, 5, 10_000]), st.booleans(),
)  # fmt: skip
@example(3259, 6, 4, 3, 10_000, False)  # the hint is the best there is
def test_against_enumeration(seed: int, G: int, C: int, R: int, width: int, signed: bool) -> None:
    """Whatever the prices, the width and what is kept: true bounds, proofs that are true."""
    rng = np.random.default_rng(seed)
    loss = rng.integers(-6 if signed else 0, 12, (G, C)).astype(float)
    costs = rng.integers(0, 9, (R, G, C)).astype(float)
    kept = rng.random((G, C)) < 0.7
    hint = rng.integers(0, C, G)
    kept[np.arange(G), hint] = True
    room = costs[:, np.arange(G), hint].sum(axis=1) + rng.integers(0, 4, R)
    rows = [Row(table, WHOLE, float(most)) for table, most in zip(costs, room, strict=True)]
    prices = rng.choice([0.0, 0.3, 1.0, 7.0], R)
    answer = decide_inside(kept, Row(loss, WHOLE), rows, hint, prices, width)

    def total(table: np.ndarray, choice: tuple[int, ...]) -> float:
        return float(sum(table[g, c] for g, c in enumerate(choice)))

    least = min(
        total(loss, choice)
        for choice in itertools.product(*(np.flatnonzero(row).tolist() for row in kept))
        if all(total(table, choice) <= most for table, most in zip(costs, room, strict=True))
    )
    assert answer.bound <= least
    assert answer.picks is not None
    assert kept[np.arange(G), answer.picks].all()
    assert (costs[:, np.arange(G), answer.picks].sum(axis=1) <= room).all()
    found = loss[np.arange(G), answer.picks].sum()
    assert found >= least
    if answer.proven:
        assert found == least == answer.bound
    if width == 10_000:
        assert answer.proven


def random_problem(seed: int, L: int, C: int, R: int) -> Problem:
    rng = np.random.default_rng(seed)
    bits = np.linspace(2, 8, C)
    size = 10 ** rng.uniform(0, 2, (L, 1))
    loss = 10 ** rng.uniform(-4, 0, (L, 1)) * 4.0**-bits * rng.lognormal(0, 0.3, (L, C))
    costs = {f"r{r}": size * (bits ** (1 + r / 2) + rng.random((L, C))) for r in range(R)}
    limits = {n: float(0.7 * t.min(1).sum() + 0.3 * t.max(1).sum()) for n, t in costs.items()}
    names = tuple(f"l{i}" for i in range(L)), tuple(f"s{c}" for c in range(C))
    return Problem(*names, loss, costs, limits)


@pytest.mark.parametrize("R", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_against_cp_sat(seed: int, R: int) -> None:
    """In doubles, with all choices kept: both read the tables to the same precision."""
    items = merge(random_problem(seed, 14, 5, R))
    hint = items.cost.sum(axis=0).argmin(axis=1)
    assert items.fits(hint)
    rows = [Row(t, s / 2, m) for t, s, m in zip(items.cost, items.slack, items.room, strict=True)]
    objective = Row(items.loss, items.rounding(hint) / 2)
    prices = climb(items).prices
    found = decide_inside(items.allowed, objective, rows, hint, prices, 100_000)
    other = decide(items.allowed, objective, rows, hint, 60.0)
    assert found.proven
    assert other.proven
    assert found.picks is not None
    assert other.picks is not None
    assert items.losses(found.picks) == pytest.approx(items.losses(other.picks), rel=1e-15)


@pytest.mark.parametrize("seed", range(6))
def test_lagrange_is_exact_with_one_limit(seed: int) -> None:
    problem = random_problem(seed, 40, 6, 1)
    found, best = allocate(problem, "lagrange"), allocate(problem)
    assert best.optimal
    assert found.optimal
    assert found.loss == pytest.approx(best.loss, rel=1e-15)


@pytest.mark.parametrize("R", [1, 2])
def test_thousands_of_layers(R: int) -> None:
    """A size at which a search that is not linear in the layers would be felt."""
    problem = random_problem(0, 5000, 8, R)
    found = allocate(problem, gap=1e-5)
    quick = allocate(problem, "lagrange", gap=1e-5)
    for one in (found, quick):
        assert one.gap <= 1e-5 * one.loss
        assert all(one.costs[name] <= limit for name, limit in problem.limits.items())
    assert found.bound <= quick.loss
    assert quick.bound <= found.loss


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 1e-3, 0.1, 0.5]))
def test_a_gap_is_kept(seed: int, gap: float) -> None:
    problem = random_problem(seed, 5, 4, 2)
    best = reference.optimum(problem)
    assert best is not None
    found = allocate(problem, gap=gap)
    assert found.gap <= gap * found.loss * (1 + 1e-12)
    assert found.bound <= float(best[0]) * (1 + 1e-12)
    assert found.loss <= float(best[0]) / (1 - gap) * (1 + 1e-12)


def test_a_time_limit_that_cp_sat_ends_a_little_early_is_no_interrupt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen at 100 000 layers: stopped by its limit of 25.367 s, it told of less than that."""
    items = merge(random_problem(1, 300, 12, 3))
    hint = items.cost.sum(axis=0).argmin(axis=1)
    rows = [Row(t, s / 2, m) for t, s, m in zip(items.cost, items.slack, items.room, strict=True)]
    objective = Row(items.loss, items.rounding(hint) / 2)
    limit = 0.3
    for part, raises in ((0.999, False), (0.5, True)):
        told = mock.PropertyMock(return_value=part * limit)
        monkeypatch.setattr(cp_model.CpSolver, "wall_time", told)
        if raises:  # the user pressed Ctrl-C, which CP-SAT takes as a request to stop
            with pytest.raises(KeyboardInterrupt):
                decide(items.allowed, objective, rows, hint, limit)
        else:
            assert not decide(items.allowed, objective, rows, hint, limit).proven
