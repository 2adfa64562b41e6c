"""The ways in which benchmarks.corruptions damages exports: each changes what it says, no more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import damage as d
from benchmarks.corruptions.__main__ import CORRUPTIONS, contents
from benchmarks.corruptions.packed import groups_exchanged, ignored, other_shard_in_index
from benchmarks.exports import redrawn
from bitfront.errors import ExportError
from bitfront.quant.export_base import read_manifest
from bitfront.quant.export_compressed import CompressedTensors
from bitfront.quant.export_gguf import Gguf
from bitfront.quant.gguf_file import GgufFile
from bitfront.quant.onnx_file import OnnxFile
from bitfront.quant.tensorfiles import TensorFolder, digest
from bitfront.types import Scheme
from tests import exporting as ex

NORM = "model.norm.weight"
GATE, UP = (f"model.layers.1.mlp.{x}_proj" for x in ("gate", "up"))
CODES, SCALE = f"{GATE}.weight_packed", f"{GATE}.weight_scale"
SCHEMES = {GATE: Scheme.parse("w3"), UP: Scheme.parse("w5")}


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A compressed-tensors folder of several shards."""
    model = ex.tiny_llama()
    quantized = ex.quantized_by(model, SCHEMES)
    CompressedTensors().write(
        model, ex.layers_of(model), SCHEMES, quantized, tmp_path / "out", {}, shard_bytes=15_000
    )
    return tmp_path / "out"


@pytest.fixture
def blocks(tmp_path: Path) -> Path:
    """A GGUF folder."""
    pytest.importorskip("gguf")
    model = ex.tiny_llama(tied=False)
    schemes = {GATE: Scheme.parse("q4_0"), UP: Scheme.parse("q4_0")}
    quantized = ex.quantized_by(model, schemes)
    Gguf().write(model, ex.layers_of(model), schemes, quantized, tmp_path / "out", {})
    return tmp_path / "out"


@pytest.fixture(params=["inside", "beside"])
def graph(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with a graph of two tensors, in the file or beside it."""
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    numbers = {"a": np.arange(600, dtype=np.float32), "b": np.arange(600, 1200, dtype=np.float32)}
    nodes = [helper.make_node("Add", ["x", "a"], ["h"]), helper.make_node("Mul", ["h", "b"], ["y"])]
    values = [helper.make_tensor_value_info(name, 1, [600]) for name in "xy"]
    made = helper.make_graph(
        nodes, "g", values[:1], values[1:],
        [numpy_helper.from_array(x, name) for name, x in numbers.items()],
    )  # fmt: skip
    folder = tmp_path / "out"
    folder.mkdir()
    onnx.save_model(
        helper.make_model(made), folder / "model.onnx", size_threshold=0,
        save_as_external_data=request.param == "beside", location="model.onnx.data",
    )  # fmt: skip
    (folder / "bitfront.json").write_text("{}")
    return folder


def tensors(folder: Path) -> dict[str, Any]:
    files = TensorFolder(folder)
    return {name: files.read(name).clone() for name in files.specs}


def others(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Names whose values are not the same."""
    names = before.keys() | after.keys()
    return {
        n
        for n in names
        if n not in before or n not in after or not np.array_equal(before[n], after[n])
    }


def test_names_are_unlike_and_of_every_container() -> None:
    names = [corruption.name for corruption in CORRUPTIONS]
    assert len(set(names)) == len(names) >= 30
    found = {corruption.export.partition(",")[0] for corruption in CORRUPTIONS}
    assert found == {"compressed-tensors", "gguf", "onnx", "safetensors", "diffusers"}


def test_one_bit_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(8))
    d.flip(path, 3, 5)
    d.flip(path, -1)
    assert path.read_bytes() == bytes([0, 0, 0, 32, 0, 0, 0, 1])
    d.cut(path, 5)
    assert path.read_bytes() == bytes([0, 0, 0])


@pytest.mark.parametrize(
    ("change", "odd"),
    [
        (lambda f: d.bit(f, CODES, 5, 3), {CODES}),
        (lambda f: d.scaled(f, NORM, "f4", 1.01, 2), {NORM}),
        (lambda f: d.scaled(f, SCALE, "f2", 2), {SCALE}),
        (lambda f: d.rewritten(d.shard_of(f, NORM), lambda t: t.pop(NORM)), {NORM}),
    ],
)
def test_tensors_of_safetensors(
    packed: Path, change: Callable[[Path], object], odd: set[str]
) -> None:
    before, files = tensors(packed), contents(packed)
    change(packed)
    after = tensors(packed)
    assert others(before, after) == odd
    assert len(others(files, contents(packed))) == 1
    if odd == {NORM} and NORM in after:
        assert torch.allclose(after[NORM][:2], before[NORM][:2] * 1.01)
        assert torch.equal(after[NORM][2:], before[NORM][2:])
    if odd == {SCALE}:
        assert torch.equal(after[SCALE], before[SCALE] * 2)


