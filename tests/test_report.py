"""The report of a study: what it says against the database, and against literal computations."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitfront
from bitfront.agreement import agreement
from bitfront.errors import UnknownName
from bitfront.heldout import sides
from bitfront.rebuilding import rebuilt
from bitfront.roles import shares, totals
from bitfront.sensitivity import PROFILERS, fisher
from bitfront.storage import Store
from bitfront.types import Estimate, Layer, Measurement, Sensitivities, Trial
from tests.pages import HOSTILE, Page
from tests.small_tasks import convolutional

NAN = math.nan
METRICS = {"kl": {"unit": "nats", "better": "lower"}, "top1": {"unit": "share", "better": "higher"}}
OTHER = fisher.Fisher(temperatures=(1.0, 4.0))


def page(study: str, folder: Path, db: Path, **options: Any) -> Page:
    bitfront.report(study, folder / "out.html", db=db, **options)
    assert os.listdir(folder) == ["out.html"]
    return Page((folder / "out.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was profiled in four ways and searched, with refinement."""
    path = tmp_path_factory.mktemp("study") / "b.db"
    with bitfront.open_study("s", convolutional(), path) as study:
        bitfront.search(study, "w2 w4 w8", ["4bpw", "6bpw"])
        for profiler in (OTHER, "mse", "perturb"):
            bitfront.profile(study, "w2 w4", profiler)
    return path


@pytest.fixture(scope="module")
def real(db: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page("s", tmp_path_factory.mktemp("page"), db)


Make = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """Records a study from its parts; gives the database."""

    def make(
        name: str = "s",
        layers: Any = (),
        measurements: Any = (),
        trials: Any = (),
        metrics: Any = METRICS,
    ) -> Path:
        path = tmp_path / "b.db"
        settings = {"metrics": metrics, "layers": [vars_of(layer) for layer in layers]}
        with Store.open(path) as store:
            study = store.open_study(name, {"weights": "1"}, settings)
            store.add_measurements(study, measurements)
            for t in trials:
                store.add_trial(study, t)
        return path

    return make


def vars_of(layer: Layer) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in Layer.__dataclass_fields__}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def recorded(db: Path, profiler: str) -> list[Measurement]:
    with Store.open(db) as store:
        return store.measurements(store.study("s"), profiler)


def table(page: Page, name: str) -> dict[str, Any]:
    return next(t for t in page.data["tables"] if t["name"] == name)


def test_every_profiler_and_setting_has_tables_under_its_own_name(db: Path, real: Page) -> None:
    other = f"fisher #{OTHER.settings_key[:6]}"
    names = [t["name"] for t in real.data["tables"]]
    assert len(set(names)) == len(names)
    assert {n.partition(":")[0] for n in names} == {"fisher", other, "mse", "perturb"}
    assert {n for n in names if n.startswith(other)} == {
        f"{other}: {kind}@{T}" for kind in ("sample", "element") for T in (1, 4)
    }
    assert recorded(db, "around")  # expansions of refinement: there, and in no table
    assert "around" not in PROFILERS


def test_sensitivities_are_those_recorded(db: Path, real: Page) -> None:
    data = real.data
    cases = [
        ("mse", "mse", "mse"),
        ("perturb", "perturb", "kl"),
        ("fisher: sample@2", "fisher", "sample@2"),
    ]
    for name, profiler, value in cases:
        shown, count = table(real, name), 0
        measured = [m for m in recorded(db, profiler) if value in m.values]
        default = PROFILERS[profiler]().settings_key
        for m in (m for m in measured if m.settings == default):
            at = data["layers"].index(m.layer), shown["schemes"].index(m.scheme)
            assert shown["values"][at[0]][at[1]] == m.values[value].value
            assert shown["stderr"][at[0]][at[1]] == m.values[value].stderr
            assert shown["samples"] == m.values[value].samples == 12
            count += 1
        assert count == sum(v is not None for row in shown["values"] for v in row) > 0
    assert table(real, "fisher: sample@2")["schemes"] == ["w2", "w4", "w8"]
    assert table(real, "mse")["unit"] == ""
    assert table(real, "perturb")["unit"] == "nats"


