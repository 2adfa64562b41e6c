"""Costs that a user gives: read from a file, limited by budgets, recorded with trials."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitfront
from bitfront.costfile import Given, GivenCosts, with_given
from bitfront.errors import BudgetError, Infeasible, InvalidInput, ProblemError
from bitfront.types import Costs
from tests import tiny
from tests.commands import Commands
from tests.small_tasks import convolutional

LAYERS = ("stem", "blocks.0", "blocks.2", "twice", "head")
MS = {"w2": 1.0, "w4": 2.0, "w8": 3.0, "keep": 8.0}


def seconds(factor: float = 1.0, **other: Any) -> GivenCosts:
    layers = {n: {s: factor * ms / 1000 for s, ms in MS.items()} for n in LAYERS}
    return GivenCosts({"seconds@cpu:b1": Given(layers, 0.005, **other)})


CSV = """target,layer,scheme,value
cpu:b1,,fixed,0.005
""" + "".join(f"cpu:b1,{n},{s},{ms / 1000}\n" for n in LAYERS for s, ms in MS.items())


def counted(schemes: tuple[str, ...] = ("w2", "keep")) -> Costs:
    L, C = 2, len(schemes)
    ones = {"bytes": np.ones((L, C))}
    return Costs(("a", "b"), schemes, ones, {"bytes": 1.0}, {"bytes": 9.0}, 5)


def test_both_forms_give_the_same(tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.json"
    one.write_text("\ufeff" + CSV.replace("target,layer", "target, layer"), encoding="utf-8")
    two.write_text(json.dumps(seconds().plain()))
    assert GivenCosts.read(one) == GivenCosts.read(two) == seconds()


def meeting() -> GivenCosts:
    """Three layers in a row, of which those under ``keep`` hand over blocks."""
    layers = {name: {"w8": 1.0, "keep": 2.0} for name in "abc"}
    apart = dict.fromkeys("abc", ("keep",))
    handovers = (("a", "b", 0.25), ("b", "c", 0.5))
    return GivenCosts({"seconds@cpu": Given(layers, 1.0, apart=apart, handovers=handovers)})


def test_handovers_in_both_forms(tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.json"
    one.write_text(meeting().as_csv())
    two.write_text(json.dumps(meeting().plain()))
    assert GivenCosts.read(one) == GivenCosts.read(two) == meeting()
    assert GivenCosts.of(meeting().plain()) == meeting()
    assert "seconds@cpu,a,keep,2.0,apart," in one.read_text()
    assert "seconds@cpu,a,,0.25,,b" in one.read_text()
    assert "layout" not in seconds().as_csv()


@pytest.mark.parametrize(
    ("a", "b", "total"), [("w8", "w8", 5.5), ("keep", "w8", 6.75), ("keep", "keep", 7.0)]
)
def test_what_handovers_add(a: str, b: str, total: float) -> None:
    """c is kept out: in blocks, so that b beside it pays where it is not."""
    given = meeting().resources["seconds@cpu"]
    assert given.total({"a": a, "b": b}) == total
    costs = with_given(counted(("w8", "keep")), meeting(), ["a", "b", "c"], ["c"])
    assert costs.total({"a": a, "b": b})["seconds@cpu"] == total
    assert costs.full["seconds@cpu"] == 7.0


def test_handovers_that_are_none() -> None:
    given = Given({"a": {"w8": 1.0}}, handovers=(("a", "x", 1.0),))
    with pytest.raises(InvalidInput, match="for layer 'x', which the model does not have"):
        with_given(counted(("w8",)), GivenCosts({"joules": given}), ["a", "b"], [])
    with pytest.raises(InvalidInput, match=r"between layers 'a' and 'b' is -1\.0"):
        Given({}, handovers=(("a", "b", -1.0),))
    for bad in (
        {"handovers": [["a", "b"]]},
        {"handovers": [[1, "b", 2.0]]},
        {"apart": {"a": "w8"}},
    ):
        with pytest.raises(InvalidInput, match="schemes that are apart in no lists"):
            GivenCosts.of({"joules": {"layers": {}, **bad}})


def test_a_handover_row_has_two_layers_and_no_scheme(tmp_path: Path) -> None:
    file = tmp_path / "costs.csv"
    head = "resource,layer,scheme,value,layout,to"
    for row in ("joules,a,w8,1.0,,b", "joules,,,1.0,,b"):
        file.write_text(f"{head}\n{row}\n")
        with pytest.raises(InvalidInput, match="line 2 is to 'b'"):
            GivenCosts.read(file)


def test_what_costs_become() -> None:
    given = GivenCosts(
        {
            "joules": Given({"a": {"W2": 1.0, "keep": 4.0}, "b": {"keep": 5.0}}, 2.0),
            "seconds@cpu": Given(
                {"a": {"w2": 3.0}, "b": {"w2": 1.0}, "c": {"keep": 7.0}}, full=9.0
            ),
        }
    )
    costs = with_given(counted(("w2",)), given, ["a", "b", "c"], ["c"])
    np.testing.assert_equal(costs.tables["joules"], [[1.0], [np.nan]])
    np.testing.assert_equal(costs.tables["bytes"], [[1.0], [np.nan]])
    np.testing.assert_equal(costs.tables["seconds@cpu"], [[3.0], [np.nan]])
    assert costs.reasons == {("b", "w2"): "its joules are not given"}
    assert costs.fixed == {"bytes": 1.0, "joules": 2.0, "seconds@cpu": 7.0}
    assert costs.full == {"bytes": 9.0, "joules": 11.0, "seconds@cpu": 9.0}


def test_a_total_that_cannot_be_known_is_nan() -> None:
    given = GivenCosts({"joules": Given({"a": {"w2": 1.0}, "b": {"w2": 1.0}})})
    assert np.isnan(with_given(counted(("w2",)), given, ["a", "b"], []).full["joules"])


def test_a_layer_or_a_resource_that_is_not_ones_to_give() -> None:
    given = GivenCosts({"joules": Given({"a.weight": {"w2": 1.0}})})
    with pytest.raises(
        InvalidInput, match=r"joules is given for layer 'a.weight', which the model"
    ):
        with_given(counted(), given, ["a", "b"], [])
    for name in ("bytes", "activations"):
        with pytest.raises(InvalidInput, match=f"costs are given of {name}: leave it out"):
            with_given(counted(), GivenCosts({name: Given({})}), ["a", "b"], [])


BAD = {
    "empty": ("", "it has no column 'layer'"),
    "only a head": ("resource,layer,scheme,value\n", "it has no figures"),
    "no value": ("resource,layer,scheme\n", "it has no column 'value'"),
    "a word": ("resource,layer,scheme,value\nj,a,w4,fast\n", "line 2 has the value 'fast'"),
    "short row": ("resource,layer,scheme,value\nj,a,w4\n", "line 2 has the value ''"),
    "negative": ("resource,layer,scheme,value\nj,a,w4,-1\n", "layer 'a' under w4 is -1.0"),
    "nan": ("resource,layer,scheme,value\nj,a,w4,nan\n", "layer 'a' under w4 is nan"),
    "twice": ("resource,layer,scheme,value\nj,a,w4,1\nj,a,w4,1\n", "line 3 gives j of a twice"),
    "no layer": ("resource,layer,scheme,value\nj,,w4,1\n", "line 2 has no layer and the scheme"),
    "scheme": ("resource,layer,scheme,value\nj,a,int4,1\n", "unknown scheme 'int4'"),
    "name": ("resource,layer,scheme,value\na:j,a,w4,1\n", "a resource that is called 'a:j'"),
    "no name": ("resource,layer,scheme,value\n,a,w4,1\n", "a resource that is called ''"),
    "json": ('{"j": ', "it is not JSON"),
    "deep": ('{"j":' * 100_000, "it is not JSON"),
    "no layers": ('{"j": {"w4": 1}}', "'j' has no object of layers"),
    "other key": ('{"j": {"layers": {}, "total": 1}}', "'j' has 'total': give layers, fixed"),
    "no schemes": ('{"j": {"layers": {"a": 1}}}', "layer 'a' of 'j' is no object of schemes"),
    "a string": ('{"j": {"layers": {"a": {"w4": "1"}}}}', "layer 'a' under w4 is '1'"),
    "true": ('{"j": {"layers": {}, "fixed": true}}', "fixed of the whole model is True"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_none(name: str, tmp_path: Path) -> None:
    text, words = BAD[name]
    path = tmp_path / "costs"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=re.escape(words)) as caught:
        GivenCosts.read(path)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot read"):
        GivenCosts.read(tmp_path / "none.csv")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="is not a text file"):
        GivenCosts.read(tmp_path / "binary")


def test_a_search_within_seconds_on_a_target(tmp_path: Path) -> None:
    """The file's content is part of the request; its resource is a cost of every trial."""
    path, db = tmp_path / "costs.csv", tmp_path / "b.db"
    path.write_text(CSV)
    with bitfront.open_study("s", convolutional(), db) as study:
        before = bitfront.search(study, "w2 w4 w8", ["8bpw"], explore=0)[0].trial
        choices = bitfront.Choices(costs=path)
        sweep = ["16ms@cpu:b1", "40%@cpu:b1", ">=2bpw"]
        tight, share = bitfront.search(study, "w2 w4 w8", sweep, choices=choices, explore=0)
        for answer, most in ((tight, 0.016), (share, 0.4 * 0.045)):
            schemes = answer.trial.schemes
            total = 0.005 + sum(MS[s] for s in schemes.values()) / 1000
            assert answer.trial.costs["seconds@cpu:b1"] == pytest.approx(total)
            assert total <= most + 1e-12
        again = bitfront.search(study, "w2 w4 w8", sweep, choices=choices, explore=0)
        assert [a.trial.id for a in again] == [tight.trial.id, share.trial.id]

        slower = bitfront.Choices(costs=seconds(2.0))
        (other,) = bitfront.search(study, "w2 w4 w8", ["22ms@cpu:b1"], choices=slower, explore=0)
        assert other.trial.costs["seconds@cpu:b1"] <= 0.022
        (wide,) = bitfront.search(study, "w2 w4 w8", ["8bpw"], choices=slower, explore=0)
        assert wide.trial.id == before.id
        assert wide.trial.costs["seconds@cpu:b1"] == pytest.approx(0.005 + 5 * 0.006)
        with pytest.raises(
            Infeasible, match=r"budget 14ms@cpu:b1 .* least possible is 15ms@cpu:b1"
        ):
            bitfront.search(study, "w2 w4 w8", ["14ms@cpu:b1"], choices=slower)
        with pytest.raises(BudgetError, match="limits seconds@gpu, which is not counted here"):
            bitfront.search(study, "w2 w4 w8", ["14ms@gpu"], choices=slower)
        with pytest.raises(ProblemError, match=r"none of the schemes .its seconds@cpu:b1 are not"):
            bitfront.search(study, "w3", ["14ms@cpu:b1"], choices=slower)
    front = bitfront.front("s", ("seconds@cpu:b1",), ("kl",), db, within=("16ms@cpu:b1",))
    assert all(t.costs["seconds@cpu:b1"] <= 0.016 + 1e-12 for t in front.trials)


