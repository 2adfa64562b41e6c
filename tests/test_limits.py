"""Lower limits, limits on classes of layers and on targets: from their spelling to the answer."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import bitfront
from bitfront.budget import Budget
from bitfront.errors import BudgetError, Infeasible
from bitfront.limits import first_plain, rows
from bitfront.problems import build_problem, feasible, points
from bitfront.search import allocate
from bitfront.types import Costs, Part, Sensitivities
from tests.small_tasks import attentive, convolutional

LAYERS, SCHEMES = ("a.q", "a.k", "mlp"), ("w2", "w4", "w8")
SIZES = np.array([10.0, 20.0, 40.0])
BITS = SIZES[:, None] * [2.0, 4.0, 8.0]


def costs(**other: Any) -> Costs:
    given: dict[str, Any] = {
        "tables": {"bytes": BITS / 8 + 1, "bits": BITS},
        "fixed": {"bytes": 100.0, "bits": 0.0},
        "full": {"bytes": 70 * 4 + 100.0, "bits": 70 * 32.0},
        "weights": 70,
        "unquantized": {"bytes": SIZES * 4, "bits": SIZES * 32},
        "counts": SIZES,
        "classes": {"a.q": "self-attention", "a.k": "self-attention", "mlp": "feed-forward"},
    }
    return Costs(LAYERS, SCHEMES, **{**given, **other})


def table(loss: Any = None) -> Sensitivities:
    values = SIZES[:, None] / [4.0, 16.0, 256.0] if loss is None else loss
    return Sensitivities("kl", LAYERS, SCHEMES, values, np.zeros((3, 3)), 1)


def budgets(*texts: str) -> tuple[Budget, ...]:
    return tuple(map(Budget.parse, texts))


def best(*texts: str, loss: Any = None, **other: Any) -> dict[str, str]:
    return allocate(build_problem(table(loss), costs(**other), budgets(*texts))).schemes


@pytest.mark.parametrize(
    ("text", "again", "resource"),
    [
        (">=3bpw", ">=3bpw", "bits"),
        (" >= 3.50 bpw", ">=3.5bpw", "bits"),
        ("<=4bpw", "4bpw", "bits"),
        ("self-attention:3bpw", "self-attention:3bpw", "bits[self-attention]"),
        ("time embedding: 40%", "time embedding:40%", "bytes[time embedding]"),
        ("*.k_proj:>=2.5bpw", "*.k_proj:>=2.5bpw", "bits[*.k_proj]"),
        ("12ms@cpu", "12ms@cpu", "seconds@cpu"),
        ("12ms@ort-cpu:b1s128", "12ms@ort-cpu:b1s128", "seconds@ort-cpu:b1s128"),
        ("60%@cpu:4b", "60%@cpu:4b", "seconds@cpu:4b"),
        ("mlp:12ms@cpu:b1", "mlp:12ms@cpu:b1", "seconds@cpu:b1[mlp]"),
        ("joules <= 5", "joules<=5", "joules"),
        ("seconds@gpu:b1>=0.012", "seconds@gpu:b1>=0.012", "seconds@gpu:b1"),
        ("mlp:bytes<=7e5", "mlp:bytes<=700000", "bytes[mlp]"),
        ("2MBact", "2MBact", "activations"),
        ("50%act", "50%act", "activations"),
        ("3KiBact", "3KiBact", "activations"),
    ],
)
def test_spellings(text: str, again: str, resource: str) -> None:
    budget = Budget.parse(text)
    assert str(budget) == again
    assert Budget.parse(again) == budget
    assert budget.resource == resource


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (">3bpw", "cannot read budget '>3bpw'"),
        (">=", "cannot read budget '>='"),
        (":3bpw", "cannot read budget ':3bpw'"),
        ("a:b:3bpw", "cannot read budget 'a:b:3bpw'"),
        ("mlp:", "cannot read budget 'mlp:'"),
        ("12ms@", "cannot read budget '12ms@'"),
        ("12ms@a b", "cannot read budget '12ms@a b'"),
        ("joules<=5J", "cannot read budget 'joules<=5J'"),
        ("joules<=-5", "cannot read budget 'joules<=-5'"),
        ("joules=5", "cannot read budget 'joules=5'"),
        ("1<=joules<=2", "cannot read budget '1<=joules<=2'"),
        ("joules<=0", "budget 'joules<=0' is not a positive number"),
        (">=0bpw", "budget '>=0bpw' is not a positive number"),
        ("3bpw@cpu", "budget '3bpw@cpu' limits what no target changes"),
        ("5%act@cpu", "budget '5%act@cpu' limits what no target changes"),
        (">=2MBact", "budget '>=2MBact' is a lower limit on what is live at once"),
        ("mlp:2MBact", "budget 'mlp:2MBact' is on one class of layers"),
    ],
)
def test_misspelled(text: str, words: str) -> None:
    with pytest.raises(BudgetError, match=f"^{words}: "):
        Budget.parse(text)


def test_lower_limits_are_no_points_of_a_sweep() -> None:
    found = [[str(b) for b in point] for point in points([">=3bpw", "4bpw", "5bpw", ">=200B"])]
    assert found == [["4bpw", ">=3bpw", ">=200B"], ["5bpw", ">=3bpw", ">=200B"]]
    assert points([">=3bpw"]) == [budgets(">=3bpw")]


def test_a_class_has_a_budget_of_its_own() -> None:
    assert best("8bpw") == {"a.q": "w8", "a.k": "w8", "mlp": "w8"}
    assert best("self-attention:4bpw") == {"a.q": "w4", "a.k": "w4", "mlp": "w8"}
    assert best("self-attention:3.4bpw") == {"a.q": "w2", "a.k": "w4", "mlp": "w8"}
    assert best("*attention:4bpw", "feed-forward:2bpw")["mlp"] == "w2"
    assert best("*.k:2bpw") == {"a.q": "w8", "a.k": "w2", "mlp": "w8"}
    # of 160 bytes: 16.7 % are 26.72, w4 takes 21 and w8 41
    assert best("feed-forward:16.7%")["mlp"] == "w4"
    assert best("feed-forward:bytes<=41")["mlp"] == "w8"


def test_a_lower_limit_of_a_class() -> None:
    """Where the loss asks for nothing, the least first cost is taken, so the floor decides."""
    nothing = np.zeros((3, 3))
    assert best("8bpw", loss=nothing) == {"a.q": "w2", "a.k": "w2", "mlp": "w2"}
    assert best("feed-forward:>=4bpw", loss=nothing) == {"a.q": "w2", "a.k": "w2", "mlp": "w4"}
    assert best(">=2.5bpw", "4bpw", loss=nothing) == {"a.q": "w2", "a.k": "w4", "mlp": "w2"}


def test_random_class_limits_equal_enumeration() -> None:
    rng = np.random.default_rng(3)
    for _ in range(40):
        loss = rng.random((3, 3))
        most, least = rng.uniform(2, 8), rng.uniform(2, 8)
        texts = (f"self-attention:{most:.3f}bpw", f"feed-forward:>={least:.3f}bpw", "6bpw")
        width = (2, 4, 8)
        fitting = {
            pick: sum(loss[i, c] for i, c in enumerate(pick))
            for pick in itertools.product(range(3), repeat=3)
            if 10 * width[pick[0]] + 20 * width[pick[1]] <= float(f"{most:.3f}") * 30
            and width[pick[2]] >= float(f"{least:.3f}")
            and sum(s * width[c] for s, c in zip((10, 20, 40), pick, strict=True)) <= 6 * 70
        }
        if not fitting:
            with pytest.raises(Infeasible):
                best(*texts, loss=loss)
            continue
        pick = min(fitting, key=lambda pick: fitting[pick])
        assert best(*texts, loss=loss) == dict(zip(LAYERS, (SCHEMES[c] for c in pick), strict=True))


def test_a_class_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(
        BudgetError, match=r"'attention:3bpw'.* is called 'attention': classes are self-attention, "
        r"feed-forward; or write a glob over layer names",
    ):  # fmt: skip
        best("attention:3bpw")


def test_limits_that_contradict_each_other() -> None:
    with pytest.raises(BudgetError, match="budgets >=5bpw and 4bpw contradict each other"):
        best("4bpw", ">=5bpw")
    with pytest.raises(BudgetError, match="budgets >=300B and 50% contradict each other"):
        best("50%", ">=300B")  # of 380 bytes
    assert best("4bpw", ">=4bpw", loss=np.zeros((3, 3)))["mlp"] in SCHEMES


def test_of_two_on_one_resource_the_tighter_counts() -> None:
    found = rows(budgets(">=3bpw", ">=2bpw", "bits<=300", "5bpw"), costs())
    assert dict(found.limits) == {"bits": 300.0}
    assert dict(found.floors) == {"bits": 210.0}
    assert str(found.budgets["bits", False]) == "bits<=300"


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ((">=9bpw",), r"budget >=9bpw cannot be met, the greatest possible is 8bpw: "
         "lower it to >=8bpw, or allow larger schemes"),
        (("self-attention:1.5bpw",), r"budget self-attention:1.5bpw cannot be met, the least "
         "possible is self-attention:2bpw: raise it to self-attention:2bpw, or allow smaller"),
        (("feed-forward:bytes<=10",), "the least possible is feed-forward:bytes<=11"),
        (("feed-forward:bytes>=42",), r"the greatest possible is feed-forward:bytes 41: lower it "
         "to feed-forward:bytes>=41"),
        (("1bpw", ">=1KB"), "budget 1bpw cannot be met, the least possible is 2bpw; "
         "budget >=1KB cannot be met, the greatest possible is 0.173KB: raise it to 2bpw, or "
         "allow smaller schemes; lower it to >=0.173KB, or allow larger"),
        (("3bpw", "feed-forward:>=8bpw"), "budgets 3bpw and feed-forward:>=8bpw cannot be met "
         "together, though each can be alone: keep the others and raise 3bpw to 5.429bpw, or "
         "lower feed-forward:>=8bpw to feed-forward:>=2bpw"),
        (("20Bact",), "budget 20Bact cannot be met, the least possible is 25Bact"),
        (("10%act",), "budget 10%act cannot be met, the least possible is 20.84%act"),
    ],
)  # fmt: skip
def test_what_cannot_be_met_is_said_in_the_units_of_the_budgets(
    texts: tuple[str, ...], words: str
) -> None:
    given = costs(
        peaks={
            "activations": (
                Part(8.0, np.array([[4.0, 6, 8], [0, 0, 0], [0, 0, 0]])),
                Part(5.0, np.array([[0.0, 0, 0], [8, 12, 16], [12, 16, 24]])),
            )
        },
        full={"bytes": 380.0, "bits": 2240.0, "activations": 120.0},
    )
    with pytest.raises(Infeasible, match=words):
        feasible(given, budgets(*texts))


def test_what_is_said_to_do_does() -> None:
    feasible(costs(), budgets(">=8bpw"))
    feasible(costs(), budgets("5.429bpw", "feed-forward:>=8bpw"))
    feasible(costs(), budgets("3bpw", "feed-forward:>=2bpw"))


def test_the_greatest_of_several_sums_is_limited() -> None:
    """Every sum that may exceed the limit is a row; the total of an allocation is the greatest."""
    peaks = {
        "activations": (
            Part(8.0, np.array([[4.0, 6, 8], [0, 0, 0], [0, 0, 0]])),
            Part(5.0, np.array([[0.0, 0, 0], [8, 12, 16], [12, 16, 24]])),
        )
    }
    given = costs(peaks=peaks, full={"bytes": 380.0, "bits": 2240.0, "activations": 120.0})
    found = rows(budgets("30Bact"), given)
    assert dict(found.limits) == {"activations 2": 30.0}
    assert not rows(budgets("45Bact"), given).limits
    chosen = allocate(build_problem(table(), given, budgets("30Bact"))).schemes
    assert given.total(chosen)["activations"] <= 30
    assert given.total(dict.fromkeys(LAYERS, "w8"))["activations"] == 45.0
    assert given.total(dict.fromkeys(LAYERS, "w2"))["activations"] == 25.0


def test_a_share_of_what_is_not_known_is_refused() -> None:
    unknown = costs(full={"bytes": np.nan, "bits": 2240.0})
    with pytest.raises(BudgetError, match="'40%' is a share of a total that is not known"):
        build_problem(table(), unknown, budgets("40%"))


def test_shares_of_a_budget_are_told_of_a_resource_that_is_a_sum() -> None:
    assert first_plain(budgets("self-attention:4bpw", "4bpw"), costs()) == "bits"
    assert first_plain(budgets("self-attention:4bpw"), costs()) == "bytes"


@pytest.mark.parametrize("solver", ["ilp", "lagrange", "greedy", "greedy-up"])
def test_a_search_keeps_lower_limits_and_limits_of_classes(tmp_path: Any, solver: str) -> None:
    with bitfront.open_study("s", attentive(), tmp_path / "b.db") as study:
        (answer,) = bitfront.search(
            study, "w2 w4 w8", ["6bpw", ">=5bpw", "self-attention:3bpw", "down:>=8bpw"],
            solver=solver, explore=3,
        )  # fmt: skip
    schemes = answer.trial.schemes
    assert {schemes[n] for n in "qkv"} == {"w2"}
    assert schemes["down"] == "w8"
    weights = 3 * 64 + 3 * 128 + 88
    assert 5 * weights <= answer.trial.costs["bits"] <= 6 * weights
    assert set(answer.trial.costs) == {"bytes", "bits", "stored_bits", "bops"}
    assert answer.trial.settings["budgets"] == [
        "6bpw", "self-attention:3bpw", ">=5bpw", "down:>=8bpw",
    ]  # fmt: skip


def test_a_profile_settles_under_such_limits(tmp_path: Any) -> None:
    with bitfront.open_study("s", convolutional(), tmp_path / "b.db") as study:
        found = bitfront.profile_until(study, "w2 w4 w8", ["5bpw", "convolution:>=3bpw"], until=0.9)
    assert found.steps