def test_tables_are_those_that_the_profilers_made(db: Path, real: Page) -> None:
    with bitfront.open_study("s", convolutional(), db) as study:
        own = bitfront.profile(study, "w2 w4", OTHER)
    shown = [t for t in real.data["tables"] if "#" in t["name"]]
    assert shown[0]["name"].endswith(next(iter(own)))  # the most trustworthy one first
    for t in shown:
        given = own[t["name"].partition(": ")[2]]
        assert real.data["layers"] == list(given.layers)  # the model's order
        assert np.array_equal(t["values"], given.values)


def test_what_was_measured_alone_stands_beside_estimates(db: Path, real: Page) -> None:
    data, found = real.data, 0
    for m in recorded(db, "perturb"):
        estimate = m.values["kl"]
        i = data["layers"].index(m.layer)
        assert data["measured"][m.scheme][i] == [estimate.value, estimate.stderr]
        found += 1
    assert found == sum(v is not None for column in data["measured"].values() for v in column)


def test_ranks_inside_the_noise_are_marked(real: Page) -> None:
    marked = 0
    for t in real.data["tables"]:
        for j, _ in enumerate(t["schemes"]):
            rows = [i for i, row in enumerate(t["values"]) if row[j] is not None]
            order = sorted(rows, key=lambda i: t["values"][i][j])
            doubtful = set()
            for a, b in pairwise(order):
                joint = math.hypot(t["stderr"][a][j], t["stderr"][b][j])
                if t["values"][b][j] - t["values"][a][j] < joint:
                    doubtful |= {a, b}
            assert {i for i, row in enumerate(t["inside_noise"]) if row[j]} == doubtful
            marked += len(doubtful)
    assert marked


def test_shares_are_of_the_whole(real: Page) -> None:
    for t in real.data["tables"]:
        assert set(t["shares"]["role"]) == {"body", "head"}
        assert set(t["shares"]["kind"]) == {"conv2d", "linear"}
        assert set(t["shares"]["class"]) == {"convolution", "other"}
        for j, _ in enumerate(t["schemes"]):
            column = [max(row[j] or 0.0, 0.0) for row in t["values"]]
            assert t["totals"][j] == pytest.approx(sum(column))
            of_kind = [
                sum(v for v, k in zip(column, real.data["kinds"], strict=True) if k == kind)
                for kind in t["shares"]["kind"]
            ]
            shown = [share[j] for share in t["shares"]["kind"].values()]
            assert shown == pytest.approx([v / sum(column) for v in of_kind])


def sensitivities(values: Any, schemes: tuple[str, ...] = ("w2", "w4")) -> Sensitivities:
    layers = tuple(f"layer{i}" for i in range(len(values)))
    return Sensitivities("kl", layers, schemes, values, np.zeros_like(values), 1)


def test_shares_without_a_total_are_not_known() -> None:
    t = sensitivities(np.array([[0.0, 3.0], [-1.0, 1.0], [NAN, -9.0]]))
    assert totals(t).tolist() == [0.0, 4.0]
    found = shares(t, ["a", "b", "a"])
    assert list(found) == ["a", "b"]
    assert np.array_equal(found["a"], [NAN, 0.75], equal_nan=True)
    assert np.array_equal(found["b"], [NAN, 0.25], equal_nan=True)


def literal_correlation(x: list[float], y: list[float]) -> float:
    def ranks(v: list[float]) -> list[float]:
        return [sum(b < a for b in v) + (sum(b == a for b in v) + 1) / 2 for a in v]

    p, q = ranks(x), ranks(y)
    mean = (len(x) + 1) / 2
    covariance = sum((a - mean) * (b - mean) for a, b in zip(p, q, strict=True))
    spread = math.prod(sum((a - mean) ** 2 for a in r) for r in (p, q))
    return covariance / math.sqrt(spread)


def test_agreement_is_over_common_pairs() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 5, (7, 2)).astype(float)  # with ties
    noisy = np.where(rng.random(values.shape) < 0.3, NAN, values + rng.normal(0, 1, values.shape))
    tables = [
        sensitivities(values),
        sensitivities(noisy[:, ::-1], ("w4", "w2")),
        sensitivities(values[:5, :1], ("w8",)),
        sensitivities(np.full((7, 2), 0.5)),
        sensitivities(values[:1]),
    ]
    rho, pairs = agreement(tables)
    common = np.isfinite(noisy)
    assert pairs[0].tolist() == [14, common.sum(), 0, 14, 2]
    assert np.array_equal(pairs, pairs.T)
    expected = literal_correlation(values[common].tolist(), noisy[common].tolist())
    assert rho[0, 1] == rho[1, 0] == pytest.approx(expected)
    assert rho[0, 0] == pytest.approx(1)
    for a, b in ((0, 2), (0, 3), (3, 3), (0, 4)):  # nothing common, no order, too few
        assert math.isnan(rho[a, b])


