"""Hypervolumes against inclusion and exclusion of boxes, in rational arithmetic."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfront.errors import InvalidInput
from bitfront.storage.hypervolume import hypervolume

NUMBERS = [
    st.integers(-4, 4).map(float),  # ties, points outside, points on the reference
    st.floats(-1e3, 1e3),
    st.sampled_from([math.nan, math.inf, 0.0, 1.0, 0.1]),
]
ROUNDING = 1e-13  # of the volume: at most seven points, sums of few terms


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[list[float]], list[float], list[str]]:
    m = draw(st.integers(1, 5))
    number = draw(st.sampled_from(NUMBERS))
    senses = draw(st.lists(st.sampled_from(["min", "max"]), min_size=m, max_size=m))
    points = draw(st.lists(st.lists(number, min_size=m, max_size=m), max_size=7))
    worst = {"min": math.inf, "max": -math.inf}  # the infinity that is merely bad
    points = [
        [worst[s] if math.isinf(x) else x for x, s in zip(p, senses, strict=True)] for p in points
    ]
    reference = draw(st.lists(st.integers(-3, 3).map(float), min_size=m, max_size=m))
    return points, reference, senses


def literal(points: list[list[float]], reference: list[float], senses: list[str]) -> Fraction:
    """The union of the boxes between each point and the reference, by its definition."""
    boxes = []
    for point in points:
        gaps = [
            (r - x) if sense == "min" else (x - r)
            for x, r, sense in zip(point, reference, senses, strict=True)
        ]
        if all(gap > 0 for gap in gaps):
            boxes.append(
                [abs(Fraction(r) - Fraction(x)) for x, r in zip(point, reference, strict=True)]
            )
    total = Fraction(0)
    for size in range(1, len(boxes) + 1):
        for chosen in itertools.combinations(boxes, size):
            shared = math.prod(min(lengths) for lengths in zip(*chosen, strict=True))
            total += shared if size % 2 else -shared
    return total


def array(points: list[list[float]], m: int) -> np.ndarray:
    return np.array(points, dtype=np.float64).reshape(len(points), m)


@settings(max_examples=300)
@given(cases())
def test_a_hypervolume_is_the_union_of_boxes(
    case: tuple[list[list[float]], list[float], list[str]],
) -> None:
    points, reference, senses = case
    found = hypervolume(array(points, len(senses)), reference, senses)
    exact = literal(points, reference, senses)
    assert found == pytest.approx(float(exact), rel=ROUNDING, abs=1e-300)


@settings(max_examples=100)
@given(cases(), st.data())
def test_points_add_volume_or_nothing(
    case: tuple[list[list[float]], list[float], list[str]], data: st.DataObject
) -> None:
    points, reference, senses = case
    m = len(senses)
    whole = hypervolume(array(points, m), reference, senses)
    for n in range(len(points)):
        assert hypervolume(array(points[:n], m), reference, senses) <= whole * (1 + ROUNDING)
    worse = [
        [x + data.draw(st.sampled_from([0.0, 1.0])) * (1 if s == "min" else -1)
         for x, s in zip(p, senses, strict=True)]
        for p in points
    ]  # fmt: skip
    mixed = array(data.draw(st.permutations([*points, *worse])), m)
    assert hypervolume(mixed, reference, senses) == pytest.approx(whole, rel=ROUNDING)


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_a_hypervolume_is_the_share_of_random_points_that_are_dominated(m: int) -> None:
    rng = np.random.default_rng(m)
    points = rng.random((30, m))
    found = hypervolume(points, np.ones(m))
    inside = np.array([(points <= x).all(axis=1).any() for x in rng.random((40_000, m))])
    error = math.sqrt(found * (1 - found) / len(inside))
    assert abs(inside.mean() - found) < 4 * error


def test_known_volumes() -> None:
    assert hypervolume([[1.0, 2.0], [2.0, 1.0]], [3.0, 3.0]) == 3.0
    assert hypervolume([[1.0, 2.0], [2.0, 1.0]], [0.0, 0.0], ["max", "max"]) == 3.0
    assert hypervolume([[2.0], [1.0]], [4.0]) == 3.0
    assert hypervolume(np.eye(3), [1.0, 1.0, 1.0]) == 0.0  # each only as good as the reference
    assert hypervolume(1 - np.eye(3), [2.0, 2.0, 2.0]) == 2.0 * 3 - 1.0 * 3 + 1.0
    assert hypervolume(np.empty((0, 4)), np.zeros(4)) == 0.0


@pytest.mark.parametrize(
    ("points", "reference", "words"),
    [
        ([[0.0, 0.0]], [1.0], "for 2 objectives"),
        ([[0.0, 0.0]], [1.0, math.inf], "finite number"),
        ([[0.0, 0.0]], [1.0, math.nan], "finite number"),
        ([[0.0, -math.inf]], [1.0, 1.0], "infinite points"),
        ([[-1e200, -1e200]], [1.0, 1.0], "too large"),
        ([0.0, 0.0], [1.0, 1.0], "shape"),
    ],
)
def test_what_has_no_volume_is_refused(points: object, reference: object, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        hypervolume(points, reference)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="senses"):
        hypervolume([[0.0, 0.0]], [1.0, 1.0], ["min"])
