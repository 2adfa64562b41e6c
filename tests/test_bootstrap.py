"""Replicas of tables against a literal bootstrap: samples drawn by index, estimates made again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bitfront.sensitivity.bootstrap import drawn, ratios, replicas
from bitfront.sensitivity.fisher import Fisher
from bitfront.sensitivity.lrp import LRP
from bitfront.sensitivity.mse import MSE
from bitfront.sensitivity.perturb import Perturb
from bitfront.types import Estimate, Measurement, Sensitivities

Float = NDArray[np.float64]
N, B = 40, 4000
LAYERS, SCHEMES = ("a", "b"), ("w2", "w4")
SPREAD = 5 / np.sqrt(B)  # relative: five standard errors of the ratio of two spreads of B draws


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pairs() -> list[tuple[str, str, Float, Float]]:
    """Layer, scheme, scores and counts (N,); all share the luck of their samples."""
    g = rng()
    luck, count = g.lognormal(size=N), g.integers(1, 9, N).astype(float)
    return [
        (layer, scheme, luck * count * g.lognormal(sigma=0.2, size=N) * scale, count)
        for layer in LAYERS
        for scheme, scale in zip(SCHEMES, (4.0, 1.0), strict=True)
    ]


def literal(estimate: Callable[..., Any], *vectors: NDArray[Any]) -> Float:
    """``estimate`` of the vectors at B draws of N indices, one draw after another."""
    g = rng(7)
    chosen = [g.choice(N, N) for _ in range(B)]
    return np.array([estimate(*(v[..., i] for v in vectors)) for i in chosen])


def a_table(values: Float, stderr: Float | None = None) -> Sensitivities:
    error = np.zeros(values.shape) if stderr is None else stderr
    return Sensitivities("kl", LAYERS, SCHEMES, values, error, N)


def test_draws_are_of_as_many_samples_and_their_ratios_are_literal() -> None:
    g = rng()
    scores, weights = g.normal(size=N), g.uniform(1, 2, N)
    W = drawn(50, N, rng(1))
    assert (W.sum(1) == N).all()
    for row, found in zip(W, ratios(W, scores, weights), strict=True):
        indices = np.repeat(np.arange(N), row.astype(int))
        assert found == pytest.approx(scores[indices].sum() / weights[indices].sum(), rel=1e-12)


def test_a_draw_without_weight_keeps_the_estimate() -> None:
    scores, weights = np.array([2.0, 0.0]), np.array([1.0, 0.0])
    assert ratios(np.array([[0.0, 2.0], [1.0, 1.0]]), scores, weights).tolist() == [2.0, 2.0]


def test_replicas_of_fisher_spread_as_those_of_a_literal_bootstrap() -> None:
    """Standard deviations of all entries, and the correlation between two layers."""
    s = {p[:2]: np.sqrt(2 * p[2]).astype(np.float32) for p in pairs()}
    recorded, expected = [], []
    for layer, scheme, scores, count in pairs():
        vectors: dict[str, NDArray[Any]] = {"count": count, "s@2": s[layer, scheme][None]}
        value = Estimate(scores.sum() / count.sum(), 0.0, N)
        recorded.append(Measurement("fisher", "", layer, scheme, {"sample@2": value}, vectors))
        expected.append(
            literal(
                lambda s, c: (0.5 * s.astype(np.float64) ** 2).sum() / c.sum(),
                s[layer, scheme], count,
            )
        )  # fmt: skip
    values = np.array([m.values["sample@2"].value for m in recorded]).reshape(2, 2)
    found, source = replicas(Fisher(), recorded, "sample@2", a_table(values), B, rng(3))
    assert source == "samples"
    assert found is not None
    spread = found.reshape(B, 4).std(0)
    assert spread == pytest.approx(np.std(expected, axis=1), rel=SPREAD)
    assert found.reshape(B, 4).mean(0) == pytest.approx(np.mean(expected, 1), rel=0.02)
    together = np.corrcoef(found[:, 0, 0], found[:, 1, 0])[0, 1]
    assert together == pytest.approx(np.corrcoef(expected[0], expected[2])[0, 1], abs=SPREAD)
    assert together > 0.5  # what samples have in common stays in common


def test_replicas_of_a_product_of_means_draw_both_factors_together() -> None:
    g = rng()
    share, error, energy = g.beta(2, 8, N), g.lognormal(size=N), g.lognormal(size=N)
    count = g.integers(1, 4, N).astype(float)
    vectors = {"share": share, "count": count, "error": error, "energy": energy}
    m = Measurement("lrp", "", "a", "w2", {}, vectors)
    found = LRP().resampled(m, "lrp", drawn(B, N, rng(2)))
    assert found is not None

    def product(a: Any, n: Any, e: Any, y: Any) -> Any:
        return (n * a).sum() / n.sum() * e.sum() / y.sum()

    expected = literal(product, share, count, error, energy)
    assert np.std(found) == pytest.approx(expected.std(), rel=SPREAD)


def test_every_table_draws_the_same_samples_for_all_pairs() -> None:
    """Two layers with equal scores are equal in each replica."""
    _, _, scores, count = pairs()[0]
    vectors = {"error": scores, "energy": count}
    recorded = [
        Measurement("mse", "", layer, "w2", {"mse": Estimate(1.0, 0.0, N)}, vectors)
        for layer in LAYERS
    ]
    table = a_table(np.array([[1.0, np.nan], [1.0, np.nan]]))
    found, _ = replicas(MSE(), recorded, "mse", table, 20, rng())
    assert found is not None
    assert np.array_equal(found[:, 0, 0], found[:, 1, 0])
    assert np.isnan(found[:, :, 1]).all()
    assert found[:, 0, 0].std() > 0


def test_without_vectors_standard_errors_stand_in() -> None:
    """As of a Bitfront that did not record what perturb has of each sample."""
    values, stderr = np.array([[3.0, 1.0], [2.0, np.nan]]), np.array([[0.3, 0.0], [0.1, np.nan]])
    recorded = [
        Measurement("perturb", "", la, s, {"kl": Estimate(1.0, 0.0, N)})
        for la, s in (("a", "w2"), ("a", "w4"), ("b", "w2"))
    ]
    found, source = replicas(Perturb(), recorded, "kl", a_table(values, stderr), B, rng())
    assert source == "errors"
    assert found is not None
    assert found[:, 0, 0].std() == pytest.approx(0.3, rel=SPREAD)
    assert found[:, 1, 0].std() == pytest.approx(0.1, rel=SPREAD)
    assert (found[:, 0, 1] == 1.0).all()


def test_few_samples_are_not_drawn_from_and_unknown_errors_are_said() -> None:
    one = {"error": np.ones(3), "energy": np.ones(3)}
    m = Measurement("mse", "", "a", "w2", {"mse": Estimate(1.0, 0.5, 3)}, one)
    table = Sensitivities("mse", ("a",), ("w2",), np.ones((1, 1)), np.full((1, 1), 0.5), 3)
    assert replicas(MSE(), [m], "mse", table, 5, rng())[1] == "errors"
    unknown = replace(table, stderr=np.full((1, 1), np.nan))
    assert replicas(MSE(), [m], "mse", unknown, 5, rng()) == (None, "unknown")
