"""``bitfront import`` on the command line, and searching by what it recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tests.commands import Commands
from tests.imports import GOLDEN, written

W4G8, W8A8, MXFP4 = (GOLDEN / f"autoround_{name}.json" for name in ("w4g8", "w8a8", "mxfp4"))


@pytest.fixture
def llama(tmp_path: Path) -> list[object]:
    """The options that begin a study of a tiny Llama."""
    tiny.llama(tmp_path / "llama")
    return [
        "--task", "language", "--model", tmp_path / "llama", "--device", "cpu",
        "--calibration", tiny.text(tmp_path / "text.txt"), "--samples", 6, "--eval-samples", 4,
        "--length", 12, "--batch", 3,
    ]  # fmt: skip


def test_scores_are_imported_and_searched_by(bitfront: Commands, llama: list[object]) -> None:
    said = bitfront.ok("import", W4G8, W8A8, MXFP4, "--study", "s", *llama).out
    assert "28 scores of 14 layers under w4g8, w8a8: import autoround-" in said
    assert "delta-loss: first-order change of the training loss" in said
    assert "without a scheme: 14 × mx_fp of 4 bits, group 32, activations of 4 bits" in said
    assert "layers without a score: model.embed_tokens, lm_head; exclude or pin them" in said
    assert "were recorded already" in bitfront.ok("import", W4G8, W8A8, MXFP4, "--study", "s").out
    asked = ("search", "s", "--schemes", "w4g8 w8a8", "--budget", "6bpw", "--explore", 2)
    answer = bitfront.ok(*asked, "--profiler", "imported", "--json").document["answers"][0]
    assert answer["trial"]["settings"]["profiler"] == "imported"
    assert answer["judged"] == "kl"
    shown = bitfront.ok("show", "s", answer["trial"]["id"], "--json").document
    assert all(layer["estimated"] for layer in shown["layers"].values())
    page = bitfront.ok("profile", "s", "--schemes", "w4g8 w8a8", "--profiler", "imported").out
    assert "delta-loss: imported, delta-loss@autoround-" in page


def test_json_says_what_was_imported(bitfront: Commands, llama: list[object]) -> None:
    words = ("import", W4G8, "--study", "s", "--label", "mine", "--format", "autoround", "--json")
    found = bitfront.ok(*words, *llama).document
    assert (found["study"], found["label"], found["format"]) == ("s", "mine", "autoround")
    assert (found["scores"], found["new"], found["layers"]) == (14, 14, 14)
    assert found["without"] == ["model.embed_tokens", "lm_head"]
    assert bitfront.ok(*words).document == {**found, "new": 0}


def test_several_imports_are_told_apart(
    bitfront: Commands, llama: list[object], tmp_path: Path
) -> None:
    bitfront.ok("import", W4G8, "--study", "s", "--label", "a", *llama)
    bitfront.ok("import", W8A8, "--study", "s", "--label", "b")
    asked = ("search", "s", "--schemes", "w8a8", "--budget", "9bpw", "--profiler", "imported")
    assert "has 2 imports: name one with label=a (there are a, b)" in bitfront.refused(*asked)
    few = ("--no-verify", "--explore", 0)
    bitfront.ok(*asked, "--setting", "label=b", *few)
    says = "no score of layer 'model.layers.0.self_attn.q_proj' (and 13 more) under w8a8"
    assert says in bitfront.refused(*asked, "--setting", "label=a", *few)
    report = bitfront.ok("report", "s", "--html", tmp_path / "r.html", "--json").document
    assert report["tables"] == ["imported a", "imported b"]


def test_what_profile_writes_comes_back(
    bitfront: Commands, llama: list[object], tmp_path: Path
) -> None:
    """Each of its tables, pairs that a layer cannot take left out."""
    file = tmp_path / "p.csv"
    asked = ("--schemes", "w3 w4g16 w8", "--csv", file, "--json")
    tables = bitfront.ok("profile", "s", *asked, *llama).document["tables"]
    for name, table in tables.items():
        label = name.replace("@", "-")
        found = bitfront.ok(
            "import", file, "--study", "s", "--table", name, "--label", label, "--json"
        ).document
        assert found["metric"] == table["metric"] == "kl"
        again = bitfront.ok(
            "profile", "s", "--schemes", "w3 w4g16 w8", "--profiler", "imported", "--setting",
            f"label={label}", "--json",
        ).document["tables"][f"kl@{label}"]  # fmt: skip
        for key in ("layers", "schemes", "values", "stderr", "samples"):
            assert again[key] == table[key]


def test_a_server_takes_no_files(bitfront: Commands, llama: list[object]) -> None:
    line = bitfront.refused("--server", "http://127.0.0.1:1", "import", W4G8, "--study", "s")
    assert "import with server http://127.0.0.1:1: leave out --server" in line


def test_modelopts_sums_and_their_mean(bitfront: Commands, tmp_path: Path) -> None:
    code = "from tests.imports import inputs, net\n\ndef task():\n    *c, e = inputs()\n"
    code += "    return {'model': net(), 'calibration': c, 'evaluation': [e]}\n"
    bring = written(tmp_path / "bring.py", code)
    words = ("import", GOLDEN / "modelopt_kl.pt", "--study", "n")
    sums = bitfront.ok(*words, "--task", "module", "--function", f"{bring}:task", "--json").document
    means = bitfront.ok(*words, "--per", 72, "--json").document
    assert (sums["metric"], means["metric"]) == ("kl-sum", "kl")
    assert (sums["shared"], sums["untied"]) == (4, 0)
    asked = ("search", "n", "--schemes", "w3g8 w8", "--budget", "5bpw", "--explore", 0, "--json")
    by = ("--profiler", "imported", "--setting", f"label={means['label']}")
    answer = bitfront.ok(*asked, *by).document["answers"][0]
    assert answer["table"] == "verified"
    held = bitfront.ok(
        "search", "n", "--schemes", "w3g8 w8", "--max-kl", 0.05, "--explore", 6, "--json",
        "--profiler", "imported", "--setting", f"label={sums['label']}",
    ).document["answers"][0]  # fmt: skip
    assert held["value"] <= 0.05
