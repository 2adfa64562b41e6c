"""Ranks inside the noise against the definition, read literally."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfront.ranking import inside_noise

VALUES = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1.25, 2.0, math.inf, math.nan])
ERRORS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, math.inf, math.nan])
# wide of where a square under- or overflows, so that the literal version below is exact enough
MANY_VALUES = st.floats(-1e6, 1e6) | VALUES
MANY_ERRORS = st.floats(1e-6, 1e6) | ERRORS


def literal(values: list[float], errors: list[float]) -> list[bool]:
    def neighbours(a: int, b: int) -> bool:
        low, high = sorted((values[a], values[b]))
        return not any(low < values[c] < high for c in range(len(values)))

    def together(a: int, b: int) -> bool:
        if not (math.isfinite(values[a]) and math.isfinite(values[b])) or a == b:
            return False
        if math.isnan(errors[a]) or math.isnan(errors[b]) or not neighbours(a, b):
            return False
        return abs(values[a] - values[b]) < math.sqrt(errors[a] ** 2 + errors[b] ** 2)

    n = range(len(values))
    return [any(together(a, b) for b in n) for a in n]


@given(st.lists(st.tuples(VALUES, ERRORS) | st.tuples(MANY_VALUES, MANY_ERRORS), max_size=9))
def test_a_rank_in_doubt_is_one_within_the_joint_error_of_a_neighbour(
    pairs: list[tuple[float, float]],
) -> None:
    values, errors = [v for v, _ in pairs], [s for _, s in pairs]
    found = inside_noise(values, errors)
    assert found.dtype == np.bool_
    assert found.tolist() == literal(values, errors)


@given(st.lists(st.tuples(VALUES, ERRORS), max_size=4))
def test_the_order_of_layers_does_not_matter(pairs: list[tuple[float, float]]) -> None:
    marked = dict(zip(range(len(pairs)), inside_noise(*columns(pairs)), strict=True))
    for order in permutations(range(len(pairs))):
        again = inside_noise(*columns([pairs[i] for i in order]))
        assert [marked[i] for i in order] == again.tolist()


def columns(pairs: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [v for v, _ in pairs], [s for _, s in pairs]


@pytest.mark.parametrize(
    ("values", "errors", "expected"),
    [
        ([3.0, 1.0, 2.0], [0.1, 0.1, 0.1], [False, False, False]),
        ([3.0, 1.0, 2.0], [0.1, 0.8, 0.8], [False, True, True]),
        ([1.0, 2.0], [0.6, 0.8], [False, False]),  # 1 is not less than 1
        ([1.0, 1.0, 5.0], [0.0, 0.0, 0.1], [False, False, False]),  # both exact: a tie, no noise
        ([1.0, 1.0, 5.0], [0.0, 0.1, 0.1], [True, True, False]),
        ([1.0, 1.5, 2.0], [2.0, math.nan, 0.1], [False, False, False]),
        ([7.0], [9.0], [False]),
        ([], [], []),
    ],
)
def test_small_rankings(values: list[float], errors: list[float], expected: list[bool]) -> None:
    assert inside_noise(values, errors).tolist() == expected


def test_a_hundred_thousand_layers_take_one_sort() -> None:
    rng = np.random.default_rng(0)
    v = rng.permutation(100_000).astype(np.float64)
    assert inside_noise(v, np.full(len(v), 0.8)).all()
    assert not inside_noise(v, np.full(len(v), 0.7)).any()
