"""The main job on the command line: profile, search, front, show, export, on tiny models."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bitfront.storage import Store
from tests import tiny
from tests.commands import Commands
from tests.pages import Page


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


def module(files: Path) -> list[object]:
    return ["--task", "module", "--function", f"{tiny.code(files / 'bring.py')}:task"]


def language(files: Path) -> list[object]:
    tiny.language_task(files)  # makes its files
    return [
        "--task", "language", "--model", files / "llama", "--calibration", files / "text.txt",
        "--samples", 6, "--eval-samples", 4, "--length", 12, "--batch", 3,
    ]  # fmt: skip


def vision(files: Path) -> list[object]:
    tiny.vision_task(files)  # makes its files
    return [
        "--task", "vision", "--model", f"{files / 'net.py'}:Net", "--arguments", '{"width": 4}',
        "--weights", files / "net.pt", "--calibration", files / "images.npz",
        "--samples", 8, "--mean", "0.5,0.5,0.5", "--std", "0.2",
    ]  # fmt: skip


def test_from_a_language_model_to_a_folder_that_transformers_loads(
    bitfront: Commands, files: Path, tmp_path: Path
) -> None:
    task, out = language(files), tmp_path / "out"
    schemes = ["--schemes", "w3 w4 w8", "--budget", "4bpw", "--budget", "6bpw"]
    found = bitfront.ok("search", "lm", *task, *schemes, "--json").document
    assert [a["budgets"] for a in found["answers"]] == [["4bpw"], ["6bpw"]]
    low, high = (a["trial"] for a in found["answers"])
    assert low["costs"]["bits"] <= 4 * low["settings"]["weights"]
    assert low["costs"]["bytes"] < high["costs"]["bytes"]

    written = bitfront.ok("export", "lm", low["id"], out, "--json").document
    assert written["bytes"] == written["predicted_bytes"] == low["costs"]["bytes"]
    assert written["max_difference"] == 0
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(out)
    ids = torch.arange(2, 10)[None]
    with Store.open(bitfront.db) as store:
        study = store.study("lm")
        [export] = store.exports(study)
    assert (export.trial_id, export.bytes) == (low["id"], written["bytes"])
    assert torch.isfinite(model(ids).logits).all()
    refusal = bitfront.refused("export", "lm", low["id"], out)
    assert "not empty" in refusal


def test_a_second_search_needs_no_task_and_answers_from_the_database(
    bitfront: Commands, files: Path
) -> None:
    words = ["--schemes", "w2 w4 w8", "--budget", "4bpw", "--json"]
    first = bitfront.ok("search", "v", *vision(files), *words).document
    again = bitfront.ok("search", "v", *words).document
    assert again == first
    more = bitfront.ok("search", "v", *vision(files), *words).document
    assert more == first


def test_other_data_under_the_same_name_is_refused(bitfront: Commands, files: Path) -> None:
    words = ["--schemes", "w4 w8", "--budget", "6bpw"]
    bitfront.ok("search", "v", *vision(files), *words)
    refusal = bitfront.refused("search", "v", *words, "--samples", 7)
    assert "calibration" in refusal
    assert "weights" not in refusal
    refusal = bitfront.refused("search", "v", *module(files), *words)
    assert "task was 'vision' and is now 'module'" in refusal


def test_profile_prints_tables_and_writes_csv(
    bitfront: Commands, files: Path, tmp_path: Path
) -> None:
    path = tmp_path / "table.csv"
    printed = bitfront.ok("profile", "m", *module(files), "--schemes", "w2 w8", "--csv", path)
    assert "conv" in printed.out
    assert "w8" in printed.out
    found = bitfront.ok("profile", "m", "--schemes", "w2 w8", "--json").document
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert {row["table"] for row in rows} == set(found["tables"])
    for row in rows:
        table = found["tables"][row["table"]]
        i, j = table["layers"].index(row["layer"]), table["schemes"].index(row["scheme"])
        assert float(row["value"]) == table["values"][i][j]
    measured = bitfront.ok(
        "profile", "m", "--schemes", "w2 w8", "--profiler", "perturb", "--json"
    ).document
    assert next(iter(measured["tables"])) == "kl"


def test_front_and_show(bitfront: Commands, files: Path, tmp_path: Path) -> None:
    page, sheet = tmp_path / "front.html", tmp_path / "front.csv"
    words = ["--schemes", "w2 w4 w8", "--budget", "3bpw", "--budget", "5bpw"]
    bitfront.ok("search", "m", *module(files), *words)
    found = bitfront.ok("front", "m", "--html", page, "--csv", sheet, "--json").document
    with Store.open(bitfront.db) as store:
        trials = store.trials(store.study("m"))
    points = {t.id: (t.costs["bytes"], t.metrics["kl"].value) for t in trials}
    expected = {
        i
        for i, a in points.items()
        if not any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in points.values())
    }
    assert {t["id"] for t in found["trials"]} == expected
    sizes = [t["costs"]["bytes"] for t in found["trials"]]
    assert sizes == sorted(sizes)
    assert {int(row["trial"]) for row in csv.DictReader(sheet.read_text().splitlines())} == expected
    assert "plotly" in page.read_text()
    everything = bitfront.ok("front", "m", "--all", "--json").document["trials"]
    assert {t["id"] for t in everything} == set(points)
    assert {t["id"] for t in everything if t["on_front"]} == expected

    knee = found["knee"]
    marked = [row for row in csv.DictReader(sheet.read_text().splitlines()) if row["knee"] == "1"]
    assert [int(row["trial"]) for row in marked] == ([knee] if knee else [])
    assert (f"*{knee} knee" in bitfront.ok("front", "m").out) == (knee is not None)
    limits = ("--within", "60%", "--within", "kl<=0.5", "--within", "5bpw")
    inner = bitfront.ok("front", "m", *limits, "--all", "--json").document
    whole = next(t for t in everything if t["solver"] == "full")["costs"]["bytes"]
    assert inner["within"] == ["60%", "kl<=0.5", "5bpw"]
    assert {t["id"] for t in inner["trials"]} == {
        t["id"]
        for t in everything
        if t["costs"]["bytes"] <= 0.6 * whole
        and t["metrics"]["kl"]["value"] <= 0.5
        and t["costs"]["bits"] <= 5 * t["settings"]["weights"]
    }
    printed = bitfront.ok("front", "m", "--within", "5bpw").out
    assert "trials within 5bpw on the front" in printed

    chosen = found["trials"][0]
    shown = bitfront.ok("show", "m", chosen["id"], "--json").document
    assert {n: line["scheme"] for n, line in shown["layers"].items()} == chosen["schemes"]
    weights = sum(line["bytes"] for line in shown["layers"].values())
    full = sum(line["full_bytes"] for line in shown["layers"].values())
    assert chosen["costs"]["bytes"] - weights == whole - full  # what is not a layer's weight
    printed = bitfront.ok("show", "m", chosen["id"]).out
    assert "w2" in printed
    doubtful = [line["inside_noise"] for line in shown["layers"].values()]
    assert ("rank inside the noise" in printed) == any(doubtful)
    assert sum(line.rstrip().endswith(" ~") for line in printed.splitlines()) == sum(doubtful)
    assert "trials on the front" in bitfront.ok("front", "m", "--metric", "agreement").out


def test_report(bitfront: Commands, files: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    bitfront.ok("search", "m", *module(files), "--schemes", "w2 w4 w8", "--budget", "3bpw")
    found = bitfront.ok("report", "m", "--html", path, "--json").document
    assert found["html"] == str(path)
    assert found["missing"] == []
    assert {name.partition(":")[0] for name in found["tables"]} == {"fisher", "perturb"}
    front = bitfront.ok("front", "m", "--json").document["trials"]
    assert found["front"] == [t["id"] for t in front]
    text = path.read_text(encoding="utf-8")
    assert all(str(t["id"]) in Page(text).rows[i]["trial"] for i, t in enumerate(front))
    printed = bitfront.ok("report", "m", "--html", path, "--metric", "agreement").out
    assert printed.startswith(f"{path}: {len(found['tables'])} tables, ")


def test_reports_that_cannot_be(bitfront: Commands, files: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    assert "no study named 'm'" in bitfront.refused("report", "m", "--html", path)
    bitfront.ok("profile", "m", *module(files), "--schemes", "w2 w8")
    printed = bitfront.ok("report", "m", "--html", path).out
    assert "no trials are recorded: bitfront search m measures them" in printed
    path.unlink()
    assert "no metric 'x'" in bitfront.refused("report", "m", "--html", path, "--metric", "x")
    assert "is a folder" in bitfront.refused("report", "m", "--html", tmp_path)
    assert "create it" in bitfront.refused("report", "m", "--html", tmp_path / "no" / "out.html")
    refusal = bitfront.refused("report", "m", "--html", tmp_path / ("x" * 300))
    assert "give a shorter name" in refusal
    assert "--html" in bitfront.refused("report", "m")
    assert list(tmp_path.glob("*.html")) == []


def test_studies(bitfront: Commands, files: Path) -> None:
    assert bitfront.ok("studies").out == "no studies yet\n"
    bitfront.ok("profile", "m", *module(files), "--schemes", "w2 w8")
    [line] = bitfront.ok("studies", "--json").document
    assert line["name"] == "m"
    assert line["measurements"] == 4  # two layers under two schemes
    assert line["trials"] == 0


def test_doctor(bitfront: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = bitfront.ok("doctor", "--json").document
    assert found["ok"]
    verdicts = {check["what"]: check["verdict"] for check in found["checks"]}
    assert verdicts["torch"] == verdicts["database"] == verdicts["solver"] == "ok"
    (tmp_path / "text.db").write_text("this is no database, whatever its name says")
    done = bitfront("doctor", "--db", tmp_path / "text.db", "--json")
    assert done.code == 2
    broken = [c for c in done.document["checks"] if c["verdict"] == "failed"]
    assert [c["what"] for c in broken] == ["database"]
    assert "is not a database" in broken[0]["found"]


def test_layers_can_be_pinned_kept_out_and_grouped(bitfront: Commands, files: Path) -> None:
    words = ["--schemes", "w2 w4 w8", "--budget", "5bpw", "--json"]

    def schemes(*more: object) -> dict[str, str]:
        found: dict[str, Any] = bitfront.ok("search", "m", *module(files), *words, *more).document
        answer: dict[str, str] = found["answers"][0]["trial"]["schemes"]
        return answer

    assert set(schemes()) == {"conv", "head"}
    assert set(schemes("--exclude", "conv")) == {"head"}
    assert schemes("--pin", "head=w2")["head"] == "w2"
    grouped = schemes("--group", "conv,head")
    assert grouped["conv"] == grouped["head"]
    assert "no layer matches 'heed'" in bitfront.refused(
        "search", "m", *words[:-1], "--include", "heed"
    )


def test_what_is_measured_is_announced_on_standard_error_alone(
    bitfront: Commands, files: Path
) -> None:
    (files / "bare.py").write_text(
        tiny.code(files / "bring.py").read_text() + "\n\ndef bare():\n    made = task()\n"
        "    made.pop('evaluation')\n    return made\n"
    )
    done = bitfront.ok(
        "profile", "b", "--function", f"{files / 'bare.py'}:bare", "--schemes", "w4", "--json"
    )
    assert "warning: bare brings no evaluation batches" in done.err
    assert json.loads(done.out)["study"] == "b"


def test_settings_of_a_profiler(bitfront: Commands, files: Path) -> None:
    words = ["profile", "m", *module(files), "--schemes", "w2 w8", "--json"]
    found = bitfront.ok(
        *words, "--setting", "draws=3", "--setting", "temperatures=[1, 4]",
        "--setting", "probe=labels", "--setting", "elementwise=1",
    ).document  # fmt: skip
    assert found["settings"]["draws"] == 3
    assert found["settings"]["probe"] == "labels"
    assert set(found["tables"]) == {"sample@1", "sample@4", "element@1", "element@4"}
    plain = bitfront.ok(*words).document
    assert plain["tables"]["sample@1"]["values"] != found["tables"]["sample@1"]["values"]
    assert "the settings of fisher are temperatures, draws" in bitfront.refused(
        *words, "--setting", "drows=3"
    )
    assert "write a value like draws=1" in bitfront.refused(*words, "--setting", "draws=two")
    assert "draw at least once" in bitfront.refused(*words, "--setting", "draws=0")
    assert "the settings of mse are none" in bitfront.refused(
        *words, "--profiler", "mse", "--setting", "draws=3"
    )


def test_profilers_by_the_hessian(bitfront: Commands, files: Path) -> None:
    task, schemes = language(files), ["--schemes", "w3 w8", "--json"]
    words = ["profile", "curved", *task, *schemes]
    found = bitfront.ok(
        *words, "--profiler", "hutchinson", "--setting", "until=0.2", "--setting", "loss=labels"
    ).document
    assert found["settings"]["until"] == 0.2
    assert set(found["tables"]) == {"nll"}
    found = bitfront.ok(*words, "--profiler", "eigen", "--setting", "iterations=9").document
    assert set(found["tables"]) == {"kl"}
    (answer,) = bitfront.ok(
        "search", "curved", *task, *schemes, "--budget", "5bpw", "--profiler", "hutchinson"
    ).document["answers"]
    assert answer["trial"]["costs"]["bits"] <= 5 * answer["trial"]["settings"]["weights"]


def test_budgets_are_shared_out_between_classes(bitfront: Commands, files: Path) -> None:
    task = ["--profiler", "decoupled", "--setting", "metrics=*attention=kl, *=kl"]
    given = [*language(files), "--schemes", "w2 w4 w8", "--budget", "4bpw", *task]
    bitfront.ok("search", "shared", *given, "--shares", 5, "--explore", 0)
    with Store.open(bitfront.db) as store:
        made = store.trials(store.study("shared"))
    split = next(t for t in made if t.settings.get("table") == "shares")
    shown = bitfront.ok("show", "shared", split.id).out
    assert "share of the budget" in shown
    for cls, share in split.settings["shares"].items():
        assert cls in shown
        assert f"{share:.1%}" in shown
    few = ["--schemes", "w4", "--budget", "4bpw", "--shares", 3]
    assert "--shares with fisher" in bitfront.refused("search", "shared", *few)
