"""Corrupted and mismatched exports of real models: what the audit makes of each.

    python -m benchmarks.corruptions > benchmarks/results/corruptions.json

JSON on standard output, a table on standard error; exit code 1 where any corruption is missed, or
where a sound folder is not passed. Each trial (benchmarks/exports.py) is exported once and audited;
then each corruption is made in a copy of the folder, which is audited in a fresh process, with the
functions that ``bitfront export`` calls. "signed": the manifest's digests are made those of the
damaged files, so that only weights, settings and outputs can tell.

``--only WORDS`` takes those whose name has the words. ``--resume FILE`` keeps what is found there,
a line each, and does not do again what is there already.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import damage as d
from benchmarks.common import arguments, head, parsed, plain, show, write
from benchmarks.exports import Export, exports
from bitfront.quant.formats import dequantize
from bitfront.types import Scheme

Change = Callable[[Export, Path], object]

CT, GG, OL, SF, OV = "compressed-tensors", "gguf", "onnx, Llama", "safetensors", "onnx, ViT"
DF = "diffusers"
MODEL, DATA = "model.onnx", "model.onnx.data"


@dataclass(frozen=True)
class Corruption:
    """what: was done to the folder of ``export``. signed: see above."""

    export: str
    what: str
    change: Change
    signed: bool = False

    @property
    def name(self) -> str:
        """Unlike all others."""
        return f"{self.export}: {self.what}{', signed' if self.signed else ''}"

    def apply(self, export: Export, folder: Path) -> None:
        """Damage ``folder``, a copy of the sound one."""
        self.change(export, folder)
        if self.signed:
            d.sign(folder)


def attn(block: int, part: str) -> str:
    return f"model.layers.{block}.self_attn.{part}_proj"


def mlp(block: int, part: str) -> str:
    return f"model.layers.{block}.mlp.{part}_proj"


def copied(source: str, pattern: str) -> Change:
    """Put files of another folder of the export in place of its own."""

    def change(export: Export, folder: Path) -> None:
        origin = getattr(export, source)
        found = sorted(path.relative_to(origin) for path in origin.glob(pattern))
        assert found
        assert any((origin / p).read_bytes() != (folder / p).read_bytes() for p in found)
        for path in found:
            shutil.copyfile(origin / path, folder / path)

    return change


def whole(source: Callable[[Export], Path], *, keep_manifest: bool = False) -> Change:
    """Another folder in place of this one. keep_manifest: but for what it says of layers."""

    def change(export: Export, folder: Path) -> None:
        layers = json.loads((folder / "bitfront.json").read_text())["layers"]
        shutil.rmtree(folder)
        shutil.copytree(source(export), folder)
        if keep_manifest:
            d.manifest(folder, lambda m: m.update(layers=layers))

    return change


def config(**values: Any) -> Change:
    """Other values in ``config.json``."""
    return lambda e, f: d.document(f / "config.json", lambda c: c.update(values))


def in_file(path: Path, name: str) -> None:
    """Flip a bit of a name where it first stands in a file."""
    d.flip(path, path.read_bytes().index(name.encode()))


def removed(pattern: str) -> Change:
    def change(export: Export, folder: Path) -> None:
        sorted(folder.glob(pattern))[-1].unlink()

    return change


def scheme(layer: str, words: str) -> Change:
    """Another scheme of a layer in the manifest."""
    return lambda e, f: d.manifest(f, lambda m: m["layers"][layer].update(scheme=words))


def tensors(layer_tensor: str, change: Callable[[dict[str, Any]], object]) -> Change:
    """Change the tensors of the shard that holds one."""
    return lambda e, f: d.rewritten(d.shard_of(f, layer_tensor), change)


def in_graph(change: Callable[[Any], object]) -> Change:
    return lambda e, f: d.graph(f, change)


# ---------------------------------------------------------------- compressed-tensors


def other_shard_in_index(export: Export, folder: Path) -> None:
    def change(index: Any) -> None:
        places = index["weight_map"]
        first, last = min(places.values()), max(places.values())
        several = [name for name, shard in places.items() if shard == last]
        assert len(several) > 1  # so that the shard itself stays in the index
        places[several[0]] = first

    d.document(folder / d.INDEX, change)


def groups_exchanged(export: Export, folder: Path) -> None:
    """The numbers of the 3-bit and the 5-bit layers."""

    def change(content: Any) -> None:
        groups = content["quantization_config"]["config_groups"].values()
        three, five = (
            next(g for g in groups if g["weights"]["num_bits"] == bits) for bits in (3, 5)
        )
        three["weights"], five["weights"] = five["weights"], three["weights"]

    d.document(folder / "config.json", change)


def ignored(layer: str) -> Change:
    def change(content: Any) -> None:
        quantization = content["quantization_config"]
        for group in quantization["config_groups"].values():
            if layer in group["targets"]:
                group["targets"].remove(layer)
        quantization["ignore"].append(layer)

    return lambda e, f: d.document(f / "config.json", change)


def dynamic_inputs(export: Export, folder: Path) -> None:
    def change(content: Any) -> None:
        for group in content["quantization_config"]["config_groups"].values():
            inputs = group["input_activations"]
            if inputs is not None and not inputs["dynamic"]:
                inputs.update(dynamic=True, strategy="token")

    d.document(folder / "config.json", change)


def other_tokens(export: Export, folder: Path) -> None:
    def change(content: Any) -> None:
        vocabulary = content["model"]["vocab"]
        a, b = list(vocabulary)[-2:]
        vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]

    d.document(folder / "tokenizer.json", change)


def names_exchanged(first: str, second: str) -> Change:
    """In every file: weights, and what the manifest says of them."""

    def change(export: Export, folder: Path) -> None:
        for path in folder.iterdir():
            data = path.read_bytes()
            if first.encode() in data and second.encode() in data and path.name != "bitfront.json":
                d.renamed(path, first.encode(), second.encode())

    return change


NORM = "model.layers.2.post_attention_layernorm.weight"
Q1, K1, O1 = (attn(1, part) for part in "qko")
LAST = "model-*.safetensors"

PACKED = [
    Corruption(CT, "a bit of codes flipped", lambda e, f: d.bit(f, f"{Q1}.weight_packed", 100)),
    Corruption(CT, "a bit of the embedding flipped",
               lambda e, f: d.bit(f, "model.embed_tokens.weight", 4000)),
    Corruption(CT, "a bit of a shard's header flipped",
               lambda e, f: in_file(d.shard_of(f, NORM), NORM)),
    Corruption(CT, "a bit of a norm flipped", lambda e, f: d.bit(f, NORM, 8), signed=True),
    Corruption(CT, "the last shard cut short",
               lambda e, f: d.cut(sorted(f.glob(LAST))[-1], 64)),
    Corruption(CT, "the last shard missing", removed(LAST)),
    Corruption(CT, "a shard of another trial", copied("other", "model-00002-*.safetensors")),
    Corruption(CT, "the index names another shard for a tensor", other_shard_in_index),
    Corruption(CT, "a scale 1 % larger",
               lambda e, f: d.scaled(f, f"{Q1}.weight_scale", "f2", 1.01, 1), signed=True),
    Corruption(CT, "codes of two layers exchanged",
               lambda e, f: d.exchanged(f, f"{Q1}.weight_packed", f"{attn(2, 'q')}.weight_packed"),
               signed=True),
    Corruption(CT, "names of two layers exchanged", names_exchanged(Q1, attn(3, "q")),
               signed=True),
    Corruption(CT, "weights of another seed", whole(lambda e: e.reseeded)),
    Corruption(CT, "a static input's step a bit larger",
               lambda e, f: d.bit(f, f"{O1}.input_scale"), signed=True),
    Corruption(CT, "config.json: rotation of another model",
               config(rope_parameters={"rope_theta": 500000.0, "rope_type": "default"}), True),
    Corruption(CT, "config.json: epsilon of another model", config(rms_norm_eps=1e-6), True),
    Corruption(CT, "config.json: activation of another model", config(hidden_act="gelu"), True),
    Corruption(CT, "config.json: heads of another model, the same shapes",
               config(num_attention_heads=4, num_key_value_heads=2, head_dim=16), True),
    Corruption(CT, "config.json: fewer blocks", config(num_hidden_layers=4), True),
    Corruption(CT, "quantization_config: two groups exchanged", groups_exchanged, True),
    Corruption(CT, "quantization_config: a layer ignored", ignored(Q1), True),
    Corruption(CT, "quantization_config: dynamic inputs for static ones", dynamic_inputs, True),
    Corruption(CT, "manifest: another scheme of a layer", scheme(Q1, "w4g32+gptq")),
    Corruption(CT, "no manifest", removed("bitfront.json")),
    Corruption(CT, "a tensor missing", tensors(NORM, lambda t: t.pop(NORM)), signed=True),
    Corruption(CT, "a tensor too many",
               tensors(NORM, lambda t: t.update(extra=t[NORM].clone())), signed=True),
    Corruption(CT, "a scale of another dtype",
               tensors(f"{Q1}.weight_scale",
                       lambda t: t.update({f"{Q1}.weight_scale": t[f"{Q1}.weight_scale"].float()})),
               signed=True),
    Corruption(CT, "another trial of the study, sound in itself", whole(lambda e: e.other)),
    Corruption(CT, "tokenizer.json: two tokens exchanged", other_tokens),
    Corruption(CT, "generation_config.json of another model",
               lambda e, f: d.document(f / "generation_config.json",
                                       lambda c: c.update(eos_token_id=5))),
]  # fmt: skip

# ---------------------------------------------------------------- gguf

LLAMA = "llama"
BLOCK = "blk.1.{}.weight"

BLOCKS = [
    Corruption(GG, "a bit of a block flipped",
               lambda e, f: d.bit(f, BLOCK.format("attn_q"), 100)),
    Corruption(GG, "a bit of a norm flipped",
               lambda e, f: d.bit(f, BLOCK.format("attn_norm"), 3), signed=True),
    Corruption(GG, "a bit of a block's scale flipped",
               lambda e, f: d.bit(f, BLOCK.format("attn_q")), signed=True),
    Corruption(GG, "a bit of the embedding flipped",
               lambda e, f: d.bit(f, "token_embd.weight", 5), signed=True),
    Corruption(GG, "a bit of the header flipped",
               lambda e, f: in_file(f / "model.gguf", "blk.1.attn_q")),
    Corruption(GG, "the file cut short", lambda e, f: d.cut(f / "model.gguf", 4096)),
    Corruption(GG, "blocks of two layers exchanged",
               lambda e, f: d.exchanged(f, "blk.1.attn_q.weight", "blk.2.attn_q.weight"),
               signed=True),
    Corruption(GG, "names of two layers exchanged", names_exchanged("blk.1.attn_k", "blk.2.attn_k"),
               signed=True),
    Corruption(GG, "rotation of another model",
               lambda e, f: d.setting(f, "llama.rope.freq_base", 500000.0)),
    Corruption(GG, "heads of another model",
               lambda e, f: d.setting(f, "llama.attention.head_count", 4)),
    Corruption(GG, "epsilon of another model",
               lambda e, f: d.setting(f, "llama.attention.layer_norm_rms_epsilon", 1e-6)),
    Corruption(GG, "two tokens exchanged", lambda e, f: d.tokens_exchanged(f)),
    Corruption(GG, "a layer in F16, its weights right",
               whole(lambda e: e.fallen_back(Q1, Scheme.parse("fp16")), keep_manifest=True),
               signed=True),
    Corruption(GG, "fewer blocks", whole(lambda e: e.fewer())),
    Corruption(GG, "weights of another seed", whole(lambda e: e.reseeded)),
    Corruption(GG, "another trial of the study, sound in itself", whole(lambda e: e.other)),
    Corruption(GG, "the file of another trial", copied("other", "model.gguf")),
    Corruption(GG, "manifest: another scheme of a layer", scheme(Q1, "q4_1")),
    Corruption(GG, "manifest: rotation of another model",
               lambda e, f: d.manifest(f, lambda m: m["config"].update(
                   rope_parameters={"rope_theta": 500000.0, "rope_type": "default"}))),
]  # fmt: skip

# ---------------------------------------------------------------- onnx


def operator(layer: str, kind: str, change: Callable[[Any], object]) -> Change:
    """Change the node of a layer's operator."""

    def found(graph: Any) -> None:
        [node] = [
            n for n in d.nodes(graph, kind) if any(p.value == layer for p in n.metadata_props)
        ]
        change(node)

    return in_graph(found)


