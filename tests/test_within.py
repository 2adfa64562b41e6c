"""Limits on trials: how they are spelled, and which trials they leave."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bitfront.errors import BudgetError, InvalidInput, UnknownName
from bitfront.types import Estimate, Trial
from bitfront.within import Bound, meeting


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
    assert [t.id for t in meeting(TRIALS, limits)] == left


@pytest.mark.parametrize(
    "text", ["kl<0.1", "kl<=", "<=3", "kl<=x", "kl<=nan", "kl=<3", "kl<=1<=2", "1<=kl", "kl<=700MB"]
)
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="cannot read limit"):
        Bound.parse(text)
    with pytest.raises(InvalidInput, match="cannot read limit"):
        meeting(TRIALS, [text])


def test_what_no_trial_can_tell_is_said() -> None:
    with pytest.raises(
        UnknownName, match="'loss': there are bits, bytes, held-back/kl, kl, seconds@cpu:b1"
    ):
        meeting(TRIALS, ["loss<=1"])
    with pytest.raises(BudgetError, match=r"limits bops, which no trial has: .* bits, bytes"):
        meeting(TRIALS, ["3GBOPs"])
    with pytest.raises(BudgetError, match=r"'40%': no trial tells .* like 'bytes<=NUMBER'"):
        meeting(TRIALS[1:], ["40%"])
    with pytest.raises(BudgetError, match=r"'4bpw': no trial tells .* like 'bits<=NUMBER'"):
        meeting(TRIALS[4:], ["4bpw"])
    with pytest.raises(BudgetError, match="cannot read budget 'small'"):
        meeting(TRIALS, ["small"])
    with pytest.raises(InvalidInput, match="none of 5 trials is within 3bpw and kl>=0: loosen"):
        meeting(TRIALS, ["3bpw", "kl>=0"])
    with pytest.raises(BudgetError, match="'body:3bpw' is on a class of layers, which trials"):
        meeting(TRIALS, ["body:3bpw"])
