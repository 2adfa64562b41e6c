"""The model of moves against a literal Gaussian posterior, and what is proposed by it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfront.search import fitting, proposals
from bitfront.search.surrogate import FLOOR, JITTER, Surrogate, fitted
from bitfront.types import Problem


def example(
    seed: int, items: int = 5, schemes: int = 3, seen: int = 7
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], np.ndarray]:
    """at, relative, seen, values."""
    generator = np.random.default_rng(seed)
    at = generator.integers(schemes, size=items)
    relative = generator.normal(scale=0.5, size=(items, schemes))
    picks = [generator.integers(schemes, size=items) for _ in range(seen)]
    return at, relative, picks, generator.normal(scale=0.3, size=seen)


def literal(
    at: np.ndarray, relative: np.ndarray, seen: list[np.ndarray], y: np.ndarray,
    a: float, b: float, tau: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Mean (G, C) and covariance (GC, GC) of w given y, one term at a time."""
    G, C = relative.shape
    m = np.zeros((G, C))
    s = np.zeros((G, C))
    for g, c in product(range(G), range(C)):
        if c != at[g]:
            m[g, c] = np.log(max(1 + relative[g, c], FLOOR))
            s[g, c] = a + b * abs(m[g, c])
    X = np.zeros((len(seen), G * C))
    noise = np.zeros(len(seen))
    for k, picks in enumerate(seen):
        for g in range(G):
            if picks[g] != at[g]:
                X[k, g * C + picks[g]] = 1
                noise[k] += 1
    R = np.diag([tau**2 * d * (d - 1) + JITTER for d in noise])
    V = np.diag(s.ravel() ** 2)
    gain = V @ X.T @ np.linalg.inv(X @ V @ X.T + R)
    mean = m.ravel() + gain @ (y - X @ m.ravel())
    return mean.reshape(G, C), V - gain @ X @ V


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_is_the_posterior_mean(seed: int) -> None:
    at, relative, seen, y = example(seed)
    model = fitted(at, relative, seen, y.tolist())
    mean, _ = literal(at, relative, seen, y, *model.believed)
    np.testing.assert_allclose(model.mean, mean, rtol=1e-6, atol=1e-9)
    assert (model.mean[np.arange(len(at)), at] == 0).all()


def test_draws_have_the_posterior_mean_and_covariance() -> None:
    at, relative, seen, y = example(3, items=3, seen=4)
    model = fitted(at, relative, seen, y.tolist())
    mean, covariance = literal(at, relative, seen, y, *model.believed)
    generator = np.random.default_rng(0)
    draws = np.array([model.draw(generator).ravel() for _ in range(20_000)])
    error = np.sqrt(np.diag(covariance) / len(draws))
    assert (np.abs(draws.mean(0) - mean.ravel()) <= 5 * error + 1e-12).all()
    # a sample covariance is off by about sqrt((v_i v_j + c_ij²) / n)
    v = np.diag(covariance)
    off = np.sqrt((np.outer(v, v) + covariance**2) / len(draws))
    assert (np.abs(np.cov(draws.T) - covariance) <= 5 * off + 1e-12).all()


def test_a_share_of_a_draw_is_on_the_way_from_the_mean() -> None:
    at, relative, seen, y = example(1)
    model = fitted(at, relative, seen, y.tolist())
    whole, half = (model.draw(np.random.default_rng(7), share) for share in (1.0, 0.5))
    np.testing.assert_allclose(half - model.mean, (whole - model.mean) / 2, atol=1e-12)


def test_nothing_measured_leaves_what_was_expected() -> None:
    at, relative, _, _ = example(2)
    model = fitted(at, relative, [], [])
    expected = np.log(np.maximum(1 + relative, FLOOR))
    expected[np.arange(len(at)), at] = 0
    np.testing.assert_allclose(model.mean, expected)


def test_exact_effects_are_learnt() -> None:
    """Where losses are products of effects, single moves measured give those of all pairs."""
    generator = np.random.default_rng(5)
    w = generator.normal(scale=0.2, size=(6, 3))
    at = np.zeros(6, dtype=np.intp)
    w[:, 0] = 0
    seen = []
    for g, c in product(range(6), (1, 2)):
        picks = at.copy()
        picks[g] = c
        seen.append(picks)
    y = [float(w[np.arange(6), picks].sum()) for picks in seen]
    model = fitted(at, np.zeros((6, 3)), seen, y)
    assert isinstance(model, Surrogate)
    np.testing.assert_allclose(model.mean, w, atol=0.02)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Problem, tuple[str, ...], dict[tuple[str, ...], float]]:
    seed = draw(st.integers(0, 10_000))
    generator = np.random.default_rng(seed)
    L, C = draw(st.integers(2, 5)), draw(st.integers(2, 3))
    cost = generator.integers(1, 9, size=(L, C)).astype(float)
    cost.sort(axis=1)
    allowed = np.ones((L, C), dtype=bool)
    if draw(st.booleans()):
        allowed[0, -1] = False
    groups = ((0, 1),) if draw(st.booleans()) else ()
    schemes = tuple(f"s{c}" for c in range(C))
    lowest = cost[:, 0].sum()
    limit = lowest + draw(st.integers(0, 12))
    problem = Problem(
        layers=tuple(f"l{i}" for i in range(L)), schemes=schemes,
        loss=generator.normal(scale=0.5, size=(L, C)), costs={"size": cost},
        limits={"size": limit}, allowed=allowed, groups=groups,
    )  # fmt: skip
    at = (schemes[0],) * L
    seen = {at: 1.0}
    for choice in product(schemes, repeat=L):
        fits = fitting(problem, [dict(zip(problem.layers, choice, strict=True))], limits=False)[0]
        if fits and generator.random() < 0.2:
            seen[choice] = float(generator.uniform(0.5, 2))
    seen[at] = 1.0
    return problem, at, seen


@given(problems(), st.integers(1, 6))
@settings(max_examples=60)
def test_proposals_are_new_within_limits_and_the_same_again(
    case: tuple[Problem, tuple[str, ...], dict[tuple[str, ...], float]], count: int
) -> None:
    problem, at, seen = case
    found = proposals(problem, at, seen, count, np.random.default_rng(0))
    again = proposals(problem, at, seen, count, np.random.default_rng(0))
    choices = [a.choice for a in found]
    assert choices == [a.choice for a in again]
    assert len(set(choices)) == len(choices) <= count
    assert not set(choices) & seen.keys()
    assert all(fitting(problem, [a.schemes for a in found]))


def test_what_a_problem_allows_is_told() -> None:
    problem = Problem(
        ("a", "b", "c"), ("x", "y"), np.zeros((3, 2)), {"size": np.array([[1, 2]] * 3)},
        {"size": 5}, allowed=np.array([[1, 1], [1, 1], [1, 0]], dtype=bool), groups=((0, 1),),
    )  # fmt: skip
    cases = {"xxx": True, "yyx": True, "xyx": False, "xxy": False, "yyy": False, "xxz": False}
    given_ = [dict(zip("abc", text, strict=True)) for text in cases]
    assert fitting(problem, given_) == list(cases.values())
    assert fitting(problem, [{"a": "x", "b": "x"}, {**given_[0], "d": "x"}]) == [False, False]
    tight = Problem(
        problem.layers, problem.schemes, problem.loss, problem.costs, {"size": 4},
        groups=problem.groups,
    )  # fmt: skip
    assert fitting(tight, given_[:2]) == [True, False]
    assert fitting(tight, given_[:2], limits=False) == [True, True]
