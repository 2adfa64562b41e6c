"""Hulls and fronts of all items at once, against one item at a time in plain Python."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfront.search import front
from bitfront.search.hull import BLOCK, hulls, walk
from bitfront.types import Problem

Points = list[tuple[Fraction, Fraction]]


def lower_hull(points: Points) -> Points:
    """Corners of the lower hull, cheapest first, by looking at every pair and every third point."""
    unique = sorted(set(points))
    lowest = [min(y for a, y in unique if a == x) for x in sorted({x for x, _ in unique})]
    candidates = list(zip(sorted({x for x, _ in unique}), lowest, strict=True))
    corners = []
    for x, y in candidates:
        between = [
            (a, b)
            for a, b in itertools.combinations(candidates, 2)
            if a[0] < x < b[0] and (b[1] - a[1]) * (x - a[0]) <= (y - a[1]) * (b[0] - a[0])
        ]
        if not between:
            corners.append((x, y))
    return corners


tables = st.integers(1, 4).flatmap(
    lambda G: st.integers(1, 6).flatmap(
        lambda C: st.lists(
            st.lists(st.tuples(st.integers(0, 9), st.integers(-6, 9)), min_size=C, max_size=C),
            min_size=G, max_size=G,
        )
    )
)  # fmt: skip


@settings(max_examples=200)
@given(tables)
def test_hulls_are_those_of_each_item(table: list[list[tuple[int, int]]]) -> None:
    cost, loss = (np.array([[p[i] for p in row] for row in table], dtype=float) for i in (0, 1))
    corners, count = hulls(loss, cost)
    for g, row in enumerate(table):
        expected = lower_hull([(Fraction(x), Fraction(y)) for x, y in row])
        found = corners[g, : count[g]]
        assert [(cost[g, c], loss[g, c]) for c in found] == expected


@settings(max_examples=200)
@given(tables)
def test_a_walk_takes_the_steepest_step_that_is_left(table: list[list[tuple[int, int]]]) -> None:
    cost, loss = (np.array([[p[i] for p in row] for row in table], dtype=float) for i in (0, 1))
    steps = walk(loss, cost)
    picks = steps.start.copy()
    for n, (g, at, to) in enumerate(zip(steps.group, steps.at, steps.to, strict=True)):
        assert picks[g] == at
        assert (steps.picks(n) == picks).all()
        slopes = [
            (loss[i, picks[i]] - loss[i, c]) / (cost[i, c] - cost[i, picks[i]])
            for i in range(len(loss))
            for c in range(loss.shape[1])
            if cost[i, c] > cost[i, picks[i]]
        ]
        assert (loss[g, at] - loss[g, to]) / (cost[g, to] - cost[g, at]) == max(slopes)
        picks[g] = to
    assert loss[np.arange(len(loss)), picks].tolist() == loss.min(axis=1).tolist()


def test_hulls_of_more_items_than_a_block() -> None:
    rng = np.random.default_rng(0)
    loss, cost = rng.random((BLOCK + 7, 5)), rng.random((BLOCK + 7, 5))
    corners, count = hulls(loss, cost)
    for g in (0, BLOCK - 1, BLOCK, BLOCK + 6):
        alone, n = hulls(loss[g : g + 1], cost[g : g + 1])
        assert (corners[g, : count[g]] == alone[0, : n[0]]).all()


def test_a_front_is_a_sequence_made_on_demand() -> None:
    rng = np.random.default_rng(1)
    L, C = 60, 8
    cost = np.cumsum(rng.random((L, C)), axis=1)
    loss = 10 ** rng.uniform(-9, 3, (L, 1)) * np.sort(rng.random((L, C)))[:, ::-1]
    names = tuple(f"l{i}" for i in range(L)), tuple(f"s{c}" for c in range(C))
    points = front(Problem(*names, loss, {"t": cost}, {}, fixed={"t": 3.25}), "t")
    assert len(points) == len(points.costs) == len(points.losses) == len(points.bounds) > L
    for i, point in enumerate(points):
        # the running totals do not drift: within two roundings of the correctly rounded sums
        assert abs(points.costs[i] - point.costs["t"]) <= 2 * math.ulp(point.costs["t"])
        assert abs(points.losses[i] - point.loss) <= 2 * math.ulp(point.loss)
        assert point.bound == point.loss
    assert points[-1].choice == points[len(points) - 1].choice
    assert [p.loss for p in points[2:5]] == [points[i].loss for i in (2, 3, 4)]
    with pytest.raises(IndexError):
        points[len(points)]
