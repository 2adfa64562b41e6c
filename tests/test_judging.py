"""Choosing between candidates that were measured on the same samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitfront.judging import FEW, View, gain, view_of
from bitfront.tasks.views import tempered, views, views_of
from tests.small_tasks import TASKS, convolutional

Views = dict[str, np.ndarray]


def candidates(
    heavy: float, quiet: float, count: int = 12, N: int = 400, seed: int = 0
) -> list[Views]:
    """True means 1 to 1.5; under "kl" some samples carry ``heavy``, by lot, in each candidate.

    "kl@2" is ``quiet`` times the true mean, with little noise; "kl@4" says nothing.
    """
    rng = np.random.default_rng(seed)
    found = []
    for mean in np.linspace(1, 1.5, count):
        by_lot = np.where(rng.random(N) < 0.02, heavy, 0.0) * rng.exponential(1, N)
        own = mean + 0.05 * rng.standard_normal(N) + by_lot
        view = quiet * (mean + 0.05 * rng.standard_normal(N))
        found.append({"kl": own, "kl@2": view, "kl@4": 1 + rng.standard_normal(N)})
    return found


def test_a_metric_whose_halves_agree_is_believed() -> None:
    """Even where a quieter view says the contrary."""
    found = candidates(heavy=0.0, quiet=1.0)
    against = [{**c, "kl@2": d["kl@2"]} for c, d in zip(found, found[::-1], strict=True)]
    view = view_of(against, "kl")
    assert view.quiet == "kl@2"
    values = [view.of(c).mean() for c in against]
    assert np.allclose(values, [c["kl"].mean() for c in against], atol=0.02)


def test_a_metric_of_few_samples_is_foretold_from_its_quietest_view() -> None:
    by_view, by_metric = [], []
    for seed in range(40):
        found = candidates(heavy=12.0, quiet=7.0, seed=seed)
        view = view_of(found, "kl")
        assert view.quiet == "kl@2"
        assert view.share < 0.8
        by_view.append(np.argmin([view.of(c).mean() for c in found]))
        by_metric.append(np.argmin([c["kl"].mean() for c in found]))
    assert np.mean(by_view) < 0.7 * np.mean(by_metric)  # candidate 0 is the best


def test_a_candidate_that_only_the_view_flatters_is_not_taken() -> None:
    found = candidates(heavy=3.0, quiet=7.0)
    worst = found[-1]
    bait = {**worst, "kl@2": 0.5 * worst["kl@2"]}
    view = view_of([*found, bait], "kl")
    values = [view.of(c).mean() for c in [*found, bait]]
    assert view.quiet == "kl@2"
    assert values[-1] >= bait["kl"].mean()
    assert min(values) < values[-1]


def test_a_value_is_the_worse_of_the_metric_and_what_is_believed_of_it() -> None:
    """Literally, from the definition in ``judging``."""
    found = candidates(heavy=2.0, quiet=0.5)
    view = view_of(found, "kl")
    assert view.quiet == "kl@2"
    scale = sum(c["kl"].mean() for c in found) / sum(c["kl@2"].mean() for c in found)
    assert view.scale == pytest.approx(scale)
    agreed = np.zeros(2)
    for order in map(np.random.default_rng(5).permutation, [400] * 400):
        left = []
        for half in (order[:200], order[200:]):
            rest = [c["kl"][half].mean() - scale * c["kl@2"][half].mean() for c in found]
            left.append(np.array(rest) - np.mean(rest))
        agreed += left[0] @ left[1], (left[0] @ left[0] + left[1] @ left[1]) / 2
    rho = agreed[0] / agreed[1]
    assert view.share == pytest.approx(max(2 * rho / (1 + rho), 0), abs=0.15)
    believed = [scale * c["kl@2"] + view.share * (c["kl"] - scale * c["kl@2"]) for c in found]
    worse = [b.mean() > c["kl"].mean() for b, c in zip(believed, found, strict=True)]
    assert {*worse} == {True, False}
    for c, b, foretold in zip(found, believed, worse, strict=True):
        assert np.allclose(view.of(c), b if foretold else c["kl"])
    one = found[3]
    held = {f"held-back/{name}": values for name, values in one.items()}
    assert np.array_equal(view.of(held, "held-back/"), view.of(one))


def test_too_few_candidates_near_the_best_tell_nothing() -> None:
    assert view_of(candidates(1.0, 1.0, count=FEW - 1), "kl") == View("kl")
    far = [{name: 10 * values for name, values in c.items()} for c in candidates(1.0, 1.0)]
    few = candidates(1.0, 1.0, count=FEW - 1)
    assert view_of([*few, *far], "kl") == View("kl")
    assert view_of([{"kl": np.ones(2), "kl@2": np.ones(2)}] * 8, "kl") == View("kl")
    assert view_of([{"kl": c["kl"]} for c in candidates(1.0, 1.0)], "kl") == View("kl")


def test_gains_are_paired() -> None:
    rng = np.random.default_rng(2)
    common = 100 * rng.standard_normal(50)
    d = 0.5 + rng.standard_normal(50)
    found = gain({"kl": common}, {"kl": common + d}, View("kl"))
    assert found.value == pytest.approx(d.mean())
    assert found.stderr == pytest.approx(d.std(ddof=1) / 50**0.5)
    assert found.real == (d.mean() > d.std(ddof=1) / 50**0.5)
    assert not gain({"kl": np.zeros(1)}, {"kl": np.ones(1)}, View("kl")).real


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
