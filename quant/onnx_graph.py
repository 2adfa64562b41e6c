"""Whole graphs: one layer alone, or a traced model whose holes are filled in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import nn

from bitfront.types import Layer

from .onnx_forms import Form
from .onnx_parts import MICROSOFT, OPSET, Nodes, with_bias
from .onnx_trace import DOMAIN
from .weights import QuantizedLayer

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, OperatorSetIdProto, TensorProto

IR_VERSION = 10


@dataclass(frozen=True, eq=False)
class Fill:
    """What a layer's holes are filled with.

    make: gives its weights. owner: the layer whose tensors it uses instead of its own.
    """

    form: Form
    module: nn.Module
    layer: Layer
    make: Callable[[], QuantizedLayer]
    owner: str | None = None

    def nodes(self, x: str, y: str, call: int = 0) -> Nodes:
        """The layer's nodes from ``x`` to ``y``, and its tensors. call: the calls before this."""
        nodes = Nodes(self.layer.name, call, self.owner)
        output = self.form.build(nodes, self.module, self.layer, self.make(), x)
        if not self.form.biased:
            with_bias(nodes, self.module, self.layer.kind, output)
        nodes.nodes[-1].output[0] = y
        return nodes


def holes(trace: ModelProto) -> set[str]:
    """The layers that the traced model calls."""
    from onnx import helper

    nodes = (node for node in trace.graph.node if node.domain == DOMAIN)
    return {helper.get_node_attr_value(node, "layer").decode() for node in nodes}


def filled(
    trace: ModelProto, fills: Mapping[str, Fill], put: Callable[[TensorProto], object]
) -> ModelProto:
    """The graph of ``traced`` with every layer's nodes and tensors.

    put: is given each tensor as soon as it is made, and may take its bytes elsewhere.
    """
    from onnx import ModelProto, helper

    graph = ModelProto()
    graph.CopyFrom(trace)
    for tensor in graph.graph.initializer:
        put(tensor)
    nodes_before = list(graph.graph.node)
    del graph.graph.node[:]
    calls: Counter[str] = Counter()
    for node in nodes_before:
        if node.domain != DOMAIN:
            graph.graph.node.append(node)
            continue
        layer = helper.get_node_attr_value(node, "layer").decode()
        nodes = fills[layer].nodes(node.input[0], node.output[0], calls[layer])
        graph.graph.node.extend(nodes.nodes)
        for tensor in [] if calls[layer] else nodes.tensors:
            put(tensor)
            graph.graph.initializer.append(tensor)
        calls[layer] += 1
    imports = [o for o in graph.opset_import if o.domain not in (DOMAIN, MICROSOFT)]
    del graph.opset_import[:]
    graph.opset_import.extend([*imports, helper.make_opsetid(MICROSOFT, 1)])
    return graph


def alone(fill: Fill, shape: Sequence[int]) -> ModelProto:
    """A model of that layer only, with tensors of its own, from ``x`` (of ``shape``) to ``y``."""
    from onnx import helper

    nodes = replace(fill, owner=None).nodes("x", "y")
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    return of_layer(fill.layer, nodes.nodes, nodes.tensors, shape, imports, IR_VERSION)


def of_layer(
    layer: Layer,
    nodes: Sequence[NodeProto],
    tensors: Sequence[TensorProto],
    shape: Sequence[int],
    imports: Sequence[OperatorSetIdProto],
    ir_version: int,
) -> ModelProto:
    """A model of a layer's nodes, from ``x`` (of ``shape``) to ``y``."""
    from onnx import TensorProto, helper

    kind = TensorProto.INT64 if layer.kind == "embedding" else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