def test_the_page_has_the_matrix_of_agreement(real: Page) -> None:
    trace, tables = real.data["agreement"]["data"][0], real.data["tables"]
    assert trace["x"] == trace["y"] == [t["name"] for t in tables]

    def pairs(t: Mapping[str, Any]) -> dict[tuple[str, str], float]:
        return {
            (layer, scheme): value
            for layer, row in zip(real.data["layers"], t["values"], strict=True)
            for scheme, value in zip(t["schemes"], row, strict=True)
            if value is not None
        }

    for a, one in enumerate(map(pairs, tables)):
        for b, two in enumerate(map(pairs, tables)):
            common = [pair for pair in one if pair in two]
            rho = literal_correlation([one[p] for p in common], [two[p] for p in common])
            assert trace["z"][a][b] == pytest.approx(rho)
            assert trace["text"][a][b] == f"{trace['z'][a][b]:.3f}<br>{len(common)} pairs"


def test_agreement_on_too_few_pairs_is_not_known(made: Make, out: Path) -> None:
    measured = [
        *(measurement(layer, mse=(value, 0.1)) for layer, value in (("a", 1.0), ("b", 2.0))),
        measurement("a", profiler="perturb", kl=(1.0, 0.1)),
    ]
    trace = page("s", out, made(measurements=measured)).data["agreement"]["data"][0]
    assert sorted(trace["x"]) == ["mse", "perturb"]
    both = trace["x"].index("mse")
    for a, row in enumerate(trace["text"]):
        for b, text in enumerate(row):
            assert text == ("–<br>2 pairs" if a == b == both else "–<br>1 pair")


def test_the_front_has_predicted_and_measured_side_by_side(db: Path, real: Page) -> None:
    found = bitfront.front("s", db=db)
    best = [found.trials[i] for i in found.best]
    assert [row["trial"] for row in real.rows] == [str(t.id) for t in best]
    for row, trial in zip(real.rows, best, strict=True):
        assert row["predicted kl"] == f"{trial.predicted:.4g}"
        for column, name in (("calibration kl", "calibration/kl"), ("evaluation kl", "kl")):
            assert row[column].startswith(f"{trial.metrics[name].value:.4g}")
            assert row[column].endswith(" nats")
    dominated, front = real.data["scatter"]["data"]
    assert front["y"][:-1] == [t.metrics["kl"].value for t in best[:-1]]  # the last: an exact zero
    assert len(dominated["x"]) == len(found.trials) - len(best)
    symbols = ["diamond" if t.id == found.knee_id else "circle" for t in best]
    assert front["marker"]["symbol"] == symbols
    assert set(dominated["marker"]["symbol"]) <= {"circle"}
    assert ("the diamond is its knee" in real.text) == ("diamond" in symbols)


def test_another_metric(db: Path, tmp_path: Path) -> None:
    found = page("s", tmp_path, db, metric="agreement")
    assert table(found, "perturb")["metric"] == "agreement"
    assert table(found, "fisher: sample@2")["metric"] == "kl"  # it has none of agreement
    assert "evaluation agreement" in found.rows[0]


@pytest.mark.parametrize(
    ("calibration", "evaluation", "better", "expected"),
    [
        ((1.0, 0.3), (2.1, 0.4), "lower", True),  # 1.1 is more than twice 0.5
        ((1.0, 0.3), (1.9, 0.4), "lower", False),
        ((2.1, 0.3), (1.0, 0.4), "lower", False),  # better is no cause to worry
        ((2.1, 0.3), (1.0, 0.4), "higher", True),
        ((1.0, 0.3), (2.1, 0.4), "higher", False),
        ((0.0, 0.0), (0.0, 0.0), "lower", False),
        ((1.0, NAN), (9.0, 0.1), "lower", False),
        (None, (9.0, 0.1), "lower", False),
        ((1.0, 0.1), None, "lower", False),
    ],
)
def test_sides_part_beyond_twice_their_joint_error(
    calibration: tuple[float, float] | None,
    evaluation: tuple[float, float] | None,
    better: str,
    expected: bool,
) -> None:
    for name, other in (("evaluation", "top1"), ("held-back", "held-back/top1")):
        given = {"calibration/top1": calibration, other: evaluation}
        metrics = {name: Estimate(*v, 9) for name, v in given.items() if v is not None}
        assert sides(trial(metrics), "top1", better).part == ((name,) if expected else ())


