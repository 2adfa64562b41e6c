"""Scores of others in a study: mapped to its layers, recorded once, searched by."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bitfront
from bitfront.errors import BitfrontError, BitfrontWarning, Infeasible, InvalidInput, UnknownName
from bitfront.importers import Score, Scores, mapped, read
from bitfront.pipeline import Choices
from bitfront.scheme import Scheme
from bitfront.sensitivity.imported import Imported
from bitfront.study import Study
from bitfront.types import Layer
from tests import tiny
from tests.imports import ATTENTION, GOLDEN, LAYERS, measurement, table, task, written

KL = GOLDEN / "modelopt_kl.pt"


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    with bitfront.open_study("s", task(), tmp_path / "b.db") as study:
        yield study


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    return written(tmp_path / "scores.csv", table())


def recorded(study: Study, label: str) -> dict[tuple[str, str], float]:
    """(layer, scheme) -> value."""
    found = study.measurements("imported", Imported(label).settings_key)
    return {pair: value.value for pair, m in found.items() for value in m.values.values()}


def quiet(study: Study, **settings: Any) -> list[bitfront.Answer]:
    """A search that measures as little as it can."""
    wanted = {"schemes": "w3 w8", "budgets": ["5bpw"], "verify": False, "explore": 0, **settings}
    return bitfront.search(study, profiler=Imported(), **wanted)


# ---------------------------------------------------------------- what is recorded


def test_a_score_of_several_layers_is_shared_out_by_their_weights(study: Study) -> None:
    found = bitfront.import_scores(study, KL)
    values = recorded(study, found.label)
    assert set(values) == {(layer, s) for layer in LAYERS for s in ("w3g8", "w8")}
    for entry in read([KL])[1].scores:
        parts = [values[layer, str(entry.scheme)] for layer in entry.layers]
        assert math.fsum(parts) == pytest.approx(entry.value, rel=1e-12)
        assert len(set(parts)) == 1  # these are of one size
    assert (found.found.shared, found.new, found.pairs) == (4, 16, 16)
    assert found.without == ()


def test_the_same_file_again_records_nothing(study: Study, scores: Path) -> None:
    first, again = (bitfront.import_scores(study, scores) for _ in range(2))
    assert (first.new, again.new) == (16, 0)
    assert first.label == again.label
    before = study.store.measurements(study.record)
    bitfront.import_scores(study, scores)
    assert [m.values for m in study.store.measurements(study.record)] == [m.values for m in before]


def test_another_file_is_another_import(study: Study, scores: Path, tmp_path: Path) -> None:
    other = written(tmp_path / "other.csv", table("w2 w8"))
    first, second = (bitfront.import_scores(study, path) for path in (scores, other))
    assert first.label != second.label
    named = bitfront.import_scores(study, scores, label="mine")
    assert (named.label, named.new) == ("mine", 16)
    with pytest.raises(InvalidInput, match="has other scores under the label 'mine': give another"):
        bitfront.import_scores(study, other, label="mine")
    less = written(tmp_path / "less.csv", table("w3"))
    with pytest.raises(InvalidInput, match="has other scores under the label 'mine'"):
        bitfront.import_scores(study, less, label="mine")
    worse = written(tmp_path / "unit.csv", table(metric="loss"))
    with pytest.raises(InvalidInput, match="has other scores under the label 'mine'"):
        bitfront.import_scores(study, worse, label="mine")


def test_an_import_that_was_killed_left_nothing_and_goes_on(
    study: Study, scores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(study.store, "_count_measurements", killed)  # within the transaction
        with pytest.raises(KeyboardInterrupt):
            bitfront.import_scores(study, scores)
    assert study.store.measurements(study.record) == []
    assert bitfront.import_scores(study, scores).new == 16


@pytest.mark.parametrize("label", ["", "1st", "a b", "a/b", "x" * 65, "@"])
def test_labels_that_are_none(study: Study, scores: Path, label: str) -> None:
    with pytest.raises(InvalidInput, match="label"):
        bitfront.import_scores(study, scores, label=label)


def test_sums_of_kl_become_means(study: Study) -> None:
    sums = bitfront.import_scores(study, KL)
    means = bitfront.import_scores(study, KL, per=72)
    assert (sums.metric, means.metric) == ("kl-sum", "kl")
    a, b = recorded(study, sums.label), recorded(study, means.label)
    assert {pair: value / 72 for pair, value in a.items()} == pytest.approx(b)
    with pytest.raises(
        InvalidInput, match=r"per 72 for scores of modelopt-gradient.*: leave it out"
    ):
        bitfront.import_scores(study, GOLDEN / "modelopt_gradient.pt", per=72)
    with pytest.raises(InvalidInput, match="per 0: give at least 1"):
        bitfront.import_scores(study, KL, per=0)


def test_mean_kl_of_modelopt_is_what_perturb_measures(study: Study) -> None:
    """Of the head, where its scales and ours make the same of KL but for some 0.2 %."""
    found = bitfront.import_scores(study, KL, per=3 * 24)  # batches, positions of each
    measured = bitfront.profile(study, "w3g8", "perturb")["kl"].at("head", "w3g8")
    assert recorded(study, found.label)["head", "w3g8"] == pytest.approx(measured, rel=0.02)


def test_autorounds_scores_of_a_real_llama(tmp_path: Path) -> None:
    files = [GOLDEN / f"autoround_{name}.json" for name in ("w4g8", "w8a8", "mxfp4")]
    with bitfront.open_study("l", tiny.language_task(tmp_path), tmp_path / "b.db") as study:
        found = bitfront.import_scores(study, files)
        assert (found.metric, found.new, found.schemes) == ("delta-loss", 28, ("w4g8", "w8a8"))
        assert list(found.found.formats.values()) == [14]
        data = json.loads(files[0].read_text())["layer_scores"]
        values = recorded(study, found.label)
        assert {n: v[1] for n, v in data.items()} == {n: values[n, "w4g8"] for n in data}
        (answer,) = bitfront.search(study, "w4g8 w8a8", ["6bpw"], profiler="imported", explore=0)
        assert set(answer.trial.schemes.values()) == {"w4g8", "w8a8"}


def test_exllamav2s_measurement_in_a_study(study: Study, tmp_path: Path) -> None:
    found = bitfront.import_scores(study, written(tmp_path / "measurement.json", measurement()))
    assert found.schemes == ("w4g8+gptq:act", "w8g8+gptq:act")
    assert found.without == ("head",)
    assert dict(found.found.formats) == {
        "several widths within a matrix": 1, "matrices of a sublayer in different formats": 1,
    }  # fmt: skip
    values = recorded(study, found.label)
    of_attention = math.fsum(values[layer, "w4g8+gptq:act"] for layer in ATTENTION)
    assert of_attention == pytest.approx(0.05**2)
    assert found.found.untied == 4  # o_proj shares no scheme with q, k, v here
    answers = quiet(
        study, schemes=" ".join(found.schemes), choices=Choices(exclude=("head",)), verify=True
    )
    assert set(answers[0].trial.schemes.values()) <= set(found.schemes)


def test_mlx_lms_sensitivities_are_for_each_million_weights(study: Study, tmp_path: Path) -> None:
    path = written(tmp_path / "s.json", [[layer, 100.0] for layer in LAYERS])
    found = bitfront.import_scores(study, path, schemes="w3g8z w8g8z")
    values = recorded(study, found.label)
    assert values["head", "w3g8z"] == pytest.approx(100 * 5 * 16 / 1e6)
    assert values["block.mlp.up_proj", "w3g8z"] == pytest.approx(100 * 24 * 16 / 1e6)
    assert {v for (_, s), v in values.items() if s == "w8g8z"} == {0.0}
    with pytest.raises(
        InvalidInput, match=r"64 does not divide 16 inputs\): import scores of schemes"
    ):
        bitfront.import_scores(study, path)


# ---------------------------------------------------------------- names


def layers(*names: str, kind: str = "linear") -> list[Layer]:
    return [Layer(name, kind, 4, 8 * (i + 1)) for i, name in enumerate(names)]


def of(*scores: Score, **more: Any) -> Scores:
    return Scores("kl", "", scores, **more)


W4, W8 = Scheme.parse("w4"), Scheme.parse("w8")


def test_names_of_parts_are_names_of_layers() -> None:
    found = mapped(
        of(Score(("a.weight_quantizer",), W4, 1.0), Score(("b.weight",), W4, 2.0)),
        layers("a", "b"), [], lambda _: {},
    )  # fmt: skip
    assert {pair: v.value for pair, v in found.values.items()} == {("a", "w4"): 1, ("b", "w4"): 2}


def test_a_prefix_of_all_names_is_left_out_where_it_must_be() -> None:
    scores = of(Score(("module.net.a",), W4, 1.0), Score(("module.net.b",), W4, 2.0))
    found = mapped(scores, layers("a", "b"), [], lambda _: {})
    assert (found.prefix, len(found.values)) == ("module.net.", 2)
    found = mapped(scores, layers("module.net.a", "b"), [], lambda _: {})
    assert (found.prefix, found.unknown) == ("", ("module.net.b",))


def test_an_entry_of_a_layer_that_is_not_there_is_left_out_whole() -> None:
    scores = of(Score(("a", "gone"), W4, 1.0), Score(("b",), W4, 2.0))
    found = mapped(scores, layers("a", "b"), [], lambda _: {})
    assert (set(found.values), found.unknown) == ({("b", "w4")}, ("gone",))


def test_shares_follow_weights_and_have_no_error() -> None:
    scores = of(Score(("a", "b"), W4, 3.0, 0.5, 7), Score(("a",), W8, 1.0, 0.25, 7))
    found = mapped(scores, layers("a", "b"), [("a", "b")], lambda _: {})
    assert [found.values[n, "w4"].value for n in "ab"] == [1.0, 2.0]  # of 32 and 64 weights
    assert math.isnan(found.values["a", "w4"].stderr)
    assert (found.values["a", "w8"].stderr, found.values["a", "w8"].samples) == (0.25, 7)
    assert (found.shared, found.untied) == (1, 0)
    assert mapped(scores, layers("a", "b"), [], lambda _: {}).untied == 1


def test_experts_are_all_that_a_name_stands_for() -> None:
    names = [f"moe.experts.{i}.{w}" for i in range(2) for w in ("w1", "w2")]
    every = ("moe.experts.*.w1", "moe.experts.*.w2")
    found = mapped(of(Score(every, W4, 8.0)), layers(*names), [], lambda _: {})
    assert {layer for layer, _ in found.values} == set(names)
    assert math.fsum(v.value for v in found.values.values()) == pytest.approx(8.0)


def test_groups_of_a_convolutions_kernel_are_not_ours() -> None:
    scores = of(
        Score(("a",), Scheme.parse("w4g8"), 1.0), Score(("a",), W4, 2.0), last_axis=True
    )  # fmt: skip
    found = mapped(scores, layers("a", kind="conv2d"), [], lambda _: {})
    assert set(found.values) == {("a", "w4")}
    assert list(found.barred.values()) == [1]
    with pytest.raises(InvalidInput, match=r"take none of the schemes \(scales of a transposed"):
        mapped(scores, layers("a", kind="conv_transpose2d"), [], lambda _: {})


def test_scores_that_are_too_large_in_all_are_refused() -> None:
    large = [Layer("a", "linear", 4096, 4096)]
    with pytest.raises(InvalidInput, match=r"the score of layer 'a' under w4 is inf, in all: give"):
        mapped(of(Score(("a",), W4, 1e308), per_million=True), large, [], lambda _: {})


def test_two_scores_of_a_pair_have_to_agree() -> None:
    twice = (Score(("a",), W4, 1.0), Score(("a.weight",), W4, 1.0))
    assert len(mapped(of(*twice), layers("a"), [], lambda _: {}).values) == 1
    with pytest.raises(InvalidInput, match=r"'a' has two scores under w4, 1 and 1.5: leave one"):
        mapped(of(*twice, Score(("a",), W4, 1.5)), layers("a"), [], lambda _: {})


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ([], "it has no score: give a file with at least one"),
        ([Score(("x",), W4, 1.0)], "has none of the 1 layers of these scores, like 'x': rename"),
        ([Score(("a",), "int9", 1.0)], "no scheme for any of its formats, like 'int9': import"),
        ([Score(("a",), Scheme.parse("keep"), 0.0)], "it has no score: give"),
        ([Score(("a",), W8, 1.0)], r"can take none of the schemes \(why\): import scores of"),
    ],
)
def test_a_file_of_which_nothing_is_left_is_refused(scores: list[Score], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        mapped(of(*scores), layers("a"), [], lambda _: {("a", "w8"): "why"})


# ---------------------------------------------------------------- searching by them


def test_a_search_goes_by_the_scores_and_runs_no_profiler(
    study: Study, scores: Path, tmp_path: Path
) -> None:
    found = bitfront.import_scores(study, scores)
    (answer,) = quiet(study)
    assert {m.profiler for m in study.store.measurements(study.record)} == {"imported"}
    # 16-weight rows: the cheapest losses go to 3 bits, the dearest (the last in the file) stay at 8
    assert answer.trial.schemes["head"] == "w8"
    values = recorded(study, found.label)
    assert answer.predicted == pytest.approx(
        math.fsum(values[pair] for pair in answer.trial.schemes.items())
    )
    assert answer.unverified == len(LAYERS)
    shown = bitfront.show("s", answer.trial.id, db=tmp_path / "b.db")
    assert {line.name: line.estimated.value for line in shown.lines if line.estimated} == {
        layer: values[layer, s] for layer, s in answer.trial.schemes.items()
    }


def test_scores_of_a_metric_of_the_task_are_verified(study: Study, scores: Path) -> None:
    bitfront.import_scores(study, scores)
    (answer,) = quiet(study, verify=True)
    assert answer.verified
    perturbed = study.store.measurements(study.record, "perturb")
    assert {(m.layer, m.scheme) for m in perturbed} == set(answer.verified)


def test_scores_of_another_unit_never_mix_with_measured_kl(study: Study, tmp_path: Path) -> None:
    path = written(tmp_path / "s.csv", table(metric="loss"))
    bitfront.import_scores(study, path)
    answers = bitfront.search(study, "w3 w8", ["5bpw", "6bpw"], profiler="imported", explore=8)
    for answer in answers:
        assert answer.verified == ()
        assert answer.judged == "kl"
    assert study.store.measurements(study.record, "perturb") == []
    best = bitfront.smallest(study, "w3 w8", "kl<=0.01", profiler="imported", explore=10)
    assert best.value <= 0.01
    assert best.verified == ()
    with pytest.raises(
        InvalidInput, match="imported gives no table of metric 'kl': choose from loss"
    ):
        quiet(study, metric="kl")


def test_pairs_without_a_score_are_no_candidates_and_it_is_said(
    study: Study, tmp_path: Path
) -> None:
    rows = table().replace("head,w3,kl,", "other,w3,kl,")
    found = bitfront.import_scores(study, written(tmp_path / "s.csv", rows))
    assert (found.lacking, found.found.unknown, found.without) == (1, ("other",), ())
    with pytest.warns(
        BitfrontWarning, match="no score of 1 of 16 pairs, like 'head' under w3: they"
    ):
        (answer,) = quiet(study, budgets=["4bpw"])
    assert answer.trial.schemes["head"] == "w8"
    with (
        pytest.warns(BitfrontWarning),
        pytest.raises(Infeasible, match="'head' cannot take w3: import"),
    ):
        quiet(study, budgets=["3bpw"])
    with pytest.warns(BitfrontWarning):
        tables = quiet(study, budgets=["4bpw"], schemes="w2 w3 w8")
    assert "w2" not in tables[0].trial.schemes.values()
    table_of = next(iter(bitfront.profile(study, "w3 w8", "imported").values()))
    assert math.isnan(table_of.at("head", "w3"))


def test_a_layer_without_any_score_is_named_with_the_remedy(study: Study, tmp_path: Path) -> None:
    path = written(tmp_path / "s.csv", table(layers=LAYERS[:-1]))
    assert bitfront.import_scores(study, path).without == ("head",)
    for schemes in ("w3 w8", "w3 w8 keep"):
        with pytest.raises(
            InvalidInput, match="no score of layer 'head' under w3, w8: pin it to keep, "
        ):
            quiet(study, schemes=schemes)
    with pytest.raises(InvalidInput, match="no score of layer 'head'"):
        bitfront.smallest(study, "w3 w8", "kl<=0.1", profiler="imported")
    (pinned,) = quiet(
        study, schemes="w3 w8 keep", choices=Choices(pins={"head": "keep"}), budgets=["6bpw"]
    )
    assert pinned.trial.schemes["head"] == "keep"
    (excluded,) = quiet(study, choices=Choices(exclude=("head",)))
    assert "head" not in excluded.trial.schemes
    with pytest.raises(
        InvalidInput, match=r"layer 'block.*' \(and 7 more\) under w4: .*\(w3, w8\)"
    ):
        quiet(study, schemes="w4")
    with pytest.raises(InvalidInput, match=r"no score of any of the layers under w4: .*: w3, w8"):
        bitfront.profile(study, "w4", "imported")


def test_which_import_has_to_be_said_where_there_are_several(
    study: Study, scores: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="study 's' has no imported scores: import scores with"):
        quiet(study)
    bitfront.import_scores(study, scores, label="one")
    bitfront.import_scores(study, written(tmp_path / "b.csv", table("w2 w8")), label="two")
    with pytest.raises(
        InvalidInput, match=r"has 2 imports: name one with label=one \(there are one, two"
    ):
        quiet(study)
    with pytest.raises(UnknownName, match="no import 'three': choose from one, two"):
        bitfront.search(study, "w3 w8", ["5bpw"], profiler=Imported("three"))
    (answer,) = bitfront.search(
        study, "w2 w8", ["5bpw"], profiler=Imported("two"), verify=False, explore=0
    )
    assert set(answer.trial.schemes.values()) == {"w2", "w8"}


def test_nothing_more_can_be_measured_of_imported_scores(study: Study, scores: Path) -> None:
    bitfront.import_scores(study, scores)
    with pytest.raises(InvalidInput, match=r"settling imported scores, .*: profile with another"):
        bitfront.profile_until(study, "w3 w8", ["5bpw"], "imported")
    with pytest.raises(InvalidInput, match="solver quadratic with imported, which says nothing"):
        quiet(study, solver="quadratic")
    pairs = [(study.task.layers[0], W4)]
    with pytest.raises(
        BitfrontError, match=r"no import has a score of layer .* under w4: import one"
    ):
        list(Imported("x").measure(study.subject, pairs, None))  # type: ignore[arg-type]


def test_a_search_by_scores_is_answered_from_the_database(study: Study, scores: Path) -> None:
    bitfront.import_scores(study, scores)
    first = bitfront.search(study, "w3 w8", ["5bpw"], profiler="imported", explore=4)
    count = len(study.trials())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = bitfront.search(study, "w3 w8", ["5bpw"], profiler="imported", explore=4)
    assert [a.trial.id for a in first] == [a.trial.id for a in again]
    assert len(study.trials()) == count


def test_a_report_names_imports_by_their_labels(study: Study, scores: Path, tmp_path: Path) -> None:
    bitfront.import_scores(study, scores, label="mine")
    quiet(study)
    found = bitfront.report("s", tmp_path / "r.html", db=tmp_path / "b.db")
    assert [table.name for table in found.tables] == ["imported mine"]
    assert found.tables[0].table.metric == "kl"
