"""Which layers of a traced model meet, so that one's layout of data is the other's, or is changed.

Convolutions of ONNX Runtime's CPU provider keep images in blocks of channels (NCHWc), and so do the
operators ``PASSING`` between them; others take and give plain ones. Where both kinds meet, all
elements are put in another order.

Each value has one layer that it is from: that which was called last of those whose outputs go into
it by ``PASSING``. It meets the layers that take the value, and where values are added the layers
that those are from. Other operators end it: what comes out of them is from no layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from .onnx_trace import DOMAIN

if TYPE_CHECKING:
    from onnx import ModelProto

# those that onnxruntime/core/optimizer/nchwc_transformer.cc leaves blocked, and activations
# that are fused into a convolution
PASSING = frozenset({
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "GlobalAveragePool",
    "GlobalMaxPool", "HardSigmoid", "Identity", "LeakyRelu", "MaxPool", "Mul", "Relu", "Resize",
    "Sigmoid", "Sum", "Tanh",
})  # fmt: skip


def neighbours(
    trace: ModelProto, inputs: Mapping[str, Sequence[int]], outputs: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, str, int]]:
    """Two different layers that meet, and the elements of what they meet at; each meeting once.

    inputs, outputs: layer -> the number of elements in and out of each of its calls.
    """
    from onnx import helper

    calls: Counter[str] = Counter()
    of: dict[str, tuple[int, str, int]] = {}  # value -> when its layer was called, which, elements
    for time, node in enumerate(trace.graph.node):
        known = sorted({of[x] for x in node.input if x in of})
        if node.domain == DOMAIN:
            layer = helper.get_node_attr_value(node, "layer").decode()
            call = calls[layer]
            calls[layer] += 1
            if known and known[-1][1] != layer:
                yield known[-1][1], layer, inputs[layer][call]
            of[node.output[0]] = time, layer, outputs[layer][call]
        elif node.op_type in PASSING and known:
            *others, last = known
            for _, other, size in others:
                if other != last[1]:
                    yield other, last[1], min(size, last[2])
            of[node.output[0]] = last