def test_the_commands_read_the_file(tmp_path: Path, bitfront: Commands) -> None:
    path = tmp_path / "costs.csv"
    path.write_text("target,layer,scheme,value\ncpu,conv,w4,0.25\ncpu,head,w4,0.5\ncpu,head,w8,1\n")
    given = ("--function", f"{tiny.code(tmp_path / 'bring.py')}:task", "--schemes", "w4 w8")
    line = bitfront.refused("search", "s", *given, "--budget", "3s@cpu", "--costs", tmp_path / "no")
    assert "cannot read" in line
    line = bitfront.refused("search", "s", *given, "--budget", "7e-1s@cpu", "--costs", path)
    assert "budget 0.7s@cpu cannot be met, the least possible is 0.75s@cpu" in line
    assert "'conv' cannot take w8: its seconds@cpu are not given" in line
    words = ("--budget", "2s@cpu", "--costs", path, "--explore", "0")
    (answer,) = bitfront.ok("search", "s", *given, *words, "--json").document["answers"]
    assert answer["trial"]["costs"]["seconds@cpu"] == 1.25
    front = bitfront.ok("front", "s", "--cost", "seconds@cpu", "--within", "2s@cpu", "--json")
    assert front.document["objectives"] == ["seconds@cpu", "kl"]
