"""An exported graph, read back: its tensors, the weights they stand for, each layer's nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfront.errors import ExportError
from bitfront.types import Layer, Scheme

from .export_onnx import FILE, raw_digest, require_onnx, tensors_size
from .onnx_forms import FORMS
from .onnx_graph import of_layer
from .onnx_parts import LAYER, from_proto
from .onnx_stored import core_of, form_of, in_onnx, reason
from .stored import tensor_name
from .weights import QuantizedLayer

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


class OnnxFile:
    """``model.onnx`` of a folder. Raises ``ExportError`` where it does not open."""

    def __init__(self, folder: Path) -> None:
        require_onnx()
        import onnx

        try:
            self.graph = onnx.load(folder / FILE)
        except Exception as error:  # protobuf, onnx and the file system each have their own
            raise ExportError(
                f"{FILE} in {folder.name!r} does not open: {error}", "export the model again"
            ) from error
        self._tensors = {t.name: t for t in self.graph.graph.initializer}
        self._nodes: dict[str, list[NodeProto]] = {}
        for node in self.graph.graph.node:
            for prop in node.metadata_props:
                if prop.key == LAYER:
                    self._nodes.setdefault(prop.value, []).append(node)

    @property
    def bytes(self) -> int:
        """Of all tensors."""
        return tensors_size(self.graph)

    @property
    def unused(self) -> list[str]:
        """Tensors that no node takes."""
        used = {y.name for y in self.graph.graph.output} | set(_taken(self.graph.graph.node))
        return [name for name in self._tensors if name not in used]

    def verify(self, digests: Mapping[str, str]) -> None:
        """Raises ``ExportError`` unless the tensors are those of ``digests``, to the bit."""
        for name in digests.keys() | self._tensors.keys():
            if name not in digests:
                raise ExportError(f"tensor {name!r} is not of this export", "export it again")
            if raw_digest(self._tensor(name)) != digests[name]:
                raise ExportError(
                    f"tensor {name!r} has changed since it was written", "export it again"
                )

    def calls(self, layer: str) -> bool:
        """Whether the graph computes the layer, rather than only using its weight."""
        return layer in self._nodes

    def layer_bytes(self, layer: Layer, scheme: Scheme) -> int:
        """Of the layer's tensors that ``in_onnx`` counts."""
        names = (tensor_name(layer.name, suffix) for suffix in in_onnx(layer, scheme))
        return sum(len(self._tensor(name).raw_data) for name in names)

    def quantized(self, layer: Layer, scheme: Scheme) -> QuantizedLayer:
        """What the tensors of a layer stand for. Raises ``ExportError`` where one is missing."""
        form = form_of(layer, scheme)
        if form is None:
            raise ExportError(f"{layer.name!r} as {scheme}", str(reason(layer, scheme)))
        owner = layer.shares or layer.name
        suffixes = in_onnx(Layer(owner, layer.kind, layer.rows, layer.cols), scheme)
        named = {s: from_proto(self._tensor(tensor_name(owner, s))) for s in suffixes}
        offset, output_offset = (named.get(f"{part}offset") for part in ("", "output_"))
        return QuantizedLayer(
            FORMS[form].weight(layer, scheme, named),
            named.get("step"),
            input_zero=None if offset is None else int(offset),
            output_scale=named.get("output_step"),
            output_zero=None if output_offset is None else int(output_offset),
        )

    def other_precision(self, layer: Layer, scheme: Scheme) -> str | None:
        """What the layer is computed by, where that is not what its scheme asks for."""
        from onnx import helper

        operator, attributes = core_of(layer, scheme)
        nodes = self._nodes[layer.name]
        for node in nodes:
            if node.op_type == operator:
                found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
                wrong = {n: found.get(n) for n, v in attributes.items() if found.get(n) != v}
                return f"{operator} with {wrong}" if wrong else None
        return f"computed by {', '.join(node.op_type for node in nodes)}, not {operator}"

    def alone(self, layer: Layer, shape: tuple[int, ...]) -> ModelProto:
        """The layer's own nodes as a graph from ``x`` (of ``shape``) to ``y``."""
        from onnx import NodeProto

        nodes = self._nodes[layer.name]
        (given,), last = self._given(layer.name), nodes[-1].output[0]
        renamed = {given: "x", last: "y"}
        copies = []
        for node in nodes:
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [renamed.get(name, name) for name in node.input]
            copy.output[:] = [renamed.get(name, name) for name in node.output]
            copies.append(copy)
        used = {name for node in copies for name in node.input}
        tensors = [tensor for name, tensor in self._tensors.items() if name in used]
        return of_layer(
            layer, copies, tensors, shape, self.graph.opset_import, self.graph.ir_version
        )

    def ends(self, layer: str) -> tuple[str, str] | None:
        """What a layer is given, and what it gives; None where it is called several times."""
        given, nodes = self._given(layer), self._nodes[layer]
        return (*given, nodes[-1].output[0]) if len(given) == 1 else None

    def between(
        self, known: Mapping[str, tuple[int, ...]], asked: Mapping[str, bool]
    ) -> ModelProto:
        """The graph without its layers' nodes: what they give (of these shapes) are inputs.

        asked: values that it gives besides its outputs, and whether they are indices.
        """
        from onnx import ModelProto, TensorProto, helper

        mine = {y for nodes in self._nodes.values() for node in nodes for y in node.output}
        rest = [node for node in self.graph.graph.node if not mine.intersection(node.output)]
        used = {y.name for y in self.graph.graph.output} | set(_taken(rest))
        cut = ModelProto(ir_version=self.graph.ir_version, opset_import=self.graph.opset_import)
        cut.functions.extend(self.graph.functions)
        cut.graph.name = self.graph.graph.name
        cut.graph.node.extend(rest)
        cut.graph.initializer.extend(t for name, t in self._tensors.items() if name in used)
        cut.graph.input.extend(self.graph.graph.input)
        cut.graph.output.extend(self.graph.graph.output)
        for name, shape in known.items():
            cut.graph.input.append(
                helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
            )
        there = {y.name for y in cut.graph.output}
        for name in sorted(set(asked) - there):
            kind = TensorProto.INT64 if asked[name] else TensorProto.FLOAT
            cut.graph.output.append(helper.make_tensor_value_info(name, kind, None))
        return cut

    def _given(self, layer: str) -> set[str]:
        """What the nodes of a layer take from elsewhere."""
        nodes = self._nodes[layer]
        made = {name for node in nodes for name in node.output}
        return {
            name
            for node in nodes
            for name in node.input
            if name and name not in made and name not in self._tensors
        }

    def _tensor(self, name: str) -> Any:
        if name not in self._tensors:
            raise ExportError(f"tensor {name!r} is missing", "export the model again")
        return self._tensors[name]


def _taken(nodes: Iterable[NodeProto]) -> Iterator[str]:
    """What nodes take, those of their subgraphs too."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _taken(graph.node)
                yield from (y.name for y in graph.output)
