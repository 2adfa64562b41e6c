"""What ``bitfront profile --csv`` writes is read back to the same numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitfront.cli.profile import as_csv
from bitfront.documents import plain
from bitfront.importers import Asked, read
from bitfront.scheme import Scheme

figures = st.floats(allow_nan=True, allow_infinity=False)
errors = st.one_of(st.just(math.nan), st.floats(min_value=0, allow_infinity=False))
names = st.text("abz._,\"' 0", min_size=1, max_size=6).filter(lambda name: name.strip() == name)
words = st.sampled_from(["w2", "w4", "w4g128", "w8a8", "w4z+gptq", "fp8", "nvfp4"])


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    """As ``profile_document`` has them: name -> a table with nan for pairs that cannot be."""
    layers = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    schemes = draw(st.lists(words, min_size=1, max_size=3, unique=True))

    def grid(of: st.SearchStrategy[float]) -> st.SearchStrategy[list[list[float]]]:
        row = st.lists(of, min_size=len(schemes), max_size=len(schemes))
        return st.lists(row, min_size=len(layers), max_size=len(layers))

    found = {}
    for name in draw(st.lists(st.sampled_from(["sample@1", "kl", "x"]), min_size=1, unique=True)):
        found[name] = {
            "metric": draw(st.sampled_from(["kl", "nll", "mse"])), "layers": layers,
            "schemes": schemes, "values": draw(grid(figures)), "stderr": draw(grid(errors)),
            "samples": draw(st.integers(0, 10**6)),
        }  # fmt: skip
    return found


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


@pytest.mark.parametrize("json", [False, True], ids=["python", "server"])
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(written=tables())
def test_numbers_come_back_to_the_bit(tmp_path: Path, json: bool, written: dict[str, Any]) -> None:
    file = tmp_path / "t.csv"
    file.write_text(as_csv(plain(written) if json else written))
    for name, table in written.items():
        format, scores = read([file], asked=Asked(table=name))
        assert (format, scores.metric) == ("csv", table["metric"])
        expected = [
            (layer, Scheme.parse(scheme), value, error)
            for layer, row, of_row in zip(
                table["layers"], table["values"], table["stderr"], strict=True
            )
            for scheme, value, error in zip(table["schemes"], row, of_row, strict=True)
            if not math.isnan(value)
        ]
        assert len(scores.scores) == len(expected)
        for score, (layer, scheme, value, error) in zip(scores.scores, expected, strict=True):
            assert (score.layers, score.scheme, score.value) == ((layer,), scheme, value)
            assert same(score.stderr, error)
            assert score.samples == table["samples"]
        absent = sum(scores.unscored.values())
        assert absent + len(expected) == len(table["layers"]) * len(table["schemes"])