def as_matmul(layer: str) -> Change:
    """MatMul with the layer's own weights in float32, where MatMulNBits was."""

    def change(export: Export, folder: Path) -> None:
        from onnx import numpy_helper

        weight = dequantize(export.quantized(layer).weight, torch.float32).T.contiguous()
        found = numpy_helper.from_array(weight.numpy(), f"{layer}.weight")

        def node_changed(node: Any) -> None:
            node.op_type, node.domain = "MatMul", ""
            node.input[:] = [node.input[0], found.name]
            del node.attribute[:]

        def graph_changed(graph: Any) -> None:
            for part in ("codes", "scale"):
                graph.initializer.remove(d.initializer(graph, f"{layer}.{part}"))
            graph.initializer.append(found)

        operator(layer, "MatMulNBits", node_changed)(export, folder)
        d.graph(folder, graph_changed)

    return change


def integer(name: str, value: int) -> Callable[[Any], None]:
    return lambda node: setattr(d.attribute(node, name), "i", value)


def inputs_reordered(graph: Any) -> None:
    graph.input.insert(0, graph.input.pop(1))


def input_renamed(graph: Any) -> None:
    name = graph.input[0].name
    graph.input[0].name = "tokens"
    for node in graph.node:
        node.input[:] = ["tokens" if x == name else x for x in node.input]


