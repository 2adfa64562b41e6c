"""Sensitivities by part of the data in a study's report, against what the database recorded."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import bitfront
from bitfront.reportparts import by_part
from bitfront.sensitivity import PROFILERS
from bitfront.storage import Store
from bitfront.types import Estimate, Measurement
from tests.diffusion import brought, written
from tests.pages import HOSTILE, Page


def part(of: str, index: int, letter: str = "t") -> dict[str, dict[str, Any]]:
    about = {"unit": "dB", "better": "higher", "worsening_unit": "noise / signal"}
    return {f"{of}_{letter}{index + 1}": {**about, "of": of, "part": index}}


KL = {"kl": {"unit": "nats", "better": "lower", "worsening_unit": "nats"}}
PARTED = {**KL, **part("sqnr", 1), **part("sqnr", 0)}  # whatever their order


def measurement(
    layer: str, values: Mapping[str, float], scheme: str = "w4", profiler: str = "perturb"
) -> Measurement:
    estimates = {name: Estimate(value, 0.1, 9) for name, value in values.items()}
    return Measurement(profiler, PROFILERS[profiler]().settings_key, layer, scheme, estimates)


def written_page(study: str, folder: Path, db: Path, **options: Any) -> Page:
    bitfront.report(study, folder / "out.html", db=db, **options)
    return Page((folder / "out.html").read_text(encoding="utf-8"))


def made(
    folder: Path, measured: Sequence[Measurement], metrics: Mapping[str, Any] = PARTED
) -> Page:
    with Store.open(folder / "b.db") as store:
        study = store.open_study("s", {"weights": "1"}, {"metrics": metrics, "layers": []})
        store.add_measurements(study, measured)
    return written_page("s", folder, folder / "b.db")


def hidden(page: Page) -> bool:
    [section] = [a for tag, a in page.starts if tag == "section" and a["id"] == "parts"]
    return "hidden" in section


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flow")
    with bitfront.open_study("flow", brought(written(folder)), folder / "b.db") as study:
        bitfront.profile(study, "w2 w4", "perturb")
    return folder / "b.db"


def test_groups_of_timesteps_are_those_recorded(db: Path, tmp_path: Path) -> None:
    page = written_page("flow", tmp_path, db)
    assert not hidden(page)
    [shown] = page.data["parts"]
    assert (shown["name"], shown["metric"]) == ("sqnr (perturb)", "sqnr")
    assert shown["unit"] == "noise / signal", "of the worsening; the metric itself is in dB"
    assert shown["parts"] == ["sqnr_t1", "sqnr_t2"]
    assert shown["schemes"] == ["w2", "w4"]
    with Store.open(db) as store:
        recorded = store.measurements(store.study("flow"), "perturb")
    count = 0
    for m in recorded:
        at = shown["schemes"].index(m.scheme), page.data["layers"].index(m.layer)
        for j, name in enumerate(shown["parts"]):
            assert shown["values"][at[0]][at[1]][j] == m.values[name].value
            assert shown["stderr"][at[0]][at[1]][j] == m.values[name].stderr
            count += 1
    assert count == 2 * 2 * len(page.data["layers"]) > 0
    for values, colors in zip(shown["values"], shown["colors"], strict=True):
        positive = [v for row in values for v in row if v > 0]
        expected = [math.log10(min(positive)), math.log10(max(positive))]
        assert colors["range"] == pytest.approx(expected)


def test_the_report_still_has_tables_of_the_metric_asked_for_alone(
    db: Path, tmp_path: Path
) -> None:
    page = written_page("flow", tmp_path, db, metric="sqnr")
    assert [(t["metric"], t["unit"]) for t in page.data["tables"]] == [("sqnr", "noise / signal")]
    assert page.data["unit"] == "noise / signal"


def test_of_every_profiler_that_recorded_them(tmp_path: Path) -> None:
    """Domains are parts too; a layer or a scheme that one profiler lacks is no value."""
    metrics = {**PARTED, **part("kl", 0, "d"), **part("kl", 1, "d")}
    both = {"sqnr_t1": 1.0, "sqnr_t2": 2.0, "kl": 3.0}
    page = made(
        tmp_path,
        [
            measurement("a", both, "w4"),
            measurement("a", {**both, "sqnr_t1": 5.0}, "w2"),
            measurement("b", {"kl": 9.0, "kl_d1": 4.0, "kl_d2": -4.0}, "w2"),
            measurement("c", {"mse": 1.0}, "w8", "mse"),
        ],
        metrics,
    )
    assert page.data["layers"] == ["a", "b", "c"]
    sqnr, kl = page.data["parts"]
    assert [sqnr["name"], kl["name"]] == ["sqnr (perturb)", "kl (perturb)"]
    assert sqnr["schemes"] == kl["schemes"] == ["w2", "w4"]
    nothing = [None, None]
    assert sqnr["values"] == [[[5.0, 2.0], nothing, nothing], [[1.0, 2.0], nothing, nothing]]
    assert kl["values"] == [[nothing, [4.0, -4.0], nothing], [nothing] * 3]
    assert kl["colors"][1] == {}, "nothing to colour"


@pytest.mark.parametrize(
    ("metrics", "values"),
    [
        ({n: {"unit": "dB", "better": "higher"} for n in PARTED}, ("sqnr_t1", "sqnr_t2")),
        ({**KL, **part("sqnr", 0)}, ("sqnr_t1",)),
        (PARTED, ("kl",)),
    ],
    ids=["a study that does not say what is part of what", "one part", "not recorded"],
)
def test_there_is_no_section_without_parts(
    metrics: Mapping[str, Any], values: tuple[str, ...], tmp_path: Path
) -> None:
    page = made(tmp_path, [measurement("a", dict.fromkeys(values, 1.0))], metrics)
    assert hidden(page)
    assert page.data["parts"] == []


def test_more_than_nine_parts_stand_in_their_order() -> None:
    metrics = {name: about for i in range(12) for name, about in part("sqnr", i).items()}
    backwards = dict(reversed(metrics.items()))
    [found] = by_part([measurement("a", dict.fromkeys(metrics, 1.0))], ["a"], backwards)
    assert [t.metric for t in found.tables] == [f"sqnr_t{i}" for i in range(1, 13)]


def test_what_users_wrote_stays_text(tmp_path: Path) -> None:
    metrics = {**KL, **part(HOSTILE, 0), **part(HOSTILE, 1)}
    page = made(tmp_path, [measurement("a", dict.fromkeys(metrics, 1.0))], metrics)
    assert len(page.inside["script"]) == 3
    assert all("<" not in name for name in page.data["parts"][0]["parts"])


def test_the_script_reads_what_the_page_has(db: Path, tmp_path: Path) -> None:
    page = written_page("flow", tmp_path, db)
    used = set(re.findall(r"\bfound\.([a-z_]+)", page.inside["script"][2]))
    assert used <= page.data["parts"][0].keys()


def test_the_settings_say_what_is_part_of_what(db: Path) -> None:
    with Store.open(db) as store:
        metrics = store.study("flow").settings["metrics"]
    assert [(n, m["of"], m["part"]) for n, m in metrics.items() if "part" in m] == [
        ("sqnr_t1", "sqnr", 0), ("sqnr_t2", "sqnr", 1),
    ]  # fmt: skip
    assert metrics["sqnr"] == {
        "unit": "dB", "better": "higher", "worsening_unit": "noise / signal",
    }  # fmt: skip
