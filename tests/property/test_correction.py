"""Expected losses against a literal Gaussian posterior, and what they must say in plain cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_t

from bitfront.search.correction import (
    NOISE,
    RATE,
    REACH,
    RHOS,
    SHAPE,
    SLOPE,
    Correction,
    corrected,
)


def example(
    seed: int, seen: int = 9, layers: int = 5, schemes: int = 3
) -> tuple[np.ndarray, list[np.ndarray], list[float], list[float]]:
    """Table, picks, predicted and measured losses, of a loss that is not additive."""
    generator = np.random.default_rng(seed)
    loss = np.exp(generator.normal(-3.0, 1.5, size=(layers, schemes)))
    picks = [generator.integers(schemes, size=layers) for _ in range(seen)]
    predicted = [total(loss, x) for x in picks]
    factors = np.exp(generator.normal(0.3, 0.5, size=loss.shape))
    measured = [total(loss * factors, x) ** 0.8 for x in picks]
    return loss, picks, predicted, measured


def total(loss: np.ndarray, x: np.ndarray) -> float:
    return math.fsum(loss[layer, j] for layer, j in enumerate(x))


def literal_covariance(
    loss: np.ndarray, x: np.ndarray, y: np.ndarray, middle: float, rho: float
) -> float:
    """Of log v(x) and log v(y) but for ε and c, over σ²; one term at a time."""
    p, r = total(loss, x), total(loss, y)
    covariance = SLOPE * (math.log(p) - middle) * (math.log(r) - middle)
    square = 0.0
    for layer in range(len(loss)):
        a, b = loss[layer, x[layer]] / p, loss[layer, y[layer]] / r
        covariance += a * b if x[layer] == y[layer] else 0.0
        square += (math.sqrt(a) - math.sqrt(b)) ** 2
    return covariance + rho * math.exp(-math.sqrt(square) / REACH)


def literal(
    loss: np.ndarray, picks: list[np.ndarray], measured: list[float], rho: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Covariance of what was measured but for c, its log over predicted, the mean of log p."""
    logs = [math.log(total(loss, x)) for x in picks]
    middle = sum(logs) / len(logs)
    K = np.array([[literal_covariance(loss, x, y, middle, rho) for y in picks] for x in picks])
    return K + NOISE * np.eye(len(picks)), np.log(measured) - logs, middle


@pytest.mark.parametrize("seed", range(6))
def test_expected_is_the_best_unbiased_prediction(seed: int) -> None:
    """The posterior mean under a flat c solves the kriging equations (Cressie 1993, eq. 3.2.12)."""
    loss, picks, predicted, measured = example(seed)
    found = corrected(loss, picks, predicted, measured)
    K, y, middle = literal(loss, picks, measured, found.rho)
    ones = np.ones((len(picks), 1))
    system = np.block([[K, ones], [ones.T, np.zeros((1, 1))]])
    for x in np.random.default_rng(seed).integers(loss.shape[1], size=(5, len(loss))):
        k = [literal_covariance(loss, x, z, middle, found.rho) for z in picks]
        weights = np.linalg.solve(system, [*k, 1.0])[:-1]
        expected = total(loss, x) * math.exp(weights @ y)
        assert found.expected(x, total(loss, x)) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("seed", range(12))  # of which two have another rho than the rest
def test_rho_is_the_most_likely(seed: int) -> None:
    """c is gone from differences; 1/σ² ~ Gamma(SHAPE, RATE) makes them multivariate t."""
    loss, picks, predicted, measured = example(seed)
    differences = np.diff(np.eye(len(picks)), axis=0)

    def likely(rho: float) -> float:
        K, y, _ = literal(loss, picks, measured, rho)
        shape = RATE / SHAPE * differences @ K @ differences.T
        return float(multivariate_t.logpdf(differences @ y, shape=shape, df=2 * SHAPE))

    assert corrected(loss, picks, predicted, measured).rho == max(RHOS, key=likely)