def outputs_exchanged(graph: Any) -> None:
    """Keys of two blocks."""
    first, second = (next(o for o in graph.output if o.name == f"present.{i}.key") for i in (1, 2))
    names = {first.name: second.name, second.name: first.name}
    for node in graph.node:
        node.output[:] = [names.get(y, y) for y in node.output]
        node.input[:] = [names.get(x, x) for x in node.input]


def other_epsilon(value: float) -> Change:
    """Of all norms made of single operators: the constants that are 1e-5."""

    def change(graph: Any) -> None:
        import numpy as np

        old, new = np.float32(1e-5).tobytes(), np.float32(value).tobytes()
        found = [t for t in graph.initializer if t.raw_data == old]
        assert found
        for tensor in found:
            tensor.raw_data = new

    return in_graph(change)


def norm_epsilon(value: float) -> Change:
    """Of the first layer norm: its attribute."""
    return in_graph(
        lambda g: setattr(d.attribute(d.nodes(g, "LayerNormalization")[0], "epsilon"), "f", value)
    )


def extra_tensor(graph: Any) -> None:
    copy = graph.initializer.add()
    copy.CopyFrom(d.initializer(graph, "model.model.norm.weight"))
    copy.name = "extra"


def without(name: str) -> Change:
    return in_graph(lambda g: g.initializer.remove(d.initializer(g, name)))


