"""Recipes of recorded trials: files, refusals, the command, a service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import bitfront as library
from bitfront.errors import ExportError, InvalidInput, UnknownName
from bitfront.recipes import RECIPES
from bitfront.storage import Store
from bitfront.types import Estimate, Layer, Scheme, Trial
from tests.commands import Commands
from tests.service.apis import LAYERS, fill

GOLDEN = Path(__file__).parent / "golden" / "recipes"
LLAMA = [
    *(Layer(f"layers.{i}.up", "linear", 64, 32) for i in (1, 2, 10)),
    Layer("layers.1.down", "linear", 32, 64),
    Layer("head", "linear", 64, 64, role="head"),
]
BLOCKS = [
    *(Layer(f"model.layers.{i}.mlp.up_proj", "linear", 64, 32) for i in (1, 2, 10)),
    Layer("model.layers.1.mlp.down_proj", "linear", 32, 256),
    Layer("lm_head", "linear", 64, 64, role="head"),
]
SCHEMES = {
    "llama-quantize": ("q4_0", "keep", "q4_0", "q3_k", "fp16"),
    "gptqmodel": ("w4g32", "keep", "w4g32", "w3+gptq:act", "w8"),
    "torchao": ("w4g32", "keep", "w4g32", "w8a8", "fp8"),
    "llm-compressor": ("w4g32", "keep", "w4g32", "w4+gptq", "w8a8s"),
    "modelopt": ("w4g32", "keep", "w4g32", "w8a8", "nvfp4"),
}
LINEAR, CONV = Layer("a", "linear", 64, 64), Layer("a", "conv2d", 8, 27)
EMBEDDING, CONV1D = Layer("a", "embedding", 64, 64), Layer("a", "hf_conv1d", 64, 64)
KEY = Layer("a", "linear", 64, 64, attention="key", head=8)
REFUSED = {
    ("gptqmodel", LINEAR, "w8a8"): "GPTQ quantizes weights only",
    ("gptqmodel", LINEAR, "fp8"): "GPTQ is for integers",
    ("gptqmodel", LINEAR, "nvfp4"): "GPTQ is for integers",
    ("gptqmodel", LINEAR, "w4g8"): "its group sizes are 16, 32, 64, 128, 256, 512, 1024 or",
    ("gptqmodel", LINEAR, "w4g128"): "group size 128 does not divide 64 inputs",
    ("gptqmodel", Layer("a", "linear", 40, 64), "w5"): "multiples of 32, not 40 × 64",
    ("gptqmodel", CONV, "w4"): "Linear layers of a language model's blocks, not conv2d ones",
    ("gptqmodel", EMBEDDING, "w4"): "not embedding ones",
    ("torchao", CONV, "w4"): "it quantizes Linear layers and embeddings by rows, not conv2d ones",
    ("torchao", CONV1D, "w4"): "not hf_conv1d ones",
    ("torchao", LINEAR, "w4+gptq"): "it rounds to nearest",
    ("torchao", LINEAR, "w4a8"): "dynamic 8 bits with symmetric 8-bit weights a row, w8a8",
    ("torchao", LINEAR, "w8a8s"): "dynamic 8 bits",
    ("llm-compressor", LINEAR, "fp8a8"): "no recipe has float activations",
    ("modelopt", LINEAR, "nvfp4a4"): "no recipe has float activations",
    ("llm-compressor", LINEAR, "mxfp8"): "no recipe has mxfp8",
    ("torchao", LINEAR, "mxfp4"): "mxfp4 for weights with activations only",
    ("torchao", Layer("a", "linear", 40, 64), "nvfp4"): "multiples of 16, not 40 × 64",
    ("torchao", EMBEDDING, "nvfp4"): "its nvfp4 is for Linear layers, not embedding ones",
    ("llm-compressor", CONV, "w4"): "with quantized Linear layers, not conv2d ones",
    ("llm-compressor", LINEAR, "w8a8b"): "it quantizes every token alike",
    ("llm-compressor", LINEAR, "w4g32a8g"): "no recipe has activations in groups",
    ("modelopt", LINEAR, "w4g32a8g"): "no recipe has activations in groups",
    ("llm-compressor", KEY, "w8kv8"): "it quantizes no outputs of single projections",
    ("modelopt", LINEAR, "w4z"): "its integers have no zero points",
    ("modelopt", LINEAR, "w4+gptq"): "its gptq is for all layers or none",
    ("modelopt", CONV, "w4g27"): "its blocks are of the last dimension",
    ("modelopt", CONV, "w8a8"): "its dynamic scales are of the last dimension",
    (
        "modelopt",
        Layer("a", "conv_transpose2d", 8, 27),
        "w8",
    ): "not of the rows of conv_transpose2d layers",
    ("modelopt", LINEAR, "q4_0"): "q4_0 is a block type of GGUF, for llama-quantize",
    ("llama-quantize", BLOCKS[0], "w4g32"): "GGUF has types of its own: q8_0, q6_k, q5_k",
    ("llama-quantize", BLOCKS[0], "q2_k"): "blocks of 256 do not divide 32 inputs",
    ("llama-quantize", LINEAR, "q8_0"): "llama.cpp has no place for 'a.weight'",
    ("modelopt", LINEAR, "bf16"): "it casts no single layer; load the model in bfloat16",
}


@pytest.mark.parametrize("tool", RECIPES)
def test_the_text_of_a_small_allocation(tool: str) -> None:
    layers = BLOCKS if tool == "llama-quantize" else LLAMA
    schemes = dict(zip((la.name for la in layers), map(Scheme.parse, SCHEMES[tool]), strict=True))
    expected = (GOLDEN / f"{tool}{RECIPES[tool].suffix}").read_text()
    assert RECIPES[tool].text(layers, schemes, {"trial": 7}) == expected


@pytest.mark.parametrize(("tool", "layer", "scheme"), REFUSED)
def test_why_a_pair_is_refused(tool: str, layer: Layer, scheme: str) -> None:
    said = REFUSED[tool, layer, scheme]
    assert said in str(RECIPES[tool].reason(layer, Scheme.parse(scheme)))


def test_conv1d_of_transformers_is_taken_where_it_is_turned() -> None:
    takers = [name for name, recipe in RECIPES.items() if not recipe.reason(CONV1D, LLAMA_W4)]
    assert takers == ["gptqmodel", "modelopt"]


LLAMA_W4 = Scheme.parse("w4g32")


@pytest.fixture
def db(bitfront: Commands) -> str:
    with Store.open(bitfront.db) as store:
        fill(store)
    return bitfront.db


def test_the_verb_gives_the_text_and_writes_it(db: str, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    text = library.recipe("llama", 2, "gptqmodel", out, db=db)
    assert out.read_text() == text == library.recipe("llama", 2, "gptqmodel", db=db)
    found = json.loads(text)
    assert found["dynamic"] == {"-:^b/c$": {}, "+:^a$": {"bits": 3, "group_size": -1, "sym": True}}
    assert found["meta"]["bitfront"] == {
        "bitfront": library.__version__, "study": "llama", "trial": 2, "for": "gptqmodel 7.7.0",
        "predicted": 0.5, "costs": {"bytes": 200.0, "bits": 20.0},
        "metrics": {"kl": 0.5, "calibration/kl": 0.5, "top1": 0.51},
    }  # fmt: skip


def test_figures_that_are_not_known_are_left_out(db: str) -> None:
    with Store.open(db) as store:
        record = store.study("llama")
        trial = Trial({"a": "w4"}, "uniform", float("nan"), 0.0, {"bytes": 1.0},
                      {"kl": Estimate(float("inf"), 0.0, 4)}, 1.0)  # fmt: skip
        number = store.add_trial(record, trial).id
    about = json.loads(library.recipe("llama", number, "torchao", db=db))["bitfront"]
    assert "predicted" not in about
    assert (about["costs"], about["metrics"]) == ({"bytes": 1.0}, {})


def test_a_file_is_replaced_only_when_asked(db: str, tmp_path: Path) -> None:
    out = tmp_path / "r.yaml"
    out.write_text("mine")
    with pytest.raises(InvalidInput, match=r"r\.yaml' exists: give another name, or overwrite"):
        library.recipe("llama", 2, "modelopt", out, db=db)
    assert out.read_text() == "mine"
    library.recipe("llama", 2, "modelopt", out, overwrite=True, db=db)
    assert yaml.safe_load(out.read_text())["metadata"] == {"recipe_type": "ptq"}
    with pytest.raises(UnknownName, match="no recipe named 'awq': choose from gptqmodel"):
        library.recipe("llama", 2, "awq", db=db)
    with pytest.raises(ExportError, match="gptqmodel cannot take 'a' as w7: with 7 bits it wants"):
        library.recipe("llama", 6, "gptqmodel", tmp_path / "x.json", db=db)
    assert sorted(path.name for path in tmp_path.glob("[rx]*")) == ["r.yaml"]


def test_the_command_says_what_it_wrote(db: str, bitfront: Commands, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    words = ["recipe", "llama", 2, "--for", "torchao", "--out", out]
    assert bitfront.ok(*words).out == f"{out}: 1 layers to quantize by torchao, 1 to keep\n"
    assert out.read_text() == library.recipe("llama", 2, "torchao", db=db)
    assert bitfront.ok(*words, "--overwrite", "--json").document == {
        "study": "llama", "trial": 2, "tool": "torchao", "file": str(out), "quantized": 1,
        "kept": 1,
    }  # fmt: skip
    assert len(LAYERS) == 2
