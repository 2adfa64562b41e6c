"""The smallest model whose measured metric holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitfront
import bitfront.narrowing
from bitfront.errors import Infeasible, InvalidInput, UnknownName
from bitfront.measuring import Asked, measure
from bitfront.smallest import Smallest
from bitfront.study import Study
from bitfront.tasks import from_recipe
from bitfront.types import Trial
from bitfront.within import Bound
from tests import tiny
from tests.commands import Commands
from tests.small_tasks import attentive, convolutional

SCHEMES = "w2 w3 w4 w8"


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    with bitfront.open_study("s", attentive(), tmp_path / "b.db") as opened:
        yield opened


def over_all(study: Study, trial: Trial, metric: str) -> float:
    """The metric over calibration samples and those held back, from what was recorded of each."""
    logs = metric == "perplexity"
    parts = [(study.task.calibration, "calibration/"), (study.task.held_back, "held-back/")]
    total = count = 0.0
    for batches, prefix in parts:
        for batch in batches:
            value = trial.metrics[prefix + metric].value
            total += batch.samples * (np.log(value) if logs else value)
            count += batch.samples
    return float(np.exp(total / count)) if logs else total / count


def check(study: Study, found: Smallest) -> None:
    """It holds as said, and nothing cheaper among what was measured does."""
    metric, sign = found.hold.name, -1 if found.hold.sign == ">=" else 1
    assert found.value == pytest.approx(over_all(study, found.trial, metric), rel=1e-5)
    assert sign * found.value <= sign * found.hold.amount + 1e-9
    for trial in map(study.trial, found.measured):
        if trial.costs[found.resource] < found.trial.costs[found.resource]:
            assert sign * over_all(study, trial, metric) > sign * found.hold.amount - 1e-9
    assert metric in found.trial.metrics  # the evaluation's
    assert found.holds_on_evaluation == (
        sign * found.trial.metrics[metric].value <= sign * found.hold.amount
    )


@pytest.mark.parametrize(
    ("hold", "resource"),
    [
        ("kl<=0.01", "bytes"),
        ("kl<=0.0003", "bits"),
        ("agreement>=0.9", "bytes"),
        ("kl<=0.05", "bops"),
    ],
)
def test_what_is_found_holds_and_nothing_cheaper_that_was_measured_does(
    study: Study, hold: str, resource: str
) -> None:
    found = bitfront.smallest(study, SCHEMES, hold, resource=resource)
    check(study, found)
    assert found.allocations <= 20
    made = [t for t in study.trials() if t.solver in ("cheapest", "refine")]
    assert len(made) == found.allocations
    assert all(np.isfinite(t.expected) for t in made)
    if found.failed is not None and found.failed_cost is not None:
        failed = study.trial(found.failed)
        assert failed.costs[resource] == found.failed_cost < found.trial.costs[resource]


@pytest.mark.parametrize("hold", ["kl<=0.0003", "kl<=0.003", "agreement>=0.95"])
def test_against_every_allocation_there_is(tmp_path: Path, hold: str) -> None:
    schemes = ("w2", "w4", "w8")
    with bitfront.open_study("all", convolutional(), tmp_path / "all.db") as study:
        costs = bitfront.cost(study, " ".join(schemes))
        bound, trials = Bound.parse("calibration/" + hold), []
        for choice in itertools.product(schemes, repeat=len(costs.layers)):
            chosen = dict(zip(costs.layers, choice, strict=True))
            trials.append(measure(study, chosen, "all", costs.total(chosen), evaluation=False))
        least = min(t.costs["bytes"] for t in trials if bound.holds(t))
    with bitfront.open_study("s", convolutional(), tmp_path / "b.db") as study:
        found = bitfront.smallest(study, " ".join(schemes), hold)
        check(study, found)
        assert found.trial.costs["bytes"] == least


def test_budgets_and_floors_hold_besides(study: Study) -> None:
    found = bitfront.smallest(
        study, SCHEMES, "kl<=0.01", resource="bytes", budgets=[">=3.5bpw", "5bpw"]
    )
    check(study, found)
    weights = found.trial.settings["weights"]
    for trial in study.trials():
        if trial.solver != "full":
            assert 3.5 * weights <= trial.costs["bits"] <= 5 * weights


@pytest.mark.parametrize("explore", [1, 2, 5])
def test_an_allowance_is_kept(study: Study, explore: int) -> None:
    found = bitfront.smallest(study, SCHEMES, "kl<=0.01", explore=explore)
    check(study, found)
    made = [t for t in study.trials() if t.solver != "full"]
    assert found.allocations == len(made) <= explore


def test_verifying_is_limited(study: Study) -> None:
    few = bitfront.smallest(study, SCHEMES, "kl<=0.01", max_measurements=3)
    check(study, few)
    assert len(few.verified) == 3
    assert bitfront.smallest(study, SCHEMES, "kl<=0.01", verify=False).verified == ()
    assert len(study.store.measurements(study.record, "perturb")) == 3


def test_held_back_data_count_in(tmp_path: Path) -> None:
    recipe = tiny.vision_task(tmp_path).recipe()
    task = from_recipe({**recipe, "hold_back": 0.34})
    with bitfront.open_study("v", task, tmp_path / "b.db") as study:
        assert study.task.held_back
        found = bitfront.smallest(study, SCHEMES, "kl<=0.0005")
        check(study, found)
        assert found.trial.metrics["held-back/kl"].samples > 0
        full = over_all(study, study.trial(1), "nll")
        check(study, bitfront.smallest(study, SCHEMES, f"nll<={full + 1e-4!r}", explore=6))


def test_a_metric_that_is_no_mean(tmp_path: Path) -> None:
    recipe = tiny.language_task(tmp_path).recipe()
    task = from_recipe({**recipe, "hold_back": 0.34})
    with bitfront.open_study("l", task, tmp_path / "b.db") as study:
        assert study.task.held_back
        bitfront.search(study, "w4 w8", ["8bpw"], explore=0)  # which measures the full model
        (full,) = [t for t in study.trials() if t.solver == "full"]
        most = over_all(study, full, "perplexity") * 1.001
        found = bitfront.smallest(study, SCHEMES, f"perplexity<={most!r}", explore=6)
        check(study, found)


def test_what_cannot_hold_says_the_best_there_is(study: Study) -> None:
    with pytest.raises(Infeasible, match=r"kl<=1e-12 does not hold of the best possible") as error:
        bitfront.smallest(study, SCHEMES, "kl<=1e-12")
    (best,) = [t for t in study.trials() if t.solver == "cheapest"]
    assert set(best.schemes.values()) == {"w8"}
    value = best.metrics["calibration/kl"].value
    assert f"measures {value:.4g}" in str(error.value)
    possible = error.value.remedy.split("hold ")[1].split(",")[0]
    check(study, bitfront.smallest(study, SCHEMES, possible, explore=2))


def test_with_keep_the_full_model_is_the_best_there_is(study: Study) -> None:
    found = bitfront.smallest(study, "w2 w8 keep", "kl<=0", explore=3)
    assert found.trial.solver == "full"
    assert found.value == 0
    with pytest.raises(Infeasible, match="measures 1 on the calibration data"):
        bitfront.smallest(study, "w2 w8 keep", "agreement>=1.5")


def test_a_killed_run_goes_on_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(db: str) -> tuple[Any, ...]:
        with bitfront.open_study("s", attentive(), tmp_path / db) as study:
            found = bitfront.smallest(study, SCHEMES, "agreement>=0.9")
            trials = [(t.key, t.expected, t.predicted) for t in study.trials()]
            return found.trial.key, found.value, found.verified, found.evaluations, trials[1:]

    whole = run("whole.db")
    asked: list[Any] = []
    measured: list[Any] = []
    real = bitfront.narrowing.measured

    def one(study: Study, of: Asked) -> Trial:
        if study.store.find_trial(study.record, of.schemes) is None:
            if of.schemes not in asked:
                asked.append(of.schemes)
                raise KeyboardInterrupt
            measured.append(of.schemes)
        return real(study, [of])[0]

    def dying(study: Study, every: Sequence[Asked], *_: Any) -> list[Trial]:
        return [one(study, of) for of in every]

    monkeypatch.setattr(bitfront.narrowing, "measured", dying)
    deaths = 0
    while True:
        try:
            assert run("killed.db") == whole
            break
        except KeyboardInterrupt:
            deaths += 1
    assert deaths == len(asked) >= 4
    assert measured == asked  # each once
    assert run("killed.db") == whole  # from what is recorded
    assert measured == asked


def test_an_earlier_search_leaves_less_to_measure(study: Study) -> None:
    bitfront.search(study, SCHEMES, ["3bpw", "4bpw"], explore=4)
    before = len(study.trials())
    found = bitfront.smallest(study, SCHEMES, "kl<=0.01", explore=6)
    check(study, found)
    assert len(found.measured) > len(study.trials()) - before


def test_nonsense_is_refused(study: Study) -> None:
    def smallest(hold: str, **options: Any) -> None:
        bitfront.smallest(study, SCHEMES, hold, **options)

    with pytest.raises(InvalidInput, match=r"lower kl is better: write kl<=0\.1"):
        smallest("kl>=0.1")
    with pytest.raises(UnknownName, match="no metric 'top1' to hold"):
        smallest("top1>=0.9")
    with pytest.raises(UnknownName, match="least total of 'joules'"):
        smallest("kl<=0.1", resource="joules")
    with pytest.raises(InvalidInput, match="cannot read limit 'kl'"):
        smallest("kl")
    with pytest.raises(InvalidInput, match="explore 0"):
        smallest("kl<=0.1", explore=0)
    with pytest.raises(InvalidInput, match="cannot hold kl<=inf"):
        smallest("kl<=inf")
    with pytest.raises(Infeasible, match="budget 1bpw cannot be met"):
        smallest("kl<=0.1", budgets=["1bpw"])
    assert study.trials() == []


def test_on_the_command_line(bitfront: Commands, tmp_path: Path) -> None:
    task = ["--task", "module", "--function", f"{tiny.code(tmp_path / 'bring.py')}:task"]
    words = ["--schemes", "w2 w3 w4 w8", "--explore", 4]
    found = bitfront.ok("search", "s", *task, *words, "--max-kl", 0.0001, "--json").document
    (answer,) = found["answers"]
    assert (answer["hold"], answer["minimize"]) == ("kl<=0.0001", "bytes")
    assert answer["value"] <= 0.0001
    assert answer["trial"]["metrics"]["kl"]["value"] > 0
    again = bitfront.ok("search", "s", *words, "--hold", "kl<=0.0001", "--json").document
    assert again == found
    text = bitfront.ok("search", "s", *words, "--hold", "kl <= 0.0001").out
    assert "kl<=0.0001 holds on the calibration data" in text
    assert {"predicted", "expected", "calibration"} <= set(text.split())
    evaluated = answer["trial"]["metrics"]["kl"]["value"] <= 0.0001
    assert ("does not hold on the evaluation data" in text) == (not evaluated)
    bits = ["--hold", "top1>=0.3", "--minimize", "bits", "--budget", ">=3bpw"]
    (answer,) = bitfront.ok("search", "s", *words, *bits, "--json").document["answers"]
    assert answer["trial"]["costs"]["bits"] >= 3 * answer["trial"]["settings"]["weights"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--hold", "kl<=1", "--max-kl", 1], "--hold kl<=1 with --max-kl 1"),
        (["--minimize", "bits", "--budget", "3bpw"], "--minimize bits without a bound"),
        (["--max-kl", 1, "--solver", "ilp"], "--solver ilp with a bound to hold"),
        (["--max-kl", 1, "--metric", "kl"], "--metric kl with a bound to hold"),
        (["--max-kl", 1, "--shares", 2], "--shares 2 with a bound to hold"),
        (["--max-kl", 1, "--budget", "3bw"], "3bw"),
        (["--hold", "kl"], "cannot read limit 'kl'"),
        ([], "no budget was given"),
    ],
)
def test_options_that_contradict_each_other(
    bitfront: Commands, tmp_path: Path, options: list[object], error: str
) -> None:
    task = ["--task", "module", "--function", f"{tiny.code(tmp_path / 'bring.py')}:task"]
    assert error in bitfront.refused("search", "s", *task, "--schemes", "w2 w4", *options)