def offsets_exchanged(first: str, second: str) -> Change:
    """Where two tensors stand in the external data."""

    def change(graph: Any) -> None:
        entries = [
            next(e for e in d.initializer(graph, name).external_data if e.key == "offset")
            for name in (first, second)
        ]
        a, b = (entry.value for entry in entries)
        entries[0].value, entries[1].value = b, a

    return in_graph(change)


HEAD = "linear.bias"
B1 = "blocks.1.attn.{}_proj"

GRAPH = [
    Corruption(OL, "a bit of codes flipped", lambda e, f: d.bit(f, f"{Q1}.codes", 9)),
    Corruption(OL, "a bit of a scale flipped", lambda e, f: d.bit(f, f"{Q1}.scale", 2),
               signed=True),
    Corruption(OL, "a bit of the embedding flipped",
               lambda e, f: d.bit(f, "model.embed_tokens.weight", 4002), signed=True),
    Corruption(OL, "a norm 1 % larger",
               lambda e, f: d.scaled(f, "model.model.layers.2.input_layernorm.weight", "f4", 1.01),
               signed=True),
    Corruption(OL, "frequencies of rotation of another model",
               lambda e, f: d.scaled(f, "model.model.rotary_emb.inv_freq", "f4", 0.5),
               signed=True),
    Corruption(OL, "the graph cut short", lambda e, f: d.cut(f / MODEL, 4096)),
    Corruption(OL, "a static input's step a bit larger",
               lambda e, f: d.bit(f, f"{O1}.step"), signed=True),
    Corruption(OL, "a layer as MatMul, its weights right", as_matmul(Q1), True),
    Corruption(OL, "accuracy_level 0 in place of 4",
               operator(mlp(1, "gate"), "MatMulNBits", integer("accuracy_level", 0)), True),
    Corruption(OL, "accuracy_level 4 in place of 0",
               operator(Q1, "MatMulNBits", lambda n: n.attribute.add(
                   name="accuracy_level", type=2, i=4)
                   if not any(a.name == "accuracy_level" for a in n.attribute)
                   else integer("accuracy_level", 4)(n)), True),
    Corruption(OL, "block_size 16 in place of 32",
               operator(Q1, "MatMulNBits", integer("block_size", 16)), True),
    Corruption(OL, "epsilon 1e-3 in place of 1e-5", other_epsilon(1e-3), True),
    Corruption(OL, "epsilon 1e-6 in place of 1e-5", other_epsilon(1e-6), True),
    Corruption(OL, "inputs in another order", in_graph(inputs_reordered), True),
    Corruption(OL, "an input of another name", in_graph(input_renamed), True),
    Corruption(OL, "keys of two blocks exchanged", in_graph(outputs_exchanged), True),
    Corruption(OL, "a tensor missing", without(f"{Q1}.scale"), True),
    Corruption(OL, "a tensor too many", in_graph(extra_tensor), True),
    Corruption(OL, "manifest: another scheme of a layer", scheme(Q1, "w4g32+gptq")),
    Corruption(OL, "manifest: a layer without its rounded inputs", scheme(attn(1, "v"), "w8")),
    Corruption(OL, "genai_config.json of another model",
               lambda e, f: d.document(f / "genai_config.json",
                                       lambda c: c["model"]["decoder"].update(
                                           num_key_value_heads=2))),
    Corruption(OV, "a bit of external data flipped",
               lambda e, f: d.bit(f, f"{B1.format('q')}.codes", 10)),
    Corruption(OV, "the external data cut short", lambda e, f: d.cut(f / DATA, 1024)),
    Corruption(OV, "the external data missing", removed(DATA)),
    Corruption(OV, "the external data of another trial", copied("other", DATA)),
    Corruption(OV, "manifest of another trial", copied("other", "bitfront.json")),
    Corruption(OV, "another trial of the study, sound in itself", whole(lambda e: e.other)),
    Corruption(OV, "places of two tensors in the external data exchanged",
               offsets_exchanged(f"{B1.format('q')}.codes", f"{B1.format('k')}.codes")),
    Corruption(OV, "a zero point flipped",
               lambda e, f: d.bit(f, f"{B1.format('out')}.zero"), signed=True),
    Corruption(OV, "a bias doubled",
               lambda e, f: d.scaled(f, f"{B1.format('v')}.bias", "f4", 2, 1), signed=True),
    Corruption(OV, "a norm with epsilon 1e-3 in place of 1e-5", norm_epsilon(1e-3), True),
    Corruption(OV, "a norm 1 % larger",
               lambda e, f: d.scaled(f, "model.blocks.2.norm1.weight", "f4", 1.01), signed=True),
]  # fmt: skip

