"""Corruptions of ONNX folders: a Llama with its cache, a vision transformer with external data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import damage as d
from benchmarks.corruptions.changes import (
    O1,
    Q1,
    Change,
    Corruption,
    attn,
    copied,
    in_graph,
    mlp,
    removed,
    scheme,
    whole,
)
from benchmarks.exports import Export
from bitfront.quant.formats import dequantize

OL, OV = "onnx, Llama", "onnx, ViT"
MODEL, DATA = "model.onnx", "model.onnx.data"


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
