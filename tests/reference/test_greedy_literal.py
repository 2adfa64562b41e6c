"""Greedy up against the words of its definition: all steps looked at anew before each is taken."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from bitfront.search import allocate, ascent
from bitfront.types import Problem

Float = NDArray[np.float64]


def problem(seed: int, size: int, count: int, barred: bool = False) -> Problem:
    """Costs that fall with some schemes, so that a step may make room; the cheapest ones fit."""
    rng = np.random.default_rng(seed)
    L, C = size, int(rng.integers(2, 9))
    bits = np.linspace(2, 8, C)
    weights = 10 ** rng.uniform(0, 2, (L, 1))
    loss = 10 ** rng.uniform(-3, 0, (L, 1)) * 4.0 ** (2 - bits) * rng.lognormal(0, 0.5, (L, C))
    costs = {f"r{r}": weights * (bits + 4 * rng.random((L, C))) for r in range(count)}
    allowed = rng.random((L, C)) < 0.8 if barred else np.ones((L, C), dtype=bool)
    allowed[:, 0] = True
    groups = ((0, 2), (1, 3, 4)) if barred else ()
    names = tuple(f"l{i}" for i in range(L)), tuple(f"s{c}" for c in range(C))
    open_ = Problem(*names, loss, costs, {}, allowed=allowed, groups=groups)
    merged, tables = items(open_)
    start = cheapest(merged, tables)
    limits, floors = {}, {}
    for name, table in zip(costs, tables, strict=True):
        least = sum(table[g][c] for g, c in enumerate(start))
        most = float(np.where(np.isfinite(merged), table, 0).max(axis=1).sum())
        limits[name] = least + rng.uniform(0, 0.5) * (most - least)
        if barred and rng.random() < 0.3:
            floors[name] = least * (1 - rng.uniform(0, 0.02))
    return Problem(*names, loss, costs, limits, allowed=allowed, groups=groups, floors=floors)


def items(problem: Problem) -> tuple[Float, list[Float]]:
    """Loss, inf where barred, and costs: a row for each group and each layer in none."""
    tied = {i for group in problem.groups for i in group}
    alone = [(i,) for i in range(len(problem.layers)) if i not in tied]
    members = [list(m) for m in sorted([*problem.groups, *alone])]
    free = np.array([problem.allowed[m].all(axis=0) for m in members])
    loss = np.array([problem.loss[m].sum(axis=0) for m in members])
    costs = [np.array([t[m].sum(axis=0) for m in members]) for t in problem.costs.values()]
    return np.where(free, loss, np.inf), costs


def weights(loss: Float, costs: list[Float]) -> list[float]:
    """One over greatest minus least total."""
    free = np.isfinite(loss)
    return [
        1 / sum(row[ok].max() - row[ok].min() for row, ok in zip(table, free, strict=True))
        for table in costs
    ]


def cheapest(loss: Float, costs: list[Float]) -> list[int]:
    total = sum(w * table for w, table in zip(weights(loss, costs), costs, strict=True))
    return [int(c) for c in np.where(np.isfinite(loss), total, np.inf).argmin(axis=1)]


def literal(problem: Problem) -> tuple[list[int], int]:
    """The choice of each item, and how many of the steps made room in some resource."""
    loss, costs = items(problem)
    picks, freed, weight = cheapest(loss, costs), 0, weights(loss, costs)
    while True:
        steps = []
        for g, c in np.ndindex(*loss.shape):
            here = picks[g]
            saved = loss[g, here] - loss[g, c]
            moved = [*picks[:g], c, *picks[g + 1 :]]
            if saved > 0 and kept(problem, costs, moved):
                more = [table[g, c] - table[g, here] for table in costs]
                cost = sum(w * m for w, m in zip(weight, more, strict=True))
                steps.append((saved / cost if cost > 0 else math.inf, -g, -c, min(more) < 0))
        if not steps:
            return picks, freed
        _, g, c, frees = max(steps)
        picks[-g] = -c
        freed += frees


def kept(problem: Problem, costs: list[Float], picks: list[int]) -> bool:
    for name, table in zip(problem.costs, costs, strict=True):
        total = math.fsum(table[g, c] for g, c in enumerate(picks))
        if total > problem.limits[name] or total < problem.floors.get(name, 0.0):
            return False
    return True


@pytest.mark.parametrize("barred", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_greedy_up_takes_the_steps_of_its_definition(count: int, barred: bool) -> None:
    freed = 0
    for seed in range(25):
        given = problem(seed, 8, count, barred)
        picks, more = literal(given)
        freed += more
        loss, _ = items(given)
        found = allocate(given, "greedy-up")
        choice = [given.schemes.index(name) for name in found.choice]
        tied = {i for group in given.groups for i in group[1:]}
        assert [c for i, c in enumerate(choice) if i not in tied] == picks
        assert found.loss == pytest.approx(loss[np.arange(len(picks)), picks].sum())
    assert count == 1 or freed > 0


def test_greedy_up_passes_over_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small, and items so many, that most are passed over and queues are merged."""
    monkeypatch.setattr(ascent, "BLOCK", 4)
    for seed in range(3):
        given = problem(100 + seed, 40, 3)
        found = allocate(given, "greedy-up")
        assert [given.schemes.index(name) for name in found.choice] == literal(given)[0]


def test_of_equal_steps_the_first_is_taken() -> None:
    names = tuple("abcdef"), ("s0", "s1", "s2")
    loss = np.tile([4.0, 2.0, 0.0], (6, 1))
    cost = np.tile([0.0, 1.0, 2.0], (6, 1))
    found = allocate(Problem(*names, loss, {"r": cost}, {"r": 5.0}), "greedy-up")
    assert found.choice == ("s2", "s2", "s1", "s0", "s0", "s0")
