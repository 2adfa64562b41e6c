"""The evaluator: estimates, standard errors, subsets, other people's outputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from bitfront.scratch import Scratch
from bitfront.tasks import Evaluator, ModuleTask
from bitfront.tasks.ratios import ratio


def task() -> ModuleTask:
    def make() -> dict[str, object]:
        generator = torch.Generator().manual_seed(0)
        model = nn.Linear(5, 4)
        with torch.no_grad():
            model.weight.copy_(torch.randn(4, 5, generator=generator))
            model.bias.zero_()
        x = torch.randn(23, 5, generator=generator)
        y = torch.arange(23) % 4
        batches = [{"input": a, "labels": b} for a, b in zip(x.split(10), y.split(10), strict=True)]
        return {"model": model, "calibration": batches, "evaluation": batches}

    return ModuleTask(make, device="cpu")


def test_ratio_estimator_is_the_textbook_one() -> None:
    sums, counts = np.array([3.0, 0.0, 5.0, 2.0]), np.array([2.0, 1.0, 4.0, 1.0])
    found = ratio(sums, counts)
    assert found.value == pytest.approx(10 / 8)
    residuals = [3 - 2.5, 0 - 1.25, 5 - 5, 2 - 1.25]
    expected = math.sqrt(4 / 3 * sum(r * r for r in residuals)) / 8
    assert found.stderr == pytest.approx(expected)


def test_ratio_of_equal_counts_is_the_mean_with_its_usual_error() -> None:
    values = np.random.default_rng(0).normal(size=50)
    found = ratio(values, np.ones(50))
    assert found.stderr == pytest.approx(values.std(ddof=1) / math.sqrt(50))


def test_ratio_of_one_sample_and_of_none() -> None:
    assert math.isnan(ratio(np.ones(1), np.ones(1)).stderr)
    assert math.isnan(ratio(np.zeros(3), np.zeros(3)).value)


def test_perplexity_is_exp_of_the_mean_by_the_delta_method() -> None:
    evaluator = Evaluator(task(), task().calibration)
    evaluator.metrics["perplexity"] = evaluator.task.metric("perplexity")
    found = evaluator.measure().estimates()
    assert found["perplexity"].value == pytest.approx(math.exp(found["nll"].value))
    expected = found["perplexity"].value * found["nll"].stderr
    assert found["perplexity"].stderr == pytest.approx(expected)


def test_the_model_is_measured_in_its_present_state() -> None:
    subject = task()
    evaluator = Evaluator(subject, subject.evaluation)
    assert evaluator.measure().estimates()["kl"].value == 0
    with torch.no_grad():
        subject.model.weight.mul_(1.5)  # type: ignore[operator]
    changed = evaluator.measure()
    assert changed.estimates()["kl"].value > 0.01
    assert evaluator.worsening(changed)["kl"] == changed.estimates()["kl"]


def test_worsening_is_paired() -> None:
    """An accuracy drop has the error of the differences, not of the accuracies."""
    subject = task()
    evaluator = Evaluator(subject, subject.evaluation)
    drop = evaluator.worsening(evaluator.measure())["top1"]
    assert (drop.value, drop.stderr) == (0, 0)
    assert evaluator.baseline.estimates()["top1"].stderr > 0


def test_subsets_are_parts_of_the_whole() -> None:
    subject = task()
    evaluator = Evaluator(subject, subject.evaluation)
    with torch.no_grad():
        subject.model.weight.mul_(0.7)  # type: ignore[operator]
    whole, part = evaluator.measure(), evaluator.measure(batches=[2, 0])
    assert (part.samples, part.batches, part.sizes) == (13, (2, 0), (3, 10))
    taken = whole.take([2, 0])
    for name in subject.metrics:
        np.testing.assert_array_equal(part.sums[name], taken.sums[name])
    assert evaluator.worsening(part)["nll"] == evaluator.worsening(taken)["nll"]


def test_outputs_of_others_take_the_place_of_the_models() -> None:
    subject = task()
    evaluator = Evaluator(subject, subject.evaluation)
    seen = []

    def outputs(batch: object, index: int) -> torch.Tensor:
        seen.append(index)
        return evaluator.reference(index) + 1  # logits are free up to a constant

    measured = evaluator.measure(outputs)
    assert seen == [0, 1, 2]
    assert measured.estimates()["kl"].value == pytest.approx(0, abs=1e-12)


def test_references_may_live_in_files() -> None:
    subject = task()
    with Scratch(limit=0) as scratch:
        kept = Evaluator(subject, subject.evaluation, scratch).measure().estimates()
    assert kept == Evaluator(subject, subject.evaluation).measure().estimates()
