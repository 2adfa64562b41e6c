"""Every format of scores, as it is read: real files, literal ones where no program runs here."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from bitfront.errors import BitfrontError, InvalidInput
from bitfront.importers import Asked, Scores, read
from bitfront.importers.autoround import scheme_of as of_autoround
from bitfront.importers.recipes import scheme_of as of_recipe
from bitfront.scheme import Scheme
from tests.imports import GOLDEN, GUD, QKVO, W4, W8, measurement, option, table, written

KL, GRADIENT = GOLDEN / "modelopt_kl.pt", GOLDEN / "modelopt_gradient.pt"
W4G8, W8A8, MXFP4 = (GOLDEN / f"autoround_{name}.json" for name in ("w4g8", "w8a8", "mxfp4"))


def schemes(scores: Scores) -> set[str]:
    return {str(score.scheme) for score in scores.scores}


def refused(path: Path, says: str, format: str | None = None, asked: Asked | None = None) -> None:
    with pytest.raises(BitfrontError, match=says) as caught:
        read([path], format, asked)
    assert "\n" not in str(caught.value)
    assert ": " in str(caught.value)


# ---------------------------------------------------------------- what each format says


@pytest.mark.parametrize("path", [KL, GRADIENT], ids=["checkpoint", "returned state"])
def test_modelopts_groups_have_one_score_of_all_their_modules(path: Path) -> None:
    format, scores = read([path])
    assert format == "modelopt"
    assert schemes(scores) == {"w3g8", "w8"}  # the full model is no score
    together = {score.layers for score in scores.scores}
    assert (
        "block.self_attn.q_proj",
        "block.self_attn.k_proj",
        "block.self_attn.v_proj",
    ) in together
    assert ("block.mlp.gate_proj", "block.mlp.up_proj") in together
    assert ("head",) in together
    assert scores.metric == ("kl-sum" if path is KL else "modelopt-gradient")
    assert scores.summed == (path is KL)


def test_modelopts_values_are_those_of_the_file() -> None:
    """Against the state as ModelOpt's own loader gives it: attributes of whatever class."""

    class Loose(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return type(name, (), {}) if "modelopt" in module else super().find_class(module, name)

    found: Any = torch.load(
        KL, weights_only=False,
        pickle_module=type("P", (), {"Unpickler": Loose, "load": pickle.load}),
    )["candidate_stats"]  # fmt: skip
    _, scores = read([KL])
    for score in scores.scores:
        (stats,) = [s for s in found.values() if tuple(s["module_names"]) == score.layers]
        bits = score.scheme.bits if isinstance(score.scheme, Scheme) else 0
        assert score.value == stats["scores"][[3, 8].index(bits)]


def test_modelopts_json_is_its_torch_file(tmp_path: Path) -> None:
    """What the remedy of a file that cannot be loaded writes."""
    stats: dict[str, Any] = {}
    for score in read([KL])[1].scores:
        entry = stats.setdefault(
            score.layers[0], {"formats": [], "scores": [], "module_names": list(score.layers)}
        )
        bits = 3 if str(score.scheme) == "w3g8" else 8
        entry["formats"].append(json.dumps(recipe(weight(bits, 8 if bits == 3 else None))))
        entry["scores"].append(score.value)
    path = written(tmp_path / "s.json", {"method": "kl_div", "candidate_stats": stats})
    assert read([path])[1].scores == read([KL])[1].scores


def weight(bits: Any, group: int | None = None, axis: Any = 0, **more: Any) -> dict[str, Any]:
    scales = {"axis": axis} if group is None else {"block_sizes": {"-1": group}}
    return {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": bits, **scales, **more}}


def given(bits: Any, **more: Any) -> dict[str, Any]:
    return {"quantizer_name": "*input_quantizer", "cfg": {"num_bits": bits, **more}}


def recipe(*entries: dict[str, Any], algorithm: Any = "max") -> dict[str, Any]:
    off = {"quantizer_name": "*", "enable": False}
    return {"quant_cfg": [off, *entries], "algorithm": algorithm}


FP4 = {"-1": 16, "type": "dynamic", "scale_bits": [4, 3]}
MX = {"-1": 32, "type": "dynamic", "scale_bits": [8, 0]}
RECIPES = {
    "keep": recipe(),
    "w8": recipe(weight(8)),
    "w4g128": recipe(weight(4, 128), algorithm={"method": "mse"}),
    "w8a8s": recipe(weight(8), given(8, axis=None)),
    "w8a8": recipe(weight(8), given(8, block_sizes={"-1": None, "type": "dynamic"})),
    "fp8": recipe(weight([4, 3])),
    "nvfp4": recipe({**weight(0), "cfg": {"num_bits": [2, 1], "block_sizes": FP4}}),
    "mxfp4": recipe({**weight(0), "cfg": {"num_bits": [2, 1], "block_sizes": MX}}),
}
WITHOUT = {
    "one step for a tensor": recipe(weight(8, axis=None)),
    "FP8 for a tensor": recipe(weight([4, 3], axis=None), given([4, 3], axis=None)),
    "NVFP4 with inputs": recipe(
        {**weight(0), "cfg": {"num_bits": [2, 1], "block_sizes": FP4}},
        given([2, 1], block_sizes=FP4),
    ),
    "AWQ": recipe(weight(4, 128), algorithm={"method": "awq_lite"}),
    "9 bits": recipe(weight(9)),
    "inputs alone": recipe(given(8, axis=None)),
    "outputs": recipe(weight(8), {"quantizer_name": "*output_quantizer", "cfg": {"num_bits": 8}}),
    "two steps": recipe({"quantizer_name": "*weight_quantizer", "cfg": [{"num_bits": 4}] * 2}),
    "blocks of two axes": recipe(
        {**weight(0), "cfg": {"num_bits": 8, "block_sizes": {"-1": 16, "-2": 16}}}
    ),
    "unsigned": recipe(weight(8, unsigned=True)),
    "linear layers alone": recipe({**weight(8), "parent_class": "nn.Linear"}),
}


@pytest.mark.parametrize("spelled", RECIPES)
def test_a_recipe_is_a_scheme(spelled: str) -> None:
    assert str(of_recipe(RECIPES[spelled])) == spelled


@pytest.mark.parametrize("what", WITHOUT)
def test_a_recipe_without_a_scheme_is_said_in_words(what: str) -> None:
    assert isinstance(of_recipe(WITHOUT[what]), str)


def test_entries_of_a_recipe_apply_in_order() -> None:
    off = {"quantizer_name": "*weight_quantizer", "enable": False}
    assert str(of_recipe(recipe(weight(8), off))) == "keep"
    assert str(of_recipe(recipe(weight(8), weight(4)))) == "w4"
    elsewhere = {"quantizer_name": "*lm_head*", "enable": False}  # matches no quantizer of a module
    of_norms = {"quantizer_name": "*", "parent_class": "nn.BatchNorm2d", "enable": False}
    assert str(of_recipe(recipe(weight(8), elsewhere, of_norms))) == "w8"


def test_what_modelopt_does_not_score_has_no_zero(tmp_path: Path) -> None:
    fixed = {"formats": [recipe(weight(8)), recipe()], "scores": [0, 0], "is_fixed": True}
    one = {"formats": [recipe()], "scores": [0]}
    real = {"formats": [recipe(weight(8)), recipe()], "scores": [0.5, 0]}
    stats = {n: {**s, "module_names": [n]} for n, s in (("a", fixed), ("b", one), ("c", real))}
    path = written(tmp_path / "s.json", {"method": "gradient", "candidate_stats": stats})
    _, scores = read([path])
    assert [(s.layers, str(s.scheme), s.value) for s in scores.scores] == [(("c",), "w8", 0.5)]
    assert sum(scores.unscored.values()) == 2


def test_autorounds_files_are_one_import() -> None:
    format, scores = read([W4G8, W8A8, MXFP4])
    assert format == "autoround"
    assert len(scores.scores) == 3 * 14
    assert {s for s in schemes(scores) if s.startswith("w")} == {"w4g8", "w8a8"}
    (words,) = {s.scheme for s in scores.scores if isinstance(s.scheme, str)}
    assert words == "mx_fp of 4 bits, group 32, activations of 4 bits"
    data = json.loads(W4G8.read_text())["layer_scores"]
    assert {s.layers[0]: s.value for s in scores.scores[:14]} == {n: v[1] for n, v in data.items()}


AUTOROUND: dict[str, dict[str, Any]] = {
    "w4g128": {"bits": 4, "group_size": 128, "sym": True, "data_type": "int", "act_bits": 16},
    "w4g64z": {"bits": 4, "group_size": 64, "sym": False, "data_type": "int", "act_bits": None},
    "w8": {"bits": 8, "group_size": -1, "sym": True, "data_type": "int"},
    "w8a8s": {
        "bits": 8, "group_size": -1, "act_bits": 8, "act_group_size": 0, "act_dynamic": False,
    },
    "mxfp4": {"bits": 4, "group_size": 32, "data_type": "mx_fp", "act_bits": 16},
    "nvfp4": {"bits": 4, "group_size": 16, "data_type": "nv_fp"},
    "fp8": {"bits": 8, "group_size": -1, "data_type": "fp"},
    "keep": {"bits": 16, "group_size": 128, "data_type": "fp"},
}  # fmt: skip


@pytest.mark.parametrize("spelled", AUTOROUND)
def test_autorounds_fields_are_a_scheme(spelled: str) -> None:
    assert str(of_autoround(AUTOROUND[spelled])) == spelled


@pytest.mark.parametrize(
    "changed",
    [
        {"group_size": 0}, {"group_size": [128, 128]}, {"bits": 9}, {"bits": "four"},
        {"super_bits": 6}, {"rotation_config": {"k": 1}}, {"data_type": "mx_int"},
        {"act_bits": 8, "act_group_size": 128, "act_dynamic": True},
        {"act_bits": 5, "act_group_size": -1, "act_dynamic": True},
    ],
)  # fmt: skip
def test_autorounds_other_fields_are_none(changed: dict[str, Any]) -> None:
    assert isinstance(of_autoround({**AUTOROUND["w4g128"], **changed}), str)


def test_what_autoround_left_at_16_bits_has_no_zero(tmp_path: Path) -> None:
    data = json.loads(W4G8.read_text())
    left = "model.layers.0.mlp.down_proj"
    data["layer_scores"][left] = [16 * 384, 0.0]
    _, scores = read([written(tmp_path / "a.json", data)])
    assert left not in {s.layers[0] for s in scores.scores}
    assert list(scores.unscored.values()) == [1]


def test_autorounds_other_runs_are_refused(tmp_path: Path) -> None:
    data = json.loads(W8A8.read_text())
    data["cache_config"]["nsamples"] = 7
    other = written(tmp_path / "other.json", data)
    with pytest.raises(InvalidInput, match=r"of different runs .*: import them apart"):
        read([W4G8, other])


def test_exllamav2s_options_are_of_a_sublayer(tmp_path: Path) -> None:
    format, scores = read([written(tmp_path / "m.json", measurement())])
    assert format == "exllamav2"
    assert scores.metric == "relative-mse"
    found = [(s.layers[0], str(s.scheme), s.value) for s in scores.scores]
    q, gate = "block.self_attn.q_proj", "block.mlp.gate_proj"
    assert [name for _, name, _ in found] == [
        "several widths within a matrix", "w4g8+gptq:act",
        "matrices of a sublayer in different formats", "w8g8+gptq:act", "w4g8+gptq:act",
        "w8g8+gptq:act",
    ]  # fmt: skip
    assert [name for name, _, _ in found] == [q] * 4 + [gate] * 2
    assert found[1][2] == pytest.approx(0.05**2)
    assert scores.scores[1].layers == tuple(f"block.self_attn.{n}" for n in QKVO.split())


def test_few_of_exllamav2s_own_options_have_one_width() -> None:
    _, scores = read([GOLDEN / "exllamav2_options.json"])
    counts = {
        place: Counter(str(s.scheme) for s in scores.scores if place in s.layers[0])
        for place in ("self_attn", "mlp")
    }
    assert counts["self_attn"] == {
        "several widths within a matrix": 12, "matrices of a sublayer in different formats": 3,
        **dict.fromkeys((f"{s}+gptq:act" for s in ("w4g128", "w4g32", "w6g128", "w8g128")), 1),
    }  # fmt: skip
    assert counts["mlp"] == {"several widths within a matrix": 16, "w8g128+gptq:act": 1}


def test_exllamav2s_parallel_blocks_and_experts(tmp_path: Path) -> None:
    data = {"measurement": {
        "l.0.parallel_decoder": {"attn": [option(0.9, QKVO, W4)], "mlp": [option(0.8, GUD, W8)]},
        "l.1.block_sparse_moe": [option(0.7, "w1 w3 w2", W4)],
    }}  # fmt: skip
    _, scores = read([written(tmp_path / "m.json", data)])
    assert [s.layers[0] for s in scores.scores] == [
        "l.0.self_attn.q_proj", "l.0.mlp.gate_proj", "l.1.block_sparse_moe.experts.*.w1",
    ]  # fmt: skip


def test_exllamav2s_older_group_sizes_are_one_number(tmp_path: Path) -> None:
    form = {"group_size": 32, "bits": [6], "bits_prop": [1], "scale_bits": 4}
    data = {"measurement": {"l.mlp": [option(0.9, "up_proj down_proj", form)]}}
    assert schemes(read([written(tmp_path / "m.json", data)])[1]) == {"w6g32+gptq:act"}


def test_mlx_lms_sensitivities_are_differences(tmp_path: Path) -> None:
    path = written(tmp_path / "m_sensitivities.json", [["a", 0.5], ["b", -0.25]])
    format, scores = read([path])
    assert (format, scores.per_million, scores.metric) == ("mlx-lm", True, "kl-difference")
    assert [(s.layers[0], str(s.scheme), s.value) for s in scores.scores] == [
        ("a", "w4g64z", 0.5), ("a", "w5g64z", 0.0), ("b", "w4g64z", -0.25), ("b", "w5g64z", 0.0),
    ]  # fmt: skip
    assert any("defaults" in note for note in scores.notes)
    own = (Scheme.parse("w2g32z"), Scheme.parse("w8g32z"))
    _, scores = read([path], asked=Asked(schemes=own))
    assert schemes(scores) == {"w2g32z", "w8g32z"}
    assert not any("defaults" in note for note in scores.notes)


def test_csv_takes_the_first_table_unless_another_is_named(tmp_path: Path) -> None:
    rows = ["table,metric,layer,scheme,value,stderr,samples", "a@1,kl,x,w4,0.5,0.1,8"]
    path = written(tmp_path / "s.csv", "\n".join([*rows, "b,nll,x,w4,0.25,nan,8", ""]))
    _, scores = read([path])
    assert (scores.metric, [s.value for s in scores.scores]) == ("kl", [0.5])
    assert (scores.scores[0].stderr, scores.scores[0].samples) == (0.1, 8)
    assert scores.notes == ("table 'a@1' was taken, not b",)
    assert read([path], asked=Asked(table="b"))[1].metric == "nll"
    refused(path, "it has no table 'c': choose from a@1, b", asked=Asked(table="c"))


def test_csv_without_a_metric_is_of_no_known_unit(tmp_path: Path) -> None:
    _, scores = read(
        [written(tmp_path / "s.csv", "scheme, layer ,value\nw4,x,1\nint4,x,2\nw8,x,\n")]
    )
    assert scores.metric == "score"
    assert [str(s.scheme) for s in scores.scores] == ["w4", "int4"]
    assert dict(scores.unscored) == {"it has no value": 1}


# ---------------------------------------------------------------- what is none of them

CSV = "layer,scheme,metric,value,stderr,samples\n"
AR: dict[str, Any] = {"version": 1, "scheme": AUTOROUND["w8"], "layer_scores": {"x": [8, 0.5]}}
MO: dict[str, Any] = {"method": "gradient", "candidate_stats": {"x": {
    "formats": [recipe(weight(8)), recipe()], "scores": [0.5, 0], "module_names": ["x"],
}}}  # fmt: skip
EX = {"measurement": {"l.mlp": [option(0.9, "up_proj", W4)]}}


def state(**changed: Any) -> dict[str, Any]:
    return {**MO, "candidate_stats": {"x": {**MO["candidate_stats"]["x"], **changed}}}


BAD: dict[str, tuple[Any, str | None]] = {
    "empty": ("", "is empty: give a file of scores"),
    "text": ("hello", "is of no format that is known .*: write it as CSV"),
    "cut JSON": ('{"layer_scores": {', "it is not JSON .*: give the file as it was written"),
    "another JSON": ({"a": 1}, "is of no format that is known"),
    "an empty list": ([], "is of no format that is known"),
    "deep": ("[" * 100_000, "it is not JSON"),
    "a key twice": ('{"layer_scores": {"x": [1, 2], "x": [1, 3]}}', "'x' stands twice .*: leave"),
    "CSV without rows": (CSV, "it has no rows: begin it with a line of column names"),
    "CSV: nothing but nan": (CSV + "x,w4,kl,nan,,\n", None),
    "CSV: infinite": (CSV + "x,w4,kl,inf,,\n", "line 2 has the value 'inf': give a finite number"),
    "CSV: a word": (CSV + "x,w4,kl,low,,\n", "line 2 has the value 'low': give a number"),
    "CSV: a negative error": (CSV + "x,w4,kl,1,-1,\n", "the stderr '-1': give a finite number"),
    "CSV: half a sample": (CSV + "x,w4,kl,1,0,1.5\n", "line 2 has 1.5 samples: give a whole"),
    "CSV: endless samples": (CSV + "x,w4,kl,1,0,1e300\n", "line 2 has 1e300 samples: give a"),
    "CSV: a cell too few": (CSV + "x,w4,kl\n", "line 2 has 3 cells, not 6: give each column"),
    "CSV: no layer": (CSV + ",w4,kl,1,,\n", "line 2 names no layer or no scheme: name both"),
    "CSV: a glob": (CSV + "x*,w4,kl,1,,\n", r"line 2 has the layer 'x\*': name each layer"),
    "CSV: no metric's name": (CSV + "x,w4,k l,1,,\n", "the metric 'k l': name it like kl"),
    "CSV: a column twice": ("layer,scheme,value,value\nx,w4,1,1\n", "two columns 'value': leave"),
    "CSV: two metrics": (
        "table,layer,scheme,metric,value\nt,x,w4,kl,1\nt,x,w8,nll,1\n",
        "line 3 is of 'nll', .* of 'kl': give each metric a table",
    ),
    "AutoRound: a list": ({**AR, "layer_scores": [1]}, "no object of scheme, or of layer_scores"),
    "AutoRound: no scheme": ({**AR, "scheme": "W4A16"}, "no object of scheme, or of layer_scores"),
    "AutoRound: version 2": ({**AR, "version": 2}, "it is of version 2, 'per_op': give one of"),
    "AutoRound: one number": ({**AR, "layer_scores": {"x": 1.0}}, "score of 'x' is 1.0: give"),
    "AutoRound: nan": ({**AR, "layer_scores": {"x": [8, float("nan")]}}, "of 'x' is nan: a score"),
    "AutoRound: infinite": ({**AR, "layer_scores": {"x": [8, float("inf")]}}, "'x' is inf: a"),
    "AutoRound: negative": ({**AR, "layer_scores": {"x": [8, -1]}}, "is -1: .* at least 0"),
    "AutoRound: huge": ({**AR, "layer_scores": {"x": [8, 10**400]}}, "loss of 'x' is 1000"),
    "AutoRound: true": ({**AR, "layer_scores": {"x": [8, True]}}, "loss of 'x' is True: a score"),
    "ModelOpt: no method": ({**MO, "method": None}, "its method is None: give one of gradient"),
    "ModelOpt: a number": ({**MO, "candidate_stats": {"x": 1}}, "candidate_stats of 'x' are 1"),
    "ModelOpt: no names": (state(module_names=[]), "of 'x' lack formats, scores or module"),
    "ModelOpt: too few": (state(scores=[1]), "'x' has 2 formats and 1 scores: give as many"),
    "ModelOpt: a word": (state(formats=["INT8", "NONE"]), "a format of 'x' is 'INT8'"),
    "ModelOpt: nan": (state(scores=[float("nan"), 0]), "a score of 'x' is nan: a score is"),
    "ModelOpt: negative": (state(scores=[-1.0, 0]), "a score of 'x' is -1.0: .* at least 0"),
    "exllamav2: a list": ({"measurement": {"l.mlp": {}}}, "the options of 'l.mlp' are {}: give"),
    "exllamav2: no accuracy": ({"measurement": {"l.mlp": [{}]}}, "an option of 'l.mlp' is {}"),
    "exllamav2: no format": (
        {"measurement": {"l.mlp": [{"accuracy": 0.5, "up_proj": 4}]}},
        "the format of 'l.mlp.up_proj' is 4: give measurement.json",
    ),
    "exllamav2: above 1": (
        {"measurement": {"l.mlp": [option(1.5, "up_proj", W4)]}},
        "the accuracy of 'l.mlp' is 1.5: .* at least 0 and at most 1",
    ),
    "exllamav2: a blocked decoder": ({"measurement": {"l.parallel_decoder": []}}, r"are \[\]: "),
    "mlx-lm: a triple": ([["a", 1], ["b", 1], ["c", 1], ["d", 1, 2]], "an entry is .*: give a"),
    "mlx-lm: nan": ([["a", float("nan")]], "the sensitivity of 'a' is nan: a score is"),
    "mlx-lm: a word": ([["a", "b"]], "the sensitivity of 'a' is 'b': a score is a finite number"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_malformed_is_refused(case: str, tmp_path: Path) -> None:
    content, says = BAD[case]
    path = written(tmp_path / "scores", content)
    if says is None:
        assert read([path])[1].scores == ()
    else:
        refused(path, says)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "s", table())
    refused(path, "no format of scores named 'gguf': choose from", "gguf")
    with pytest.raises(InvalidInput, match="no file of scores: name one"):
        read([])
    with pytest.raises(InvalidInput, match=r"a file of csv, .* of autoround: import them apart"):
        read([path, written(tmp_path / "a", AR)])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (Asked(table="a"), "table for a file of autoround: leave it out; it is for files of csv"),
        (Asked(schemes=(Scheme.parse("w4"),)), "schemes for a file of autoround: .* of mlx-lm"),
    ],
)
def test_what_a_format_does_not_take_is_refused(asked: Asked, says: str) -> None:
    refused(W4G8, says, asked=asked)


def test_mlx_lm_has_two_formats(tmp_path: Path) -> None:
    path = written(tmp_path / "m.json", [["a", 1.0]])
    refused(
        path, "1 schemes for a file of mlx-lm: give", asked=Asked(schemes=(Scheme.parse("w4"),))
    )


class Trap:
    """Unpickled, it would write a file."""

    def __init__(self, file: Path) -> None:
        self.file = str(file)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.file, "w")


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    path, sprung = tmp_path / "state.pt", tmp_path / "sprung"
    torch.save({"method": "kl_div", "candidate_stats": {}, "trap": Trap(sprung)}, path)
    refused(
        path, "it cannot be loaded without running what is in it .*: where ModelOpt is installed"
    )
    assert not sprung.exists()
    torch.save({"method": "kl_div"}, path)
    refused(path, "it has no candidate_stats: give what auto_quantize saved")
    for value in (torch.ones(3, 3), [torch.ones(2)], {(1, 2): torch.ones(1)}):
        stats = {"x": {"formats": [value, value], "scores": [1, 2], "module_names": ["x"]}}
        torch.save({"method": "kl_div", "candidate_stats": stats}, path)
        refused(path, "a format of 'x' is .*: where ModelOpt is installed")
        stats = {"x": {"formats": [recipe(weight(8)), recipe()], "scores": [value, 0]}}
        stats["x"]["module_names"] = ["x"]
        torch.save({"method": "kl_div", "candidate_stats": stats}, path)
        refused(path, "a score of 'x' is .*: a score is a finite number")
    path.write_bytes(KL.read_bytes()[:5000])
    refused(path, "it cannot be loaded")
