"""The contract of metrics, over every registered one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bitfront.errors import DataError, UnknownName
from bitfront.tasks.base import Batch
from bitfront.tasks.evaluation import Measured, judge, worsening
from bitfront.tasks.metrics import METRICS

N, P, K = 6, 3, 4


def outputs(seed: int) -> Tensor:
    return torch.randn(N, P, K, generator=torch.Generator().manual_seed(seed))


def batch(scored: Tensor | None = None) -> Batch:
    return Batch((), samples=N, labels=torch.arange(N * P).reshape(N, P) % K, scored=scored)


def measured(name: str, z: Tensor, y: Tensor, given: Batch) -> Measured:
    metrics = {name: METRICS[name]}
    found = judge(metrics, z, y, given, "categorical")
    sums, counts = ({k: v[i] for k, v in found.items()} for i in (0, 1))
    return Measured(sums, counts, (0,), (N,), metrics)


@pytest.fixture(params=list(METRICS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_says_what_it_is(name: str) -> None:
    metric = METRICS[name]
    assert metric.name == name
    assert metric.better in ("lower", "higher")
    assert metric.finish in ("identity", "exp")
    assert metric.worsening in ("itself", "difference")


def test_the_full_model_is_not_worse_than_itself(name: str) -> None:
    z = outputs(0)
    same = measured(name, z, z, batch())
    assert worsening(same, same)[name].value == 0


def test_sums_are_per_sample(name: str) -> None:
    """Changing one sample's outputs changes that sample's sum alone."""
    z, y = outputs(0), outputs(1)
    changed = y.clone()
    changed[2] = -y[2]
    before, after = (measured(name, z, each, batch()).sums[name] for each in (y, changed))
    assert (np.flatnonzero(before != after) == [2]).all()
    assert before.dtype == np.float64
    assert before.shape == (N,)


def test_positions_that_are_not_scored_do_not_count(name: str) -> None:
    scored = torch.ones(N, P, dtype=torch.bool)
    scored[1, 2] = scored[4] = False
    z, y = outputs(0), outputs(1)
    noisy = y.clone()
    noisy[1, 2], noisy[4] = 50, -50
    first, second = (measured(name, z, each, batch(scored)) for each in (y, noisy))
    np.testing.assert_array_equal(first.sums[name], second.sums[name])
    assert first.counts[name].tolist() == [3, 2, 3, 3, 0, 3]
    assert first.estimates()[name].value == pytest.approx(second.estimates()[name].value)


def test_chunks_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    z, y = outputs(0), outputs(1)
    whole = measured(name, z, y, batch()).sums[name]
    monkeypatch.setattr("bitfront.tasks.evaluation._CHUNK", 2 * K)
    np.testing.assert_allclose(measured(name, z, y, batch()).sums[name], whole, rtol=1e-12)


def test_worse_outputs_have_a_positive_worsening(name: str) -> None:
    """The full model knows the labels; the other one is sure of a wrong class."""
    given = batch()
    assert given.labels is not None
    z = 5 * torch.nn.functional.one_hot(given.labels, K).float()
    y = z.roll(1, -1)
    worse, full = measured(name, z, y, given), measured(name, z, z, given)
    assert worsening(worse, full)[name].value > 0.5


def test_missing_labels_are_said_to_be_missing(name: str) -> None:
    bare = Batch((), samples=N)
    if METRICS[name].needs_labels:
        with pytest.raises(DataError, match="needs labels"):
            measured(name, outputs(0), outputs(1), bare)
    else:
        measured(name, outputs(0), outputs(1), bare)


def test_an_unknown_metric_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="kl"):
        METRICS["blue"]