def trial(metrics: Mapping[str, Estimate], **changes: Any) -> Trial:
    parts: dict[str, Any] = {
        "schemes": {"a": "w4"}, "solver": "ilp", "predicted": 1.0, "bound": 0.0,
        "costs": {"bytes": 100.0}, "metrics": metrics, "seconds": 1.0,
    }  # fmt: skip
    return Trial(**{**parts, **changes})


def both(calibration: float, evaluation: float, stderr: float = 0.1) -> dict[str, Estimate]:
    return {
        "calibration/kl": Estimate(calibration, stderr, 9),
        "kl": Estimate(evaluation, stderr, 9),
    }


def test_the_warning_names_the_fronts_trials_that_part(made: Make, out: Path) -> None:
    quiet = trial(both(1.0, 1.2), schemes={"a": "w2"}, costs={"bytes": 1.0})
    parted = trial(both(0.1, 0.9))
    dominated = trial(both(0.1, 5.0), schemes={"a": "w8"}, costs={"bytes": 900.0})
    shown = page("s", out, made(trials=[quiet, parted, dominated]))
    assert "Trial 2: evaluation kl is above calibration kl" in shown.text
    assert [row["warning"] for row in shown.rows] == ["", "evaluation is worse"]


def test_there_is_no_warning_where_both_sides_agree(made: Make, out: Path) -> None:
    shown = page("s", out, made(trials=[trial(both(1.0, 1.2))]))
    assert "surer" not in shown.text
    assert "warning" not in shown.rows[0]
    assert '<p class="warning">' not in shown.text


def test_accuracy_parts_when_it_is_lower(made: Make, out: Path) -> None:
    metrics = {"calibration/top1": Estimate(0.9, 0.01, 9), "top1": Estimate(0.5, 0.01, 9)}
    shown = page("s", out, made(trials=[trial(metrics)]), metric="top1")
    assert "evaluation top1 is below calibration top1" in shown.text


def measurement(
    layer: str, scheme: str = "w4", profiler: str = "mse", **values: Any
) -> Measurement:
    """values: name -> (value, standard error)."""
    estimates = {name: Estimate(v[0], v[1], 9) for name, v in values.items()}
    return Measurement(profiler, PROFILERS[profiler]().settings_key, layer, scheme, estimates)


def test_what_users_wrote_stays_text(made: Make, out: Path, real: Page) -> None:
    layer = Layer(HOSTILE, HOSTILE, 2, 3, role=HOSTILE)
    measured = [
        measurement(HOSTILE, mse=(1.0, 0.1)),
        replace(measurement(HOSTILE, profiler="perturb"), values={HOSTILE: Estimate(2.0, 0.1, 9)}),
        measurement("beyond", mse=(3.0, 0.1)),
    ]
    metrics = {HOSTILE: Estimate(0.9, 0.01, 9), "calibration/" + HOSTILE: Estimate(0.1, 0.01, 9)}
    hostile = trial(metrics, solver=HOSTILE, settings={"budgets": [HOSTILE], "table": HOSTILE})
    database = made(HOSTILE, [layer], measured, [hostile], {HOSTILE: {"unit": HOSTILE}})
    found = page(HOSTILE, out, database, metric=HOSTILE)
    assert {tag for tag, _ in found.starts} <= {tag for tag, _ in real.starts}
    assert len(found.inside["script"]) == len(real.inside["script"]) == 3
    assert found.inside["h1"][0].strip() == HOSTILE
    assert found.inside["title"][0].startswith(HOSTILE)
    assert found.rows[0]["budgets"] == HOSTILE
    data = found.data
    assert data["layers"] == [HOSTILE, "beyond"]
    assert data["kinds"] == [HOSTILE, "not known"]
    assert data["measured"]["w4"] == [[2.0, 0.1], None]
    for read_by_plotly in (
        data["hovers"][0],
        data["labels"][0],
        *data["agreement"]["data"][0]["x"],
        data["scatter"]["data"][1]["hovertext"][0],
        data["scatter"]["layout"]["yaxis"]["title"]["text"],
    ):
        assert re.sub(r"</?b>|<br>", "", read_by_plotly).count("<") == 0


