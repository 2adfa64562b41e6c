"""The map of predicted to measured losses against a literal pool-adjacent-violators."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bitfront.recalibration import recalibration

losses = st.floats(1e-6, 1e3)
points = st.lists(st.tuples(losses, losses), min_size=1, max_size=12)


def pooled(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """(mean log p, mean log v) of each pool: of equal p, then of neighbours that do not rise."""
    pools: list[list[tuple[float, float]]] = []
    for p in sorted({p for p, _ in pairs}):
        pools.append([(math.log(p), math.log(v)) for q, v in pairs if q == p])
    while True:
        means = [sum(y for _, y in pool) / len(pool) for pool in pools]
        falls = [i for i in range(len(pools) - 1) if means[i] >= means[i + 1] - 1e-9]
        if not falls:
            return [tuple(np.mean(pool, axis=0)) for pool in pools]
        i = falls[0]
        pools[i : i + 2] = [pools[i] + pools[i + 1]]


@given(points)
def test_pools_lie_on_the_map(pairs: list[tuple[float, float]]) -> None:
    logs = np.unique(np.log([p for p, _ in pairs]))
    # nearer ones are the same to the map, which knows logarithms
    assume(len(logs) == len({p for p, _ in pairs}) and (np.diff(logs) > 1e-9).all())
    found = recalibration([p for p, _ in pairs], [v for _, v in pairs])
    for x, y in pooled(pairs):
        assert math.log(found.measured(math.exp(x))) == pytest.approx(y, abs=1e-6)


@given(points, losses, losses)
def test_it_rises_and_has_an_inverse(pairs: list[tuple[float, float]], a: float, b: float) -> None:
    found = recalibration([p for p, _ in pairs], [v for _, v in pairs])
    if a > b * (1 + 1e-9):
        assert found.measured(a) >= found.measured(b)
    assert np.all(np.diff(found.x) > 0)
    assert np.all(np.diff(found.y) > 0)
    if min((np.diff(found.x).min(initial=1), np.diff(found.y).min(initial=1))) > 1e-3:
        assert found.predicted(found.measured(a)) == pytest.approx(a, rel=1e-6)


def test_between_pools_it_is_linear_in_logarithms_and_beyond_a_factor() -> None:
    found = recalibration([0.01, 1.0], [0.04, 2.0])
    assert found.measured(0.1) == pytest.approx(math.sqrt(0.04 * 2.0))
    assert found.measured(0.001) == pytest.approx(0.004)
    assert found.measured(10.0) == pytest.approx(20.0)


def test_predictions_whose_logarithms_are_equal_are_one() -> None:
    near = float(np.nextafter(1000.0, 2000.0))
    found = recalibration([1000.0, near], [1.0, 2.0])
    assert found.measured(near) == pytest.approx(math.sqrt(2.0))
    assert len(found.x) == 1


def test_few_points() -> None:
    assert recalibration([], []).measured(0.3) == recalibration([], []).predicted(0.3) == 0.3
    one = recalibration([0.1], [0.3])
    assert one.measured(0.5) == pytest.approx(1.5)
    assert one.predicted(1.5) == pytest.approx(0.5)
    contrary = recalibration([0.1, 0.2], [0.4, 0.1])  # one pool: a factor
    assert contrary.measured(math.sqrt(0.02)) == pytest.approx(0.2)


def test_what_is_not_positive_counts_for_nothing() -> None:
    odd = recalibration([0.1, 0.0, -1.0, math.nan, 0.2], [0.3, 1.0, 1.0, 1.0, -0.1])
    assert odd.measured(0.1) == pytest.approx(0.3)
    assert len(odd.x) == 1
    assert odd.measured(0.0) == 0.0
    assert odd.measured(-0.2) == -0.2
