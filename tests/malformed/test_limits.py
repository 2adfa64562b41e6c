"""Budgets, costs and schemes of the newer kinds that cannot be used: one line, nothing begun."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import tiny
from tests.commands import Commands

CASES = {
    "half a sign": ("w4 w8", [">4bpw"], "cannot read budget '>4bpw'"),
    "two signs": ("w4 w8", [">=3<=4bpw"], "cannot read budget '>=3<=4bpw'"),
    "a class of nothing": ("w4 w8", ["convolution:"], "cannot read budget 'convolution:'"),
    "no such class": (
        "w4 w8", ["attention:5bpw"],
        r"no class of the layers to quantize, and none of these, is called 'attention': "
        r"classes are convolution, other",
    ),
    "a layer that is kept out": ("w4 w8", ["embed*:5bpw"], "is called 'embed*'"),
    "contradiction": ("w4 w8", ["5bpw", ">=6bpw"], "budgets >=6bpw and 5bpw contradict each other"),
    "contradiction in two units": ("w4 w8", ["30%", ">=700B"], ">=700B and 30% contradict"),
    "out of reach": ("w4 w8", [">=9bpw"], "the greatest possible is 8bpw: lower it to >=8bpw"),
    "a class that is too small": ("w4 w8", ["convolution:3bpw"], "possible is convolution:4bpw"),
    "no table of the target": (
        "w4 w8", ["5ms@cpu:b1"],
        "limits seconds@cpu:b1, which is not counted here: choose a budget on one of",
    ),
    "a share on no target": ("w4 w8", ["50%@cpu"], "limits seconds@cpu, which is not counted"),
    "bytes on a target": ("w4 w8", ["5MB@cpu"], "limits what no target changes: leave out"),
    "an unknown resource": ("w4 w8", ["joules<=5"], "limits joules, which is not counted here"),
    "no number": ("w4 w8", ["bytes<=many"], "cannot read budget 'bytes<=many'"),
    "least activations": ("w4 w8a8", [">=1KBact"], "is a lower limit on what is live at once"),
    "activations of a class": ("w4 w8a8", ["other:1KBact"], "limit activations of the model"),
    "activations that no scheme shrinks": ("w4 w8", ["10%act"], "budget 10%act cannot be met"),
    "a cache where there is none": ("w4 w8", ["50%kv"], "limits kv, which is not counted here"),
    "a scheme for a cache": (
        "w4kv8", ["5bpw"], "kv is for the projections of attention that a language model caches",
    ),
    "a cache of 3 bits": ("w4kv3", ["5bpw"], "a cache of 3 bits: use one of 4, 6, 8"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_is_refused(name: str, tmp_path: Path, bitfront: Commands) -> None:
    schemes, budgets, words = CASES[name]
    task = f"{tiny.code(tmp_path / 'bring.py')}:task"
    asked = [word for budget in budgets for word in ("--budget", budget)]
    line = bitfront.refused("search", "s", "--function", task, "--schemes", schemes, *asked)
    assert re.search(re.escape(words), line), line
    assert not bitfront("front", "s").out


def test_a_front_within_what_no_trial_has(tmp_path: Path, bitfront: Commands) -> None:
    task = f"{tiny.code(tmp_path / 'bring.py')}:task"
    given = ("--function", task, "--schemes", "w4 w8", "--budget", "6bpw", "--explore", "0")
    bitfront.ok("search", "s", *given)
    for within, words in (
        ("5ms@cpu", "limits seconds@cpu, which no trial has"),
        ("1KBact", "limits activations, which no trial has"),
        ("attention:5bpw", "is called 'attention': classes are convolution, other"),
        ("other:5ms@cpu", "limits seconds@cpu of a class of layers, of which trials have"),
        (">=33bpw", "loosen a limit"),
        (">4bpw", "cannot read limit '>4bpw'"),
    ):
        assert words in bitfront.refused("front", "s", "--within", within)