# ---------------------------------------------------------------- safetensors

CODES = "{}.weight_codes"
WHOLE = "model-00001-*.safetensors"

NETWORK = [
    Corruption(SF, "a norm's variance 1 % larger",
               lambda e, f: d.scaled(f, "layer1.0.bn1.running_var", "f4", 1.01), signed=True),
    Corruption(SF, "a bit of a bias flipped", lambda e, f: d.bit(f, HEAD, 2), signed=True),
    Corruption(SF, "a file cut short", lambda e, f: d.cut(sorted(f.glob(LAST))[0], 8)),
    Corruption(SF, "a file missing", removed(WHOLE)),
    Corruption(SF, "a static input's step twice as large",
               lambda e, f: d.scaled(f, "layer1.0.conv2.input_scale", "f4", 2), signed=True),
    Corruption(SF, "scales of two layers exchanged",
               lambda e, f: d.exchanged(f, "layer1.0.conv1.weight_scale",
                                        "layer1.1.conv1.weight_scale"), signed=True),
    Corruption(SF, "manifest: a layer without its rounded inputs",
               scheme("linear", "w8")),
    Corruption(SF, "manifest: another scheme of a layer", scheme("conv1", "w4+gptq")),
    Corruption(SF, "another trial of the study, sound in itself", whole(lambda e: e.other)),
]  # fmt: skip