def fit(loss: np.ndarray, pairs: list[tuple[list[int], float]]) -> Correction:
    picks = [np.array(x) for x, _ in pairs]
    return corrected(loss, picks, [total(loss, x) for x in picks], [v for _, v in pairs])


def test_few_measurements() -> None:
    loss = np.array([[0.1, 0.2], [0.3, 0.1], [0.2, 0.05]])
    x, y = np.array([0, 0, 0]), np.array([1, 1, 1])
    assert fit(loss, []).expected(x, 0.6) == 0.6
    one = fit(loss, [([0, 0, 0], 1.2)])
    assert one.expected(x, 0.6) == pytest.approx(1.2)
    assert one.expected(y, 0.35) == pytest.approx(0.7)  # twice what is predicted


def test_an_entry_that_is_off_is_found_out() -> None:
    """Of allocations with a bad entry more is expected, also of new ones; of others not."""
    generator = np.random.default_rng(0)
    loss = np.full((6, 3), 0.1) * np.array([1.0, 0.7, 0.4])
    truth = loss.copy()
    truth[2, 1] *= 8
    picks = list(generator.integers(3, size=(30, 6)))
    found = corrected(
        loss, picks, [total(loss, x) for x in picks], [total(truth, x) for x in picks]
    )
    seen = {tuple(x) for x in picks}
    fresh = [x for x in generator.integers(3, size=(60, 6)) if tuple(x) not in seen]
    assert {x[2] == 1 for x in fresh} == {True, False}
    for x in fresh:
        before, after = total(loss, x), found.expected(x, total(loss, x))
        bad, good = (abs(math.log(v / total(truth, x))) for v in (before, after))
        assert good < math.log(1.25)  # the goal of what is expected
        assert good < bad or x[2] != 1


def test_what_is_not_positive_counts_for_nothing() -> None:
    loss = np.array([[0.1, 0.2], [0.3, 0.1]])
    pairs = [([0, 0], 0.8), ([0, 1], 0.0), ([1, 0], math.nan), ([1, 1], -1.0)]
    found = fit(loss, pairs)
    assert found.expected(np.array([1, 0]), 0.5) == pytest.approx(1.0)
    assert found.expected(np.array([1, 0]), 0.0) == 0.0
    assert found.expected(np.array([1, 0]), -0.1) == -0.1


def test_layers_that_lose_nothing_and_those_that_gain() -> None:
    """Shares are of magnitudes, so a table may have zeros and negative entries."""
    loss = np.array([[0.0, 0.2], [0.0, 0.3], [-0.01, 0.1]])
    found = fit(loss, [([1, 1, 1], 0.9), ([1, 1, 0], 0.8), ([0, 1, 1], 0.5)])
    assert 0 < found.expected(np.array([1, 0, 1]), 0.3) < math.inf
    assert found.expected(np.array([0, 0, 0]), -0.01) == -0.01


@given(st.integers(0, 50), st.integers(1, 12))
def test_what_was_measured_is_expected_again(seed: int, seen: int) -> None:
    loss, picks, predicted, measured = example(seed, seen)
    found = corrected(loss, picks, predicted, measured)
    for x, p, v in zip(picks, predicted, measured, strict=True):
        # within what NOISE leaves: picks that came twice were measured alike
        assert found.expected(x, p) == pytest.approx(v, rel=0.1)


@given(st.integers(0, 50), st.floats(0.01, 100.0))
def test_units_do_not_matter(seed: int, unit: float) -> None:
    loss, picks, predicted, measured = example(seed)
    plain = corrected(loss, picks, predicted, measured)
    scaled = corrected(loss * unit, picks, [p * unit for p in predicted], measured)
    x = np.zeros(len(loss), dtype=np.intp)
    assert scaled.expected(x, total(loss, x) * unit) == pytest.approx(
        plain.expected(x, total(loss, x)), rel=1e-6
    )
