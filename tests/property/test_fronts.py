"""Fronts against the definition of dominance, read literally."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfront.errors import InvalidInput
from bitfront.storage.fronts import front

NUMBERS = st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 1.0, 2.0, 3.0, math.inf, math.nan])


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[list[float]], list[str]]:
    m = draw(st.integers(1, 4))
    number = draw(st.sampled_from([NUMBERS, st.floats()]))  # few values make ties, many do not
    points = draw(st.lists(st.lists(number, min_size=m, max_size=m), max_size=12))
    senses = draw(st.lists(st.sampled_from(["min", "max"]), min_size=m, max_size=m))
    return points, senses


def dominates(a: list[float], b: list[float], senses: list[str]) -> bool:
    if any(map(math.isnan, a)):
        return False
    better = [x < y if s == "min" else x > y for x, y, s in zip(a, b, senses, strict=True)]
    worse = [x > y if s == "min" else x < y for x, y, s in zip(a, b, senses, strict=True)]
    return any(better) and not any(worse)


@given(cases())
def test_a_front_holds_what_nothing_dominates(case: tuple[list[list[float]], list[str]]) -> None:
    points, senses = case
    literal = [
        i
        for i, b in enumerate(points)
        if not any(map(math.isnan, b)) and not any(dominates(a, b, senses) for a in points)
    ]
    array = np.array(points, dtype=np.float64).reshape(len(points), len(senses))
    found = front(array, senses)
    assert found.dtype == np.int64
    assert found.tolist() == literal


def test_all_objectives_are_minimized_unless_said_otherwise() -> None:
    points = [[1.0, 2.0], [2.0, 1.0], [2.0, 2.0]]
    assert front(points).tolist() == [0, 1]
    assert front(points, ["max", "max"]).tolist() == [2]


def test_no_points_have_an_empty_front() -> None:
    assert front(np.empty((0, 3))).tolist() == []
    assert front([[math.nan, 0.0]]).tolist() == []


def test_two_objectives_take_one_sort() -> None:
    x = np.random.default_rng(0).normal(size=200_000)
    points = np.stack([x, -x], axis=1)
    points[1::2, 1] += 1e-9  # half of them are the front: 100 000 points, hopeless in pairs
    found = front(points)
    assert set(found) >= set(range(0, len(x), 2))
    for i in found[found % 2 == 1][:100]:
        assert not ((points <= points[i]).all(axis=1) & (points < points[i]).any(axis=1)).any()


@pytest.mark.parametrize(
    ("points", "senses"),
    [
        ([1.0, 2.0], None),
        (np.empty((2, 0)), None),
        ([[1.0, 2.0]], ["min"]),
        ([[1.0, 2.0]], ["min", "less"]),
    ],
)
def test_other_shapes_and_senses_are_refused(points: object, senses: list[str] | None) -> None:
    with pytest.raises(InvalidInput):
        front(points, senses)  # type: ignore[arg-type]