# ---------------------------------------------------------------- diffusers

HALVES = "up_blocks.0.attentions.{}.transformer_blocks.0.attn1.to_q"
Q = HALVES.format(0)
CONV = "down_blocks.0.resnets.0.conv1"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def scheduler(**values: Any) -> Change:
    """Other settings of the steps from noise to an image."""
    return lambda e, f: d.document(
        f / "scheduler" / "scheduler_config.json", lambda c: c.update(values)
    )


def sdnq(change: Callable[[dict[str, Any]], object]) -> Change:
    """Change what the denoiser's config says of quantized layers."""
    return lambda e, f: d.document(
        f / "unet" / "config.json", lambda c: change(c["quantization_config"])
    )


def left_alone(name: str) -> Change:
    def change(content: dict[str, Any]) -> None:
        del content["modules_quant_config"][f"{name}.weight"]
        content["modules_to_not_convert"].append(f"{name}.weight")

    return sdnq(change)


PIPELINE = [
    Corruption(DF, "a bit of codes flipped", lambda e, f: d.bit(f, f"{Q}.weight", 3)),
    Corruption(DF, "a bit of codes flipped", lambda e, f: d.bit(f, f"{Q}.weight", 3), signed=True),
    Corruption(DF, "a scale 1 % larger",
               lambda e, f: d.scaled(f, f"{Q}.scale", "f4", 1.01, 1), signed=True),
    Corruption(DF, "a bit of a norm flipped",
               lambda e, f: d.bit(f, "down_blocks.0.resnets.0.norm1.weight"), signed=True),
    Corruption(DF, "a bit of a bias flipped",
               lambda e, f: d.bit(f, f"{CONV}.bias"), signed=True),
    Corruption(DF, "codes of two layers exchanged",
               lambda e, f: d.exchanged(f, f"{Q}.weight", f"{HALVES.format(1)}.weight"),
               signed=True),
    Corruption(DF, "the denoiser's file cut short", lambda e, f: d.cut(f / WEIGHTS, 64)),
    Corruption(DF, "the denoiser's file missing", removed(WEIGHTS)),
    Corruption(DF, "the denoiser's file of another trial", copied("other", WEIGHTS)),
    Corruption(DF, "the autoencoder missing", removed("vae/*.safetensors")),
    Corruption(DF, "a bit of the autoencoder flipped",
               lambda e, f: d.flip(f / "vae" / "diffusion_pytorch_model.safetensors", -200)),
    Corruption(DF, "a bit of the text encoder flipped",
               lambda e, f: d.flip(f / "text_encoder" / "model.safetensors", -200)),
    Corruption(DF, "scheduler_config.json: other noise", scheduler(beta_end=0.03), True),
    Corruption(DF, "scheduler_config.json: predicts velocity",
               scheduler(prediction_type="v_prediction"), True),
    Corruption(DF, "unet/config.json: heads of another model",
               lambda e, f: d.document(f / "unet" / "config.json",
                                       lambda c: c.update(attention_head_dim=2)), True),
    Corruption(DF, "quantization_config: other widths of a layer",
               sdnq(lambda c: c["modules_quant_config"][f"{CONV}.weight"].update(
                   weights_dtype="uint4")), True),
    Corruption(DF, "quantization_config: a layer left alone", left_alone(CONV), True),
    Corruption(DF, "manifest: another scheme of a layer", scheme(CONV, "w4+gptq")),
    Corruption(DF, "no manifest", removed("bitfront.json")),
    Corruption(DF, "weights of another seed", whole(lambda e: e.reseeded)),
    Corruption(DF, "another trial of the study, sound in itself", whole(lambda e: e.other)),
]  # fmt: skip