def test_values_that_are_not_numbers_or_not_positive(made: Make, out: Path) -> None:
    values = {"a": (-1.0, NAN), "b": (0.0, 0.0), "c": (NAN, NAN), "d": (NAN, 0.1)}
    measured = [measurement(layer, mse=v) for layer, v in values.items()]
    [shown] = page("s", out, made(measurements=measured)).data["tables"]
    assert shown["values"] == [[-1.0], [0.0]]  # layers without any value are left out
    assert shown["stderr"] == [[None], [0.0]]
    assert shown["colors"] == {}
    assert shown["shares"]["role"] == {"not known": [None]}


def test_a_table_of_one_value_has_colours(made: Make, out: Path) -> None:
    [shown] = page("s", out, made(measurements=[measurement("a", mse=(0.5, 0.1))])).data["tables"]
    low, high = shown["colors"]["range"]
    assert low < math.log10(0.5) < high
    assert "0.5" in shown["colors"]["text"]


def test_schemes_stand_from_narrow_to_wide() -> None:
    measured = [measurement("a", s, mse=(1.0, 0.1)) for s in ("w8", "bf16", "w2", "w4a8")]
    [found] = rebuilt(measured, (), "kl", METRICS)
    assert found.name == "mse"
    assert found.table.schemes == ("w2", "w4a8", "w8", "bf16")


def sections(page: Page) -> dict[str, bool]:
    """Section -> whether it is hidden."""
    return {str(a["id"]): "hidden" in a for tag, a in page.starts if tag == "section"}


def test_what_is_missing_is_said(made: Make, out: Path, real: Page) -> None:
    assert [name for name, hidden in sections(real).items() if hidden] == ["parts"]
    empty = page("s", out, made())
    assert set(sections(empty).values()) == {True}
    assert "No sensitivities are recorded: bitfront profile s measures them." in empty.text
    assert "No trials are recorded: bitfront search s measures them." in empty.text
    assert (empty.data["tables"], empty.data["scatter"]) == ([], None)
    assert "td" not in empty.inside


def test_measurements_without_trials_and_trials_without_measurements(made: Make, out: Path) -> None:
    profiled = page("s", out, made(measurements=[measurement("a", mse=(1.0, 0.1))]))
    assert sections(profiled) == {
        "sensitivities": False, "roles": False, "parts": True, "agreement": True, "front": True,
    }  # fmt: skip
    searched = page("t", out, made("t", trials=[trial(both(1.0, 1.0))]))
    assert sections(searched) == {
        "sensitivities": True, "roles": True, "parts": True, "agreement": True, "front": False,
    }  # fmt: skip
    looked_at = trial({"calibration/kl": Estimate(1.0, 0.1, 9)})
    without = page("u", out, made("u", trials=[looked_at]))
    assert sections(without)["front"]
    assert "None of the 1 trials has bytes and evaluation kl." in without.text


def test_the_page_asks_the_network_for_nothing(real: Page) -> None:
    for tag, attributes in real.starts:
        assert tag not in {"link", "iframe", "img", "base"}
        assert not {"src", "href", "action"} & attributes.keys()
    (policy,) = [a["content"] for _, a in real.starts if "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_the_script_finds_what_it_asks_for(real: Page) -> None:
    script = real.inside["script"][2]
    ids = {attributes["id"] for _, attributes in real.starts if "id" in attributes}
    assert set(re.findall(r'get\("([^"]+)"\)', script)) <= ids
    assert set(re.findall(r"\bdata\.([a-z_]+)", script)) <= real.data.keys()
    assert set(re.findall(r"\btable\.([a-z_]+)", script)) <= real.data["tables"][0].keys()


def test_refusals_leave_the_page_as_it_was(
    made: Make, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = made()
    old = page("s", out, database).text
    with pytest.raises(UnknownName, match="no study named 'other'"):
        bitfront.report("other", out / "out.html", db=database)
    with pytest.raises(UnknownName, match="no metric 'loss' in 's': it has kl, top1"):
        bitfront.report("s", out / "out.html", metric="loss", db=database)
    with pytest.raises(FileNotFoundError):
        bitfront.report("s", out / "missing" / "out.html", db=database)

    def fail(*args: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        bitfront.report("s", out / "out.html", db=database)
    assert [p.read_text(encoding="utf-8") for p in out.iterdir()] == [old]
