"""Limits on trials: how they are spelled, and which trials they leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import bitfront
from bitfront.errors import BudgetError, InvalidInput, UnknownName
from bitfront.queries import front_of
from bitfront.storage import StudyRecord
from bitfront.trialcolumns import OfTrials
from bitfront.types import Estimate, Layer, Trial
from bitfront.within import Bound, those_within
from tests.small_tasks import attentive

RECORD = StudyRecord(1, "s", "", {}, {})


def trial(id: int, scheme: str, bits: float, kl: float, **settings: Any) -> Trial:
    costs = {"bytes": bits / 8, "bits": bits}
    if seconds := {"w4": 1e-3, "w8": 2e-3, "keep": 4e-3}.get(scheme):
        costs["seconds@cpu:b1"] = seconds
    metrics = {"kl": Estimate(kl, 0.1, 4), "held-back/kl": Estimate(2 * kl, 0.1, 4)}
    schemes = {"a": scheme, "b": scheme}
    return Trial(schemes, "ilp", 0.0, 0.0, costs, metrics, 1.0, settings, id=id)


WHOLE = trial(1, "keep", 1600, 0.0, weights=50)
TRIALS = [
    WHOLE,
    trial(2, "w4", 200, 0.5, weights=50),
    trial(3, "w8", 400, 0.1, weights=50),
    trial(4, "w3", 115, math.nan, weights=50),
    trial(5, "w2", 100, -0.5),
]


def meeting(record: StudyRecord, trials: Sequence[Trial], limits: Sequence[str]) -> list[Trial]:
    left = those_within(OfTrials(record, trials), limits)
    return [trial for trial, is_within in zip(trials, left, strict=True) if is_within]


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ((), [1, 2, 3, 4, 5]),
        (("kl<=0.1",), [1, 3, 5]),  # the limit itself is within it
        (("kl >= 0.1",), [2, 3]),
        (("kl<=-1e-1",), [5]),
        (("held-back/kl<=0.5",), [1, 3, 5]),
        (("bytes<=25",), [2, 4, 5]),
        (("kl<=inf",), [1, 2, 3, 5]),
        (("25B",), [2, 4, 5]),
        (("12.5%",), [2, 4, 5]),  # of the 200 bytes of trial 1
        (("4bpw",), [2, 4]),  # 5 does not say how many weights it has
        (("2.3bpw",), [4]),  # 2.3 * 50 is below 115 in doubles
        (("4bpw", "kl<=1", "40%"), [2]),
        ((">=8bpw",), [1, 3]),
        ((">=2.3bpw", "<=4bpw"), [2, 4]),
        (("bytes>=50",), [1, 3]),
        (("1ms@cpu:b1",), [2]),
        ((">=2ms@cpu:b1",), [1, 3]),
        (("50%@cpu:b1",), [2, 3]),
        (("seconds@cpu:b1<=0.002",), [2, 3]),
    ],
)
def test_which_trials_are_within(limits: tuple[str, ...], left: list[int]) -> None:
    assert [t.id for t in meeting(RECORD, TRIALS, limits)] == left


@pytest.mark.parametrize(
    "text", ["kl<0.1", "kl<=", "<=3", "kl<=x", "kl<=nan", "kl=<3", "kl<=1<=2", "1<=kl", "kl<=700MB"]
)
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="cannot read limit"):
        Bound.parse(text)
    with pytest.raises(InvalidInput, match="cannot read limit"):
        meeting(RECORD, TRIALS, [text])


def test_what_no_trial_can_tell_is_said() -> None:
    with pytest.raises(
        UnknownName, match="'loss': there are bits, bytes, held-back/kl, kl, seconds@cpu:b1"
    ):
        meeting(RECORD, TRIALS, ["loss<=1"])
    with pytest.raises(BudgetError, match=r"limits bops, which no trial has: .* bits, bytes"):
        meeting(RECORD, TRIALS, ["3GBOPs"])
    with pytest.raises(BudgetError, match=r"'40%': no trial tells .* like 'bytes<=NUMBER'"):
        meeting(RECORD, TRIALS[1:], ["40%"])
    with pytest.raises(BudgetError, match=r"'4bpw': no trial tells .* like 'bits<=NUMBER'"):
        meeting(RECORD, TRIALS[4:], ["4bpw"])
    with pytest.raises(BudgetError, match="cannot read budget 'small'"):
        meeting(RECORD, TRIALS, ["small"])
    with pytest.raises(InvalidInput, match="none of 5 trials is within 3bpw and kl>=0: loosen"):
        front_of(RECORD, TRIALS, ("bytes",), ("kl",), ["3bpw", "kl>=0"])
    with pytest.raises(BudgetError, match="'body:3bpw' is on a class of layers, and the study"):
        meeting(RECORD, TRIALS, ["body:3bpw"])


def classed(size: int = 8, **settings: Any) -> StudyRecord:
    """A study whose layers ``a`` and ``b`` are of classes of their own."""
    layers = [asdict(Layer(name, "linear", size, 16)) for name in "ab"]
    classes = {"a": "attention", "b": "feed-forward"}
    known = {"layers": layers, "classes": classes, "container": "safetensors", **settings}
    return StudyRecord(1, "s", "", {}, known)


def mixed(id: int, a: str, b: str, **settings: Any) -> Trial:
    costs = {"bytes": 1.0, "bits": 1.0, "seconds@cpu": 1.0}
    return Trial({"a": a, "b": b}, "ilp", 0.0, 0.0, costs, {}, 1.0, settings, id=id)


MIXED = [mixed(1, "keep", "keep"), mixed(2, "w4", "w8"), mixed(3, "w8", "w3"), mixed(4, "w3", "w4")]


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        (("attention:4bpw",), [2, 4]),
        (("feed-forward:4bpw",), [3, 4]),
        (("attention:>=4bpw",), [1, 2, 3]),
        (("attention:4bpw", "feed-forward:4bpw"), [4]),
        (("b:8bpw",), [2, 3, 4]),  # a name, as a glob
        (("attention:bits<=512",), [2, 4]),  # 128 weights of 4 bits
        (("attention: bits>=1024",), [1, 3]),
        (("attention:144B",), [2, 3, 4]),  # 8 bits, and a scale of 2 bytes for each of 8 rows
        (("attention:28.125%",), [2, 3, 4]),  # of 512 bytes
        (("attention:28.12%",), [2, 4]),
    ],
)
def test_which_trials_are_within_limits_on_classes(
    limits: tuple[str, ...], left: list[int]
) -> None:
    assert [t.id for t in meeting(classed(), MIXED, limits)] == left


def test_a_trial_without_layers_of_a_class_is_not_within_a_limit_on_it() -> None:
    only = replace(MIXED[1], schemes={"b": "w3"}, id=5)
    assert [t.id for t in meeting(classed(), [*MIXED, only], ["attention:4bpw"])] == [2, 4]
    strange = replace(MIXED[1], schemes={"a": "w3", "other": "w3"}, id=6)
    assert [t.id for t in meeting(classed(), [*MIXED, strange], ["attention:4bpw"])] == [2, 4]


def test_a_class_that_no_trial_can_tell_of_is_said() -> None:
    with pytest.raises(
        BudgetError, match=r"'feed:3bpw': no class .*: classes are attention, feed-"
    ):
        meeting(classed(), MIXED, ["feed:3bpw"])
    with pytest.raises(BudgetError, match=r"called 'attention': write a glob over layer names"):
        meeting(classed(classes={}), MIXED, ["attention:3bpw"])
    with pytest.raises(BudgetError, match=r"seconds@cpu of a class .* total only: .* bytes, bits"):
        meeting(classed(), MIXED, ["attention:1s@cpu"])
    with pytest.raises(BudgetError, match="the study does not say"):
        meeting(classed(container=None), MIXED, ["attention:3bpw"])


def test_totals_of_classes_are_those_that_a_search_counts(tmp_path: Path) -> None:
    """In the container that each trial was searched in, without the model."""
    db = tmp_path / "b.db"
    with bitfront.open_study("s", attentive(), db) as study:
        budgets = ["10bpw", "8bpw", "6bpw", "4bpw"]
        bitfront.search(study, "w3 w4g16 w8 keep", budgets, explore=2)
        costs = bitfront.cost(study, "w3 w4g16 w8 keep")
        trials = [trial for trial in study.trials() if "kl" in trial.metrics]
    inside = [costs.classes[name] == "self-attention" for name in costs.layers]
    assert 0 < sum(inside) < len(inside)
    for resource, text in (("bytes", "B"), ("bits", "bits"), ("stored_bits", "stored_bits")):
        table = costs.tables[resource]
        totals = {
            trial.id: sum(
                table[i, costs.schemes.index(trial.schemes[name])]
                for i, name in enumerate(costs.layers)
                if inside[i]
            )
            for trial in trials
        }
        assert len(set(totals.values())) > 2
        for limit in sorted(set(totals.values())):
            named = f"{limit}B" if text == "B" else f"{text}<={limit}"
            found = bitfront.front("s", db=db, within=[f"self-attention:{named}"])
            expected = {id for id, total in totals.items() if total <= limit}
            assert {t.id for t in found.trials} == expected
