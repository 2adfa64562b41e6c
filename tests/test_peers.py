"""The benchmark of peers without their environments: what it checks, keeps and prints."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.allocations import Cache, Space, checked
from benchmarks.peers.running import PEERS
from benchmarks.peers.tables import Row, markdown, mean_ratio
from bitfront.errors import DataError
from tests.conftest import ROOT

SPACE = Space({"first": 100, "second": 300}, (2, 3, 4, 8))
ANSWER: dict[str, Any] = {
    "versions": {"peer": "1.0"},
    "notes": "",
    "seconds": 2.5,
    "forwards": None,
    "budgets": {
        "2.5": {"asked": 2.49, "bits": {"second": 2, "first": 4}},
        "3": None,
    },
}


def answer(bits: dict[str, int], budget: str = "2.5") -> dict[str, Any]:
    return {**ANSWER, "budgets": {budget: {"asked": 1.0, "bits": bits}}}


def test_average_counts_weights() -> None:
    assert SPACE.average({"first": 4, "second": 2}) == (4 * 100 + 2 * 300) / 400


def test_an_answer_is_kept_and_read_as_it_was_given(tmp_path: Path) -> None:
    cache = Cache.read(tmp_path / "kept.json")
    cache.add("Peer", "net", list(SPACE.weights), checked("Peer", ANSWER, SPACE))
    cache.write()
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert kept["peers"]["Peer"]["net"]["budgets"]["2.5"]["bits"] == "42"
    again = Cache.read(tmp_path / "kept.json").answer("Peer", "net", SPACE)
    assert again == ANSWER


def test_absent_answers_are_none(tmp_path: Path) -> None:
    assert Cache.read(tmp_path / "none.json").answer("Peer", "net", SPACE) is None


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        ({"first": 2, "second": 3}, r"Peer spends 2\.7500 bits of a budget of 2\.5"),
        ({"first": 2}, "layers second are missing"),
        ({"first": 2, "second": 2, "third": 2}, "layers third are missing or not the job's"),
        ({"first": 5, "second": 2}, "first has 5 bits.*choose from 2, 3, 4, 8"),
        ({"first": 16, "second": 2}, "first has 16 bits"),
    ],
)
def test_what_is_refused(bits: dict[str, int], words: str) -> None:
    with pytest.raises(DataError, match=words):
        checked("Peer", answer(bits), SPACE)


def test_a_kept_allocation_over_budget_is_refused(tmp_path: Path) -> None:
    cache = Cache.read(tmp_path / "kept.json")
    cache.add("Peer", "net", list(SPACE.weights), checked("Peer", ANSWER, SPACE))
    cache.content["peers"]["Peer"]["net"]["budgets"]["2.5"]["bits"] = "43"
    with pytest.raises(DataError, match=r"Peer spends 3\.2500 bits"):
        cache.answer("Peer", "net", SPACE)


def test_a_budget_met_exactly_is_within_it() -> None:
    thirds = Space({"a": 1, "b": 1, "c": 1}, (2, 3))
    bits = {"a": 2, "b": 2, "c": 3}
    assert thirds.check("Peer", bits, 7 / 3) == bits


ROWS = [
    Row("Net", 3.0, {"uniform": 0.5, "A": 0.4, "B": 0.2, "Ours": 0.1}),
    Row("Net", 4.0, {"A": 0.1, "Ours": 0.2}),
    Row("Net", 5.0, {"Ours": 0.01}),
]


def test_ratios_are_to_the_best_peer_that_is_there() -> None:
    assert [row.best(["A", "B"]) for row in ROWS] == ["B", "A", None]
    assert [row.ratio("Ours", ["A", "B"]) for row in ROWS] == [0.5, 2.0, None]
    assert mean_ratio(ROWS, "Ours", ["A", "B"]) == pytest.approx(math.sqrt(0.5 * 2.0))
    assert mean_ratio(ROWS[2:], "Ours", ["A", "B"]) is None


def test_table() -> None:
    assert markdown(ROWS, ["A", "B"], ["Ours"], ["Ours"]).splitlines() == [
        "| model | bits | uniform | A | B | Ours | Ours / best |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| Net | 3 | 0.5 | 0.4 | **0.2** | 0.1 | 0.50 |",
        "| Net | 4 |  | **0.1** |  | 0.2 | 2.00 |",
        "| Net | 5 |  |  |  | 0.01 |  |",
    ]


def test_every_peer_has_a_script_and_pinned_versions_with_one_torch() -> None:
    folder = ROOT / "benchmarks" / "peers"
    torch = re.search(r"^torch==\S+", (ROOT / "constraints.txt").read_text(), re.M)
    assert torch is not None
    for peer in PEERS.values():
        assert (folder / f"run_{peer.environment}.py").is_file()
        pins = (folder / f"{peer.environment}.txt").read_text().split()
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
        assert torch[0] in pins
