"""Giving up on hopeless candidates: the rule, and what is recorded of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import bitfront
from bitfront.heldout import CALIBRATION, PARTIAL, evaluated
from bitfront.measuring import measure
from bitfront.pruning import Hopeless, loss_of
from bitfront.study import Study
from bitfront.tasks.evaluation import Evaluator
from bitfront.types import Trial
from tests.small_tasks import TASKS

GOOD, BAD = "w8", "w2"


def sequential(rule: Hopeless, candidate: np.ndarray, batch: int = 16) -> int:
    """After how many samples it is given up; all of them when it is not."""
    for n in range(batch, len(candidate), batch):
        if rule.given_up(candidate[:n], np.arange(n)):
            return n
    return len(candidate)


@pytest.mark.parametrize("tail", [0.5, 1.5, 3.0], ids=["light", "heavy", "very heavy"])
def test_equals_are_kept(tail: float) -> None:
    """Losses of one law, as great on all samples together: at most 2 % of 400 are given up.

    A level of 1 % allows 2 % by two standard errors of 400 draws.
    """
    rng = np.random.default_rng(0)
    given_up = 0
    for _ in range(400):
        shared = rng.lognormal(0, tail, 128)
        pair = shared * rng.lognormal(0, 0.5, (2, 128))
        pair[1] *= pair[0].sum() / pair[1].sum()  # equal on all samples
        given_up += sequential(Hopeless("kl", pair[0]), pair[1]) < 128
    assert given_up <= 8


def test_much_worse_ones_are_given_up_soon() -> None:
    rng = np.random.default_rng(1)
    shared = rng.lognormal(0, 1, (200, 128))
    spent = [
        sequential(Hopeless("kl", row), 2 * row * rng.lognormal(0, 0.5, 128)) for row in shared
    ]
    assert np.mean(spent) < 50


def test_one_sample_decides_late() -> None:
    """Where it outweighs all others, mean over error is 1/√(1 − n/N) at most: z at 1 − 1/z²."""
    incumbent = np.ones(128)
    candidate = incumbent.copy()
    candidate[3] = 1e6
    assert sequential(Hopeless("kl", incumbent, sure=2), candidate) > 0.75 * 128
    assert sequential(Hopeless("kl", incumbent, sure=3), candidate) == 128


def test_too_few_samples_and_all_of_them_decide_nothing() -> None:
    rule = Hopeless("kl", np.linspace(1, 2, 64), least=32)
    worse = rule.incumbent + 1
    assert not rule.given_up(worse[:31], np.arange(31))
    assert rule.given_up(worse[:32], np.arange(32))
    assert not rule.given_up(worse, np.arange(64))


@pytest.fixture(params=list(TASKS))
def study(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Study]:
    with bitfront.open_study("s", TASKS[request.param](), tmp_path / "b.db") as opened:
        yield opened


def measured(study: Study, scheme: str, hopeless: Hopeless | None = None) -> Trial:
    names = [layer.name for layer in study.task.layers if layer.kind != "embedding"]
    return measure(study, dict.fromkeys(names, scheme), "test", {}, hopeless=hopeless)


def rule_of(study: Study) -> Hopeless:
    best = measured(study, GOOD)
    vector = study.store.trial_vectors(study.record, best.id)["kl"]
    return Hopeless("kl", vector, sure=0.5, least=2)  # so few samples: an easy rule


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many batches were measured since the last call."""
    counted: list[int] = []
    real = Evaluator.measure

    def spy(self: Evaluator, outputs: object = None, batches: object = None) -> object:
        if outputs is None and batches is not None:
            counted.append(1)
        return real(self, outputs, batches)  # type: ignore[arg-type]

    monkeypatch.setattr(Evaluator, "measure", spy)

    def since() -> int:
        n = len(counted)
        counted.clear()
        return n

    return since


def test_a_hopeless_one_is_recorded_and_found_again(
    study: Study, forwards: Callable[[], int]
) -> None:
    rule = rule_of(study)
    forwards()
    trial = measured(study, BAD, rule)
    batches = len(study.task.calibration)
    assert 1 <= forwards() < batches
    assert all(name.startswith(PARTIAL) for name in trial.metrics)
    estimate = trial.metrics[PARTIAL + "kl"]
    assert 2 <= estimate.samples < len(rule.incumbent)
    assert not evaluated(trial)
    again = measured(study, BAD, rule)
    assert (again.id, again.metrics, forwards()) == (trial.id, trial.metrics, 0)


def test_a_good_one_is_measured_as_ever(study: Study, tmp_path: Path) -> None:
    vector = study.store.trial_vectors(study.record, measured(study, BAD).id)["kl"]
    trial = measured(study, GOOD, Hopeless("kl", vector, sure=0.5, least=2))
    with bitfront.open_study("t", study.task, tmp_path / "other.db") as other:
        assert trial.metrics == measured(other, GOOD).metrics


def test_a_full_measurement_completes_it(
    study: Study, tmp_path: Path, forwards: Callable[[], int]
) -> None:
    rule = rule_of(study)
    forwards()
    begun = measured(study, BAD, rule)
    spent = forwards()
    trial = measured(study, BAD)
    assert forwards() == len(study.task.calibration) - spent
    assert trial.id == begun.id
    with bitfront.open_study("t", study.task, tmp_path / "other.db") as other:
        whole = measured(other, BAD)
        vectors = other.store.trial_vectors(other.record, whole.id)
    assert {n: e for n, e in trial.metrics.items() if not n.startswith(PARTIAL)} == whole.metrics
    ours = study.store.trial_vectors(study.record, trial.id)
    for name, vector in vectors.items():
        np.testing.assert_array_equal(ours[name], vector)


def test_another_incumbent_gives_it_a_second_chance(study: Study) -> None:
    rule = rule_of(study)
    measured(study, BAD, rule)
    easy = Hopeless("kl", rule.incumbent + 100, sure=0.5, least=2)
    assert CALIBRATION + "kl" in measured(study, BAD, easy).metrics


def test_explorers_are_told_what_is_expected(study: Study) -> None:
    rule = rule_of(study)
    trial = measured(study, BAD, rule)
    expected = loss_of(study, trial, rule)
    assert expected > rule.incumbent.mean()
    trial = measured(study, BAD)
    actual = trial.metrics[CALIBRATION + "kl"].value
    assert loss_of(study, trial, rule) == pytest.approx(actual, rel=1e-6)
    # the part is half of the samples or so: within a factor of two of what all of them say
    assert actual / 2 < expected < actual * 2
