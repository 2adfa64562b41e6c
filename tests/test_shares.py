"""The outer search for each class's share of a budget."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitfront
from bitfront.errors import InvalidInput
from bitfront.measuring import measure
from bitfront.problems import build_problem
from bitfront.search import factors, weighted
from bitfront.shares import shared, shares_of
from bitfront.storage import Store
from bitfront.study import Study, silent
from bitfront.types import Allocation, Budget, Sensitivities, Trial
from tests.small_tasks import attentive

SCHEMES = "w2 w3 w4 w8 keep"
BUDGETS = (Budget.parse("4bpw"),)
CLASSES = ("a", "b", "c")


def tried(answers: Any, count: int) -> list[dict[str, float]]:
    """The first ``count`` proposals, where each comes to what ``answers`` says."""
    proposals = factors(CLASSES)
    found = [next(proposals)]
    while len(found) < count:
        found.append(proposals.send(answers(found[-1])))
    return found


def test_factors_begin_at_one_and_approach_the_best() -> None:
    def loss(factor: Mapping[str, float]) -> float:  # least at 1, 4, 1/2
        return float(np.exp(np.log2(factor["b"] / 4) ** 2 + np.log2(factor["c"] * 2) ** 2))

    found = tried(loss, 16)
    assert found[0] == dict.fromkeys(CLASSES, 1.0)
    assert all(f["a"] == 1 and 1 / 8 <= min(f.values()) <= max(f.values()) <= 8 for f in found)
    assert found == tried(loss, 16)
    reached = [np.log(loss(f)) for f in found]
    assert reached[0] == pytest.approx(5)
    assert min(reached) < 0.1
    drawn = np.random.default_rng(0).uniform(-3, 3, (1000, 15, 2)) - [2, -1]
    assert min(reached) < np.quantile((drawn**2).sum(-1).min(-1), 0.1)  # than at random, as many


@pytest.mark.parametrize("loss", [0.0, -1.0, float("inf")])
def test_factors_survive_any_loss(loss: float) -> None:
    assert len(tried(lambda f: loss, 8)) == 8


def test_weights_multiply_the_rows_of_a_class() -> None:
    values = np.arange(1.0, 7.0).reshape(3, 2)
    table = Sensitivities(
        "m", ("x", "y", "z"), ("w2", "w4"), values, values / 10, 1, classes=("a", "b", "a")
    )
    found = weighted(table, {"a": 2.0, "b": 0.5})
    np.testing.assert_array_equal(found.values, [[2, 4], [1.5, 2], [10, 12]])
    np.testing.assert_allclose(found.stderr, found.values / 10)


@pytest.fixture
def study(tmp_path: Path) -> Any:
    with bitfront.open_study("s", attentive(), tmp_path / "b.db") as opened:
        yield opened


def split(study: Study, allowance: int) -> tuple[list[Trial], Any]:
    """What was measured, in order, and what was found."""
    table = bitfront.profile(study, SCHEMES, "decoupled")["decoupled"]
    costs = bitfront.cost(study, SCHEMES)
    looked = []

    def look(allocation: Allocation, factor: Mapping[str, float]) -> Trial:
        total = costs.total(allocation.schemes)
        looked.append(measure(study, allocation.schemes, "ilp", total, evaluation=False))
        return looked[-1]

    def problem(of: Sensitivities) -> Any:
        return build_problem(of, costs, BUDGETS)

    return looked, shared(study, table, problem, "ilp", "kl", look, allowance, silent)


@pytest.mark.parametrize("allowance", [1, 2, 7])
def test_the_best_measured_split_is_kept(study: Study, allowance: int) -> None:
    looked, found = split(study, allowance)
    assert 1 <= found.measured == len(looked) <= allowance
    assert len({t.key for t in looked}) == len(looked)
    losses = {t.key: t.metrics["calibration/kl"].value for t in looked}
    start = looked[0]
    taken = next(t for t in looked if t.schemes == found.allocation.schemes)
    assert losses[taken.key] <= losses[start.key]
    if taken is start:
        assert set(found.factors.values()) == {1.0}
    table = bitfront.profile(study, SCHEMES, "decoupled")["decoupled"]
    own = build_problem(table, bitfront.cost(study, SCHEMES), BUDGETS)
    assert found.allocation.loss == pytest.approx(own.total_loss(found.allocation.schemes))
    assert found.allocation.bound <= found.allocation.loss
    again, repeated = split(study, allowance)
    assert [t.id for t in again] == [t.id for t in looked]
    assert repeated.factors == found.factors


def test_shares_are_of_what_the_layers_cost(study: Study) -> None:
    table = bitfront.profile(study, SCHEMES, "decoupled")["decoupled"]
    costs = bitfront.cost(study, SCHEMES)
    _, found = split(study, 1)
    spent = shares_of(costs, "bits", table, found.allocation)
    bits = {"w2": 2, "w3": 3, "w4": 4, "w8": 8, "keep": 32}
    weights = {la.name: la.weights for la in study.task.layers}
    literal = dict.fromkeys(table.classes, 0.0)
    for layer, cls in zip(table.layers, table.classes, strict=True):
        if layer not in found.allocation.schemes:  # kept out: embeddings are, unless asked for
            continue
        literal[cls] += weights[layer] * bits[found.allocation.schemes[layer]]
    total = sum(literal.values())
    assert spent == pytest.approx({cls: v / total for cls, v in literal.items()})


def test_a_search_splits_its_budgets(study: Study) -> None:
    (plain,) = bitfront.search(study, SCHEMES, ["3bpw"], profiler="decoupled", shares=0, explore=0)
    (answer,) = bitfront.search(study, SCHEMES, ["3bpw"], profiler="decoupled", shares=9, explore=0)
    assert plain.table in ("decoupled", "uniform")
    calibration = [a.trial.metrics["calibration/kl"].value for a in (plain, answer)]
    assert calibration[1] <= calibration[0]
    made = [t for t in study.trials() if t.settings.get("table") == "shares"]
    assert made
    for trial in made:
        assert sum(trial.settings["shares"].values()) == pytest.approx(1)
        assert set(trial.settings["factors"]) == set(trial.settings["shares"])
    assert {"kl", "calibration/kl"} <= set(answer.trial.metrics)


def test_a_killed_search_ends_at_the_same_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def searched(name: str) -> tuple[Mapping[str, str], list[str]]:
        with bitfront.open_study("s", attentive(), tmp_path / name) as study:
            (answer,) = bitfront.search(study, SCHEMES, ["3bpw"], profiler="decoupled", shares=8)
            return answer.trial.schemes, [t.key for t in study.trials()]

    straight = searched("straight.db")
    kept, room = Store.add_trial, itertools.count()

    def dying(*args: Any, **kwargs: Any) -> Trial:
        if next(room) == 5:
            raise KeyboardInterrupt
        return kept(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add_trial", dying)
        with pytest.raises(KeyboardInterrupt):
            searched("killed.db")
    assert searched("killed.db") == straight


def test_nonsense_is_refused(study: Study) -> None:
    with pytest.raises(InvalidInput, match="shares -1"):
        bitfront.search(study, SCHEMES, ["3bpw"], profiler="decoupled", shares=-1)
