"""Choosing between candidates that were measured on the same samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitfront.judging import AGREED, gain, trusted
from bitfront.sensitivity.stability import split_half
from bitfront.tasks.views import tempered, views, views_of
from tests.small_tasks import TASKS, convolutional

Views = dict[str, np.ndarray]


def candidates(noise: float, count: int = 8, N: int = 400) -> list[Views]:
    """True means 1 to ``count``; under "kl" one sample in a hundred carries nearly everything."""
    rng = np.random.default_rng(0)
    found = []
    for mean in range(1, count + 1):
        quiet = mean + noise * rng.standard_normal(N)
        heavy = np.where(rng.random(N) < 0.01, 100.0, 0.0) * rng.exponential(1, N)
        found.append({"kl": heavy, "kl@2": quiet, "kl@4": quiet})
    return found


def test_the_first_view_that_halves_agree_on_is_trusted() -> None:
    noisy = candidates(noise=1.0)
    assert trusted(noisy, ["kl", "kl@2", "kl@4"]) == "kl@2"
    clear = [{"kl": c["kl@2"], "kl@2": c["kl"], "kl@4": c["kl"]} for c in noisy]
    assert trusted(clear, ["kl", "kl@2", "kl@4"]) == "kl"


def test_where_no_halves_agree_the_most_stable_view_is_trusted() -> None:
    rng = np.random.default_rng(1)
    drowned = [{f"kl@{T}": 0.01 * k + rng.standard_normal(100) for T in range(4)} for k in range(8)]
    agreement = {
        view: split_half(np.stack([c[view] for c in drowned]), np.ones(100)) for view in drowned[0]
    }
    assert max(agreement.values()) < AGREED
    best = max(agreement, key=lambda view: agreement[view])
    assert best != "kl@0"
    assert trusted(drowned, list(agreement)) == best


def test_too_few_candidates_tell_nothing() -> None:
    assert trusted(candidates(1.0, count=3), ["kl", "kl@2"]) is None
    assert trusted([{"kl": np.ones(2)}] * 5, ["kl"]) is None


def test_gains_are_paired() -> None:
    rng = np.random.default_rng(2)
    common = 100 * rng.standard_normal(50)
    d = 0.5 + rng.standard_normal(50)
    found = gain({"kl": common}, {"kl": common + d}, "kl")
    assert found.value == pytest.approx(d.mean())
    assert found.stderr == pytest.approx(d.std(ddof=1) / 50**0.5)
    assert found.real == (d.mean() > d.std(ddof=1) / 50**0.5)
    assert not gain({"kl": np.zeros(1)}, {"kl": np.ones(1)}, "kl").real


def test_views_are_divergences_at_higher_temperatures() -> None:
    assert list(views(convolutional())) == ["kl@2", "kl@4"]
    assert views_of("kl", ["agreement", "kl", "kl@2", "kl@4"]) == ["kl", "kl@2", "kl@4"]
    assert views_of("top1", ["kl", "kl@2", "top1"]) == ["top1"]
    z, y = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    metric = tempered(4.0)
    assert metric.positions is not None
    p, q = torch.softmax(z / 4, -1), torch.softmax(y / 4, -1)
    literal = 16 * (p * (p / q).log()).sum(-1)
    assert torch.allclose(metric.positions(z, y, None, "categorical"), literal)


@pytest.mark.parametrize("kind", list(TASKS))
def test_a_viewing_evaluator_measures_the_same_and_more(kind: str) -> None:
    from bitfront.tasks.evaluation import Evaluator

    task = TASKS[kind]()
    plain = Evaluator(task, task.calibration)
    assert set(plain.baseline.sums) == set(plain.metrics)
    viewing = plain.viewing(views(task))
    assert set(viewing.baseline.sums) == {*plain.metrics, *views(task)}
    with torch.no_grad():
        next(task.model.parameters()).mul_(1.5)
    a, b = plain.measure(), viewing.measure()
    assert set(a.sums) == set(plain.metrics)
    assert all(np.array_equal(a.sums[name], b.sums[name]) for name in a.sums)
