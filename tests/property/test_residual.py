"""The fit of whole models to kernels: what was planted comes out, and noise is not believed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfront.residual import RIDGES, Whole, fitted

ALONE = {"MatMul": 1e-3, "int8": 4e-4, "int4": 6e-4}
LAYERS = 12


def wholes(
    rng: np.random.Generator, rest: float, more: dict[str, float], each: dict[str, float],
    count: int = 24, noise: float = 0.0,
) -> list[Whole]:  # fmt: skip
    """Models of ``LAYERS`` layers of several sizes, each by one operator."""
    sizes = rng.uniform(0.3, 3.0, LAYERS)
    found = []
    for i in range(count):
        if i < len(ALONE):
            names = [list(ALONE)[i]] * LAYERS
        else:
            shares = rng.dirichlet(np.full(len(ALONE), 0.5))
            names = rng.choice(list(ALONE), LAYERS, p=shares).tolist()
        seconds = dict.fromkeys(names, 0.0)
        calls = dict.fromkeys(names, 0)
        taken = rest
        for name, size in zip(names, sizes, strict=True):
            seconds[name] += ALONE[name] * size
            calls[name] += 1
            taken += (1 + more[name]) * ALONE[name] * size + each[name]
        found.append(Whole(seconds, calls, taken * float(np.exp(noise * rng.normal()))))
    return found


factors = st.fixed_dictionaries({name: st.floats(-0.3, 0.5) for name in ALONE})


@given(seed=st.integers(0, 1 << 30), rest=st.floats(1e-3, 2e-2), more=factors)
def test_whole_models_are_predicted_from_others(
    seed: int, rest: float, more: dict[str, float]
) -> None:
    rng = np.random.default_rng(seed)
    found = fitted(wholes(rng, rest, more, dict.fromkeys(ALONE, 0.0)))
    assert max(map(abs, found.errors)) < 0.02
    assert found.rest >= 0


@given(seed=st.integers(0, 1 << 30))
def test_kernels_that_say_all_need_no_correction(seed: int) -> None:
    nothing = dict.fromkeys(ALONE, 0.0)
    found = fitted(wholes(np.random.default_rng(seed), 5e-3, nothing, nothing))
    assert found.rest == pytest.approx(5e-3, rel=1e-3)
    for name in ALONE:
        assert found.layer(name, 1e-3, 1) == pytest.approx(1e-3, rel=1e-3)


def left_out(data: list[Whole], ridge: float) -> list[float]:
    """A literal reference: normal equations of the relative errors, one model left out each."""
    names = sorted(ALONE)
    y = np.array([w.taken for w in data])
    T = np.array([[w.seconds.get(n, 0.0) for n in names] for w in data])
    N = np.array([[w.calls.get(n, 0) for n in names] for w in data], float)
    mean = T.sum(0) / N.sum(0)
    M = np.zeros((len(y), 1))  # nothing is handed over here
    A = np.hstack([np.full((len(y), 1), y.mean()), T, N * mean, M]) / y[:, None]
    aim = 1 - T.sum(1) / y
    errors = []
    for i in range(len(y)):
        rest = [k for k in range(len(y)) if k != i]
        hold = np.diag([0.0, *[ridge * len(rest) / 100] * 7])
        x = np.linalg.solve(A[rest].T @ A[rest] + hold, A[rest].T @ aim[rest])
        errors.append(float(A[i] @ x - aim[i]))
    return errors


@given(seed=st.integers(0, 1 << 30))
def test_errors_are_those_of_models_left_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    more = {"MatMul": 0.2, "int8": -0.1, "int4": 0.4}
    data = wholes(rng, 2e-2, more, dict.fromkeys(ALONE, 1e-5), count=10, noise=0.02)
    found = fitted(data)
    np.testing.assert_allclose(found.errors, left_out(data, found.ridge), rtol=1e-5, atol=1e-9)
    worse = [np.square(left_out(data, r)).sum() for r in RIDGES]
    assert np.square(found.errors).sum() <= min(worse) * (1 + 1e-6)


def test_a_call_costs_something_besides() -> None:
    each = {"MatMul": 0.0, "int8": 2e-4, "int4": 0.0}
    rng = np.random.default_rng(0)
    found = fitted(wholes(rng, 5e-3, dict.fromkeys(ALONE, 0.0), each, count=60))
    assert max(map(abs, found.errors)) < 0.02
    assert found.layer("int8", 4e-4, 1) > 4.5e-4


@given(seed=st.integers(0, 1 << 30), element=st.floats(2e-10, 2e-9))
def test_what_changing_layouts_takes(seed: int, element: float) -> None:
    """Planted: some nanoseconds for each of a million elements, of which drawn parts are moved."""
    rng = np.random.default_rng(seed)
    nothing = dict.fromkeys(ALONE, 0.0)
    data = [
        replace(whole, moved=moved, taken=whole.taken + element * moved)
        for whole in wholes(rng, 5e-3, nothing, nothing)
        for moved in [int(rng.integers(0, 4_000_000))]
    ]
    found = fitted(data)
    assert found.element == pytest.approx(element, rel=0.05)
    assert max(map(abs, found.errors)) < 0.02


@given(seed=st.integers(0, 1 << 30))
def test_moving_takes_no_less_than_nothing(seed: int) -> None:
    """Where models that move more happen to be faster."""
    rng = np.random.default_rng(seed)
    nothing = dict.fromkeys(ALONE, 0.0)
    data = [
        replace(whole, moved=i * 100_000, taken=whole.taken * (1 - 0.01 * i))
        for i, whole in enumerate(wholes(rng, 5e-3, nothing, nothing, count=12))
    ]
    assert fitted(data).element >= 0


def test_nothing_takes_less_than_no_time() -> None:
    more = {"MatMul": -0.9, "int8": 0.0, "int4": 0.0}
    rng = np.random.default_rng(1)
    found = fitted(wholes(rng, 0.0, more, dict.fromkeys(ALONE, 0.0)))
    assert found.rest >= 0
    assert found.layer("MatMul", 1e-9, 1) >= 0


def test_an_operator_that_was_not_seen_is_as_it_is_alone() -> None:
    nothing = dict.fromkeys(ALONE, 0.0)
    found = fitted(wholes(np.random.default_rng(2), 5e-3, nothing, nothing))
    assert found.layer("other", 2e-3, 3) == 2e-3
