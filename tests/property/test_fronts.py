"""Fronts against the definition of dominance, read literally."""

from __future__ import annotations

import math
from fractions import Fraction
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfront.errors import InvalidInput
from bitfront.storage import fronts
from bitfront.storage.fronts import front, knee

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
    for sample in (1, 2, fronts.SAMPLE):  # few, so that there are many points
        with patch.object(fronts, "SAMPLE", sample):
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


def literal_knee(points: list[list[float]], senses: list[str]) -> set[int]:
    """The points of the front whose distance to the line between its ends is greatest, in
    fractions of the front's extent; empty where none is on the better side."""
    signs = [1 if sense == "min" else -1 for sense in senses]
    exact = [[Fraction(x) * s for x, s in zip(p, signs, strict=True)] for p in points]
    best = [
        i
        for i, b in enumerate(exact)
        if not any(a != b and all(x <= y for x, y in zip(a, b, strict=True)) for a in exact)
    ]
    (x0, y0), (x1, y1) = min(exact[i] for i in best), max(exact[i] for i in best)
    if x0 == x1:
        return set()
    far = {i: 1 - (exact[i][0] - x0) / (x1 - x0) - (exact[i][1] - y1) / (y0 - y1) for i in best}
    most = max(far.values())
    return {i for i in best if far[i] == most} if most > 0 else set()


@given(
    st.lists(st.lists(st.integers(-9, 9), min_size=2, max_size=2), min_size=1, max_size=9),
    st.lists(st.sampled_from(["min", "max"]), min_size=2, max_size=2),
    st.sampled_from([1.0, 1e-3, 1e300]),
)
def test_the_knee_is_farthest_from_the_chord(
    points: list[list[float]], senses: list[str], unit: float
) -> None:
    array = np.array(points, dtype=np.float64) * [unit, 1.0]
    found = knee(array, senses)
    expected = literal_knee(points, senses)
    assert (found in expected) if expected else found is None


def test_a_front_has_a_knee_only_where_it_bends_to_the_better() -> None:
    bend = [[1.0, 9.0], [2.0, 2.0], [3.0, 1.5], [9.0, 1.0], [9.0, 9.0]]
    assert knee(bend) == 1
    assert knee(np.negative(bend), ["max", "max"]) == 1
    assert knee([*bend, [-math.inf, 99.0], [math.nan, 0.0]]) == 1
    assert knee([[x / 10, 1 - x / 10] for x in range(11)]) is None  # straight, up to rounding
    assert knee([[1.0, 9.0], [8.0, 8.0], [9.0, 1.0]]) is None  # it bulges the other way
    assert knee([[0.0, 1.0], [1.0, 0.0]]) is None
    assert knee([[0.0, 1.0]] * 3) is None
    assert knee(np.empty((0, 2))) is None
    assert knee([[3.0, 3.0], *bend, bend[1]]) == 2  # of equal points the first
    with pytest.raises(InvalidInput, match="3 objectives"):
        knee(np.ones((4, 3)))


def test_a_knee_among_logarithms() -> None:
    decay = np.array([[x, 10.0 ** (6 - x)] for x in range(7)])
    assert knee(decay) == 1
    assert knee(np.column_stack([decay[:, 0], np.log(decay[:, 1])])) is None
