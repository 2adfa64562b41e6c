"""The page of a front: what it says of the trials, in whichever words users chose."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest

from bitfront.errors import InvalidInput, UnknownName
from bitfront.frontpage import write_front
from bitfront.types import Estimate, Layer, Trial
from tests.pages import HOSTILE, Page

NAN = math.nan
LAYERS = (
    Layer("stem", "conv2d", 8, 27, dtype="bfloat16"),
    Layer("head", "linear", 10, 8, dtype="float32"),
)


def trial(id: int, size: float, kl: float, stderr: float = 0.01, **changes: Any) -> Trial:
    parts: dict[str, Any] = {
        "schemes": {"head": "w8g4", "stem": "keep"},
        "solver": "ilp",
        "predicted": kl / 2,
        "bound": 0.0,
        "costs": {"bytes": size, "bits": 3.5 * 296, "bops": 2.5e9},
        "metrics": {"kl": Estimate(kl, stderr, 9), "top1": Estimate(0.75, NAN, 9)},
        "seconds": 1.0,
        "settings": {"budgets": ["3.5bpw"], "table": "verified", "weights": 296},
        "id": id,
    }
    return Trial(**{**parts, **changes})


TRIALS = (trial(7, 4.5e6, 0.05), trial(3, 1.5e6, 0.5, NAN), trial(5, 5e6, 2.0, 0.25))


def page(folder: Path, trials: Any = TRIALS, front: Any = (3, 7), **options: Any) -> Page:
    layers = options.pop("layers", LAYERS)
    write_front(folder / "front.html", options.pop("study", "s"), trials, front, layers, **options)
    assert os.listdir(folder) == ["front.html"]
    return Page((folder / "front.html").read_text(encoding="utf-8"))


def test_the_page_holds_the_trials_as_measured_by_rising_cost(tmp_path: Path) -> None:
    data = page(tmp_path).data
    assert [t["id"] for t in data["trials"]] == [3, 7, 5]
    assert [t["front"] for t in data["trials"]] == [True, True, False]
    by_id = {t.id: t for t in TRIALS}
    for shown in data["trials"]:
        given = by_id[shown["id"]]
        assert shown["x"] == given.costs["bytes"]
        assert shown["y"] == given.metrics["kl"].value
        assert dict(zip(data["layers"], shown["schemes"], strict=True)) == given.schemes
    assert data["layers"] == ["stem", "head"]  # the model's order, not the trial's
    assert data["weights"] == [216, 80]


def test_kept_layers_are_as_wide_as_the_model_has_them(tmp_path: Path) -> None:
    both = [trial(1, 1.0, 1.0), trial(2, 2.0, 1.0, schemes={"head": "keep", "stem": "nvfp4"})]
    assert [t["bits"] for t in page(tmp_path, both).data["trials"]] == [[16, 8], [4, 32]]


def test_layers_of_which_nothing_is_known(tmp_path: Path) -> None:
    other = trial(2, 2.0, 1.0, schemes={"stem": "w4", "tail": "w2"})
    shown = page(tmp_path, [trial(1, 1.0, 1.0), other], layers=())
    assert shown.data["layers"] == ["head", "stem", "tail"]
    assert [t["bits"] for t in shown.data["trials"]] == [[8, None, None], [None, 4, 2]]
    assert [t["schemes"][2] for t in shown.data["trials"]] == [None, "w2"]
    assert set(shown.data["weights"]) == {None}
    assert "kept, width not known" in shown.text


def test_tied_weights_are_counted_once(tmp_path: Path) -> None:
    tied = Layer("head", "linear", 8, 27, dtype="bfloat16", shares="stem")
    data = page(tmp_path, layers=(LAYERS[0], tied)).data
    assert data["weights"] == [216, 0]
    assert data["hovers"][1].endswith("216 weights, those of stem")


def test_the_front_is_a_line_and_dominated_trials_are_apart(tmp_path: Path) -> None:
    data = page(tmp_path).data
    dominated, front, ring = data["scatter"]["data"]
    ids = [t["id"] for t in data["trials"]]
    assert [ids[i] for i in front["customdata"]] == [3, 7]
    assert [ids[i] for i in dominated["customdata"]] == [5]
    assert "lines" in front["mode"]
    assert "lines" not in dominated["mode"]
    assert (front["x"], front["y"]) == ([1.5, 4.5], [0.5, 0.05])
    assert front["error_y"]["array"] == [0.0, 0.01]  # an unknown error has no bar
    assert dominated["error_y"]["array"] == [0.25]
    assert [t["at"] for t in data["trials"]] == [[1.5, 0.5], [4.5, 0.05], [5.0, 2.0]]
    assert ring["hoverinfo"] == "skip"  # or it would take the clicks on its trial


def test_the_knee_and_the_limits_are_told(tmp_path: Path) -> None:
    plain, found = page(tmp_path), page(tmp_path, knee=7, within=("kl<=3", "9MB"))
    _, front, _ = found.data["scatter"]["data"]
    assert front["marker"]["symbol"] == ["circle", "diamond"]
    assert front["hovertext"][1].endswith("<br>mark: knee of the front")
    assert "mark: knee of the front" in found.data["trials"][1]["detail"]
    assert [row["mark"] for row in found.rows] == ["", "knee of the front"]
    counts = "2 of 3 trials within kl&lt;=3 and 9MB on the front; the diamond is its knee."
    assert counts in found.text
    assert "2 of 3 trials on the front." in plain.text
    assert "knee" not in json.dumps(plain.data)


def test_hovers_give_every_figure_in_readable_units(tmp_path: Path) -> None:
    data = page(tmp_path, y_unit="nats").data
    lines = data["scatter"]["data"][1]["hovertext"][1].split("<br>")
    assert lines == [
        "<b>trial 7</b>",
        "budgets: 3.5bpw",
        "solver: ilp (verified)",
        "bytes: 4.5 MB",
        "bits per weight: 3.5",
        "bops: 2.5 GBOPs",
        "kl: 0.05 ± 0.01 nats",
        "predicted: 0.025",
        "top1: 0.75",
    ]
    assert data["hovers"][0].split("<br>") == ["<b>stem</b>", "conv2d, 8 × 27", "216 weights"]
    title = "Trial 7: bytes 4.5 MB, bits per weight 3.5, kl 0.05 ± 0.01 nats"
    assert data["trials"][1]["title"] == title


def test_the_table_lists_the_front_with_the_same_figures(tmp_path: Path) -> None:
    baseline = trial(9, 9e6, 0.01, 0.0, predicted=NAN, solver="full", settings={})
    rows = page(tmp_path, [*TRIALS, baseline], (3, 7, 9), y_unit="nats").rows
    assert [row["trial"] for row in rows] == ["3", "7", "9"]
    assert [row["kl"] for row in rows] == ["0.5 nats", "0.05 ± 0.01 nats", "0.01 nats"]
    assert [row["predicted"] for row in rows] == ["0.25", "0.025", ""]
    assert [row["solver"] for row in rows] == ["ilp (verified)", "ilp (verified)", "full"]
    assert [row["bits per weight"] for row in rows] == ["3.5", "3.5", ""]
    assert rows[2]["bits"] == "1.036 kbit"  # its number of weights is not known


@pytest.mark.parametrize(
    ("x", "settings", "title", "first"),
    [
        ("bytes", {}, "bytes (MB)", 1.5),
        ("bops", {}, "bops (GBOPs)", 2.5),
        ("bits", {"weights": 296}, "bits (per weight)", 3.5),
        ("bits", {}, "bits (kbit)", 1.036),
        ("seconds", {}, "seconds (ms)", 12.0),
        ("pence", {}, "pence", 5.0),
    ],
)
def test_axes_name_their_units(
    tmp_path: Path, x: str, settings: dict[str, int], title: str, first: float
) -> None:
    costs = {**TRIALS[1].costs, "seconds": 0.012, "pence": 5.0}
    found = page(tmp_path, [trial(3, 0, 1.0, costs=costs, settings=settings)], x=x, y_unit="nats")
    layout = found.data["scatter"]["layout"]
    assert layout["xaxis"]["title"]["text"] == title
    assert layout["yaxis"]["title"]["text"] == "kl (nats)"
    assert found.data["trials"][0]["at"][0] == pytest.approx(first)


def test_positive_metrics_stand_on_a_logarithmic_axis(tmp_path: Path) -> None:
    assert page(tmp_path).data["scatter"]["layout"]["yaxis"]["type"] == "log"
    below = [*TRIALS, trial(8, 6e6, -0.1)]
    assert "type" not in page(tmp_path, below).data["scatter"]["layout"]["yaxis"]
    assert "type" not in page(tmp_path, [trial(1, 1.0, 0.0)]).data["scatter"]["layout"]["yaxis"]


def test_costs_that_span_much_stand_on_a_logarithmic_axis(tmp_path: Path) -> None:
    assert "type" not in page(tmp_path).data["scatter"]["layout"]["xaxis"]
    axis = page(tmp_path, [*TRIALS, trial(8, 3e7, 0.01)]).data["scatter"]["layout"]["xaxis"]
    assert axis["type"] == "log"
    assert axis["ticktext"] == ["1", "2", "5", "10", "20"]  # MB


def test_exact_zeros_have_a_line_of_their_own_below_all_others(tmp_path: Path) -> None:
    data = page(tmp_path, [*TRIALS, trial(8, 9e6, 0.0, 0.0)], (3, 7, 8)).data
    axis = data["scatter"]["layout"]["yaxis"]
    place = data["trials"][-1]["at"][1]
    assert data["trials"][-1]["y"] == 0.0
    assert axis["type"] == "log"
    assert 0 < place < min(t["at"][1] for t in data["trials"][:-1])
    assert axis["ticktext"][axis["tickvals"].index(place)] == "0"
    assert [axis["ticktext"][axis["tickvals"].index(v)] for v in (0.1, 1)] == ["0.1", "1"]


def test_what_users_wrote_stays_text(tmp_path: Path) -> None:
    hostile = trial(
        4, 1e6, 0.3, solver=HOSTILE, schemes={HOSTILE: "w4"},
        metrics={HOSTILE: Estimate(0.3, NAN, 1)}, costs={HOSTILE: 2.0},
        settings={"budgets": [HOSTILE]},
    )  # fmt: skip
    layers = [Layer(HOSTILE, HOSTILE, 2, 3, shares=HOSTILE)]
    names: dict[str, Any] = {"x": HOSTILE, "y": HOSTILE, "y_unit": HOSTILE, "study": HOSTILE}
    plain, found = page(tmp_path), page(tmp_path, [hostile], [4], layers=layers, **names)
    assert {tag for tag, _ in found.starts} == {tag for tag, _ in plain.starts}
    assert len(found.inside["script"]) == len(plain.inside["script"]) == 3
    assert found.inside["h1"][0].strip() == HOSTILE
    assert found.inside["title"][0].startswith(HOSTILE)
    assert found.rows[0]["budgets"] == HOSTILE
    data = found.data
    assert (data["x"], data["layers"]) == (HOSTILE, [HOSTILE])
    scatter = data["scatter"]
    for read_by_plotly in (
        data["hovers"][0],
        data["labels"][0],
        scatter["data"][1]["hovertext"][0],
        scatter["layout"]["xaxis"]["title"]["text"],
        scatter["layout"]["yaxis"]["title"]["text"],
    ):
        assert re.sub(r"</?b>|<br>", "", read_by_plotly).count("<") == 0


def test_long_layer_names_are_shortened_on_the_axis_only(tmp_path: Path) -> None:
    names = ["lm_head", "model.layers.10.self_attn.q_proj", "x" * 50]
    data = page(tmp_path, [trial(1, 1.0, 1.0, schemes=dict.fromkeys(names, "w4"))]).data
    assert data["layers"] == names
    assert data["labels"] == ["lm_head", "…10.self_attn.q_proj", "…" + "x" * 19]


def test_the_page_asks_the_network_for_nothing(tmp_path: Path) -> None:
    found = page(tmp_path)
    for tag, attributes in found.starts:
        assert tag not in {"link", "iframe", "img", "base"}
        assert not {"src", "href", "action"} & attributes.keys()
    (policy,) = [a["content"] for _, a in found.starts if "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "newPlot" in found.inside["script"][1]  # plotly.js itself


def test_the_script_finds_what_it_asks_for(tmp_path: Path) -> None:
    found = page(tmp_path)
    script = found.inside["script"][2]
    ids = {attributes["id"] for _, attributes in found.starts if "id" in attributes}
    assert set(re.findall(r'get\("([^"]+)"\)', script)) <= ids
    assert set(re.findall(r"\bdata\.([a-z_]+)", script)) <= found.data.keys()
    assert set(re.findall(r"\btrial\.([a-z_]+)", script)) <= found.data["trials"][0].keys()
    numbers = [a["data-trial"] for tag, a in found.starts if "data-trial" in a]
    assert numbers == ["3", "7"]


def test_trials_without_the_figures_are_left_out(tmp_path: Path) -> None:
    metrics = {"nll": Estimate(1.0, 0.1, 9)}
    partial = [trial(1, 1.0, NAN), trial(2, 2.0, 1.0, metrics=metrics), trial(4, NAN, 1.0)]
    shown = page(tmp_path, [*partial, *TRIALS], (1, 2, 3, 4, 7))
    assert [t["id"] for t in shown.data["trials"]] == [3, 7, 5]
    assert "2 of 3 trials" in shown.text
    for trials in (partial, []):
        with pytest.raises(InvalidInput, match="'s' has no trial with finite bytes and kl"):
            page(tmp_path, trials)


def test_unknown_figures_are_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="cost 'size': there are bits, bops, bytes"):
        page(tmp_path, x="size")
    with pytest.raises(UnknownName, match="metric 'loss': there are kl, top1"):
        page(tmp_path, y="loss")
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = page(tmp_path).text

    def fail(*args: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        page(tmp_path, study="new")
    assert [p.read_text(encoding="utf-8") for p in tmp_path.iterdir()] == [old]
    with pytest.raises(FileNotFoundError):
        page(tmp_path / "missing")