CORRUPTIONS = [*PACKED, *BLOCKS, *GRAPH, *NETWORK, *PIPELINE]


def audited(export: Export, room: Path, change: Change | None) -> dict[str, Any]:
    """What the audit finds in a copy of the sound folder, changed."""
    copy = room / "copy"
    shutil.copytree(export.sound, copy)
    before = contents(copy)
    try:
        if change is not None:
            change(export, copy)
            assert contents(copy) != before
        begun = time.perf_counter()
        found = export.compare(copy)
        return {
            "caught": not found.ok,
            "failure": found.failures[0].replace(f"{room}/", "") if found.failures else None,
            "max difference": found.max_difference,
            "spread": found.spread,
            "seconds": time.perf_counter() - begun,
        }
    finally:
        shutil.rmtree(copy)


def described(corruption: Corruption, export: Export, room: Path) -> dict[str, Any]:
    """What the audit makes of a corruption."""
    return {
        "container": export.container.name,
        "done": corruption.what,
        "signed": corruption.signed,
        **audited(export, room, corruption.apply),
    }


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class Rows:
    """What was found, by name; kept in a file of lines where there is one."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.found = path, dict[str, dict[str, Any]]()
        if path is not None and path.is_file():
            rows = map(json.loads, path.read_text().splitlines())
            self.found = {row["name"]: row for row in rows}

    def add(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of a name, made where it is not known."""
        if name not in self.found:
            row = self.found[name] = {"name": name, **plain(make())}
            print(json.dumps(row), file=sys.stderr, flush=True)
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        return self.found[name]


def main(options: argparse.Namespace) -> int:
    rows = Rows(options.resume)
    sound, damaged = [], []
    with tempfile.TemporaryDirectory(prefix="bitfront-corruptions-") as name:
        room = Path(name)
        made = exports(options.assets, room)
        for key, export in made.items():
            wanted = [c for c in CORRUPTIONS if c.export == key and options.only in c.name]
            if not wanted:
                continue
            sound.append(rows.add(f"{key}: sound", partial(audited, export, room, None)))
            for c in wanted:
                damaged.append(rows.add(c.name, partial(described, c, export, room)))
    columns = ["name", "caught", "failure"]
    show("Corruptions", columns, [[row[c] for c in columns] for row in [*sound, *damaged]])
    caught = sum(row["caught"] for row in damaged)
    print(f"{caught} of {len(damaged)} caught", file=sys.stderr)
    write({**head(), "caught": caught, "of": len(damaged), "sound": sound, "corruptions": damaged})
    return 0 if caught == len(damaged) and not any(row["caught"] for row in sound) else 1


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--resume", type=Path, help="a file of what is known")
    parser.add_argument("--only", default="", help="words in a corruption's name")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    sys.exit(main(parsed(parser, 1)))