def test_exchanged_and_signed(packed: Path) -> None:
    first, second = (f"model.layers.{i}.mlp.down_proj.weight" for i in (0, 1))
    before = tensors(packed)
    d.exchanged(packed, first, second)
    after = tensors(packed)
    assert others(before, after) == {first, second}
    assert torch.equal(after[first], before[second])
    with pytest.raises(ExportError, match="is damaged"):
        TensorFolder(packed).verify(read_manifest(packed).digests)
    d.document(packed / "config.json", lambda c: c.update(rms_norm_eps=0.5))
    d.sign(packed)
    manifest = read_manifest(packed)
    assert manifest.digests == {name: digest(t) for name, t in after.items()}
    schemes = {layer.name: str(scheme) for layer, scheme in manifest.layers}
    assert list(manifest.faults(packed, "compressed-tensors", schemes)) == []


def test_names_exchanged_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\0\0\0\0one and two, \xff\xff\xff one")
    d.renamed(path, b"one", b"two")
    assert path.read_bytes() == b"\0\0\0\0two and one, \xff\xff\xff two"


def test_documents(packed: Path) -> None:
    before = contents(packed)
    other_shard_in_index(None, packed)  # type: ignore[arg-type]
    assert others(before, contents(packed)) == {d.INDEX}
    with pytest.raises(ExportError, match=r"is in model-.*, in the index in model-00001-of"):
        TensorFolder(packed)
    groups_exchanged(None, packed)  # type: ignore[arg-type]
    ignored(UP)(None, packed)  # type: ignore[arg-type]
    assert others(before, contents(packed)) == {d.INDEX, "config.json"}
    found = json.loads((packed / "config.json").read_text())["quantization_config"]
    bits = {tuple(g["targets"]): g["weights"]["num_bits"] for g in found["config_groups"].values()}
    assert bits == {(GATE,): 5, (): 3}
    assert UP in found["ignore"]
    d.manifest(packed, lambda m: m["layers"][GATE].update(scheme="w4"))
    faults = list(
        read_manifest(packed).faults(
            packed, "gguf", {la.name: str(SCHEMES.get(la.name, "keep")) for la, _ in
                             read_manifest(packed).layers},
        )
    )  # fmt: skip
    assert faults == [
        "its manifest is of compressed-tensors, not gguf",
        f"its manifest has layer {GATE!r} as w4, not w3",
        "config.json has changed since it was written",
        f"{d.INDEX} has changed since it was written",
    ]
    (packed / "config.json").unlink()
    assert "config.json is missing" in read_manifest(packed).faults(packed, "", {})


def test_gguf_files(blocks: Path) -> None:
    before = GgufFile(blocks / d.GGUF)
    digests, settings = before.digests, before.metadata
    d.setting(blocks, "llama.rope.freq_base", 500000.0)
    after = GgufFile(blocks / d.GGUF)
    assert after.digests == digests
    assert others(settings, after.metadata) == {"llama.rope.freq_base"}
    d.exchanged(blocks, "blk.1.ffn_gate.weight", "blk.1.ffn_up.weight")
    found = GgufFile(blocks / d.GGUF)
    assert others(digests, found.digests) == {"blk.1.ffn_gate.weight", "blk.1.ffn_up.weight"}
    assert found.digests["blk.1.ffn_up.weight"] == digests["blk.1.ffn_gate.weight"]
    d.sign(blocks)
    assert read_manifest(blocks).digests == found.digests
    d.renamed(blocks / d.GGUF, b"blk.0.ffn_up", b"blk.1.ffn_up")
    swapped = GgufFile(blocks / d.GGUF).digests
    assert swapped["blk.0.ffn_up.weight"] == found.digests["blk.1.ffn_up.weight"]


def test_graphs(graph: Path) -> None:
    def numbers() -> dict[str, Any]:
        found = OnnxFile(graph).graph.graph.initializer
        return {t.name: np.frombuffer(t.raw_data, "f4") for t in found}

    before = numbers()
    d.scaled(graph, "b", "f4", 2, 3)
    after = numbers()
    assert others(before, after) == {"b"}
    assert np.array_equal(after["b"][:4], before["b"][:4] * [2, 2, 2, 1])
    d.exchanged(graph, "a", "b")
    assert np.array_equal(numbers()["a"], after["b"])
    assert np.array_equal(numbers()["b"], after["a"])
    d.graph(graph, lambda g: setattr(d.nodes(g, "Mul")[0], "op_type", "Div"))
    assert [node.op_type for node in OnnxFile(graph).graph.graph.node] == ["Add", "Div"]
    assert others(after, numbers()) == {"a", "b"}
    assert OnnxFile(graph).unused == []
    d.graph(graph, lambda g: d.nodes(g, "Add")[0].input.__setitem__(1, "b"))
    assert OnnxFile(graph).unused == ["a"]


def test_weights_drawn_anew_come_back() -> None:
    model = ex.odd_net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with redrawn(model):
        changed = others(before, {n: t.clone() for n, t in model.state_dict().items()})
        assert changed == {n for n, p in before.items() if p.ndim > 1}
        assert model.mix.weight.std().item() == pytest.approx(
            float(before["mix.weight"].std()), rel=0.2
        )
    assert others(before, dict(model.state_dict())) == set()
