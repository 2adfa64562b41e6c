"""Which layers of a traced model meet, so that one's layout of data is the other's, or is changed.

Convolutions of ONNX Runtime's CPU provider keep images in blocks of channels (NCHWc), and so do the
operators ``PASSING`` between them; others take and give plain ones. Where both kinds meet, all
elements are put in another order.

A value is from the layers whose outputs go into it by ``PASSING``, the last ``LAST`` of them, each
in an equal part. It meets the layers that take it; where values are added, what each is from meets
what the others are from. Other operators end it: what comes out of them is from no layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, product
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


LAST = 4  # predictions of ResNet-20 were as good by 3 as by all, and by the last alone worse


def neighbours(
    trace: ModelProto, inputs: Mapping[str, Sequence[int]], outputs: Mapping[str, Sequence[int]]
) -> dict[tuple[str, str], float]:
    """Two different layers that meet -> the elements that they meet at, or their part of them.

    inputs, outputs: layer -> the number of elements in and out of each of its calls.
    """
    from onnx import helper

    found: dict[tuple[str, str], float] = {}

    def meet(ones: Sequence[str], others: Sequence[str], elements: int) -> None:
        for one, other in product(ones, others):
            if one != other:
                pair = (one, other) if (other, one) not in found else (other, one)
                found[pair] = found.get(pair, 0.0) + elements / (len(ones) * len(others))

    calls: Counter[str] = Counter()
    of: dict[str, tuple[dict[str, int], int]] = {}  # value -> layers and when called; elements
    for time, node in enumerate(trace.graph.node):
        known = [of[x] for x in dict.fromkeys(node.input) if x in of]
        if node.domain == DOMAIN:
            layer = helper.get_node_attr_value(node, "layer").decode()
            call = calls[layer]
            calls[layer] += 1
            for layers, _ in known:
                meet([*layers], [layer], inputs[layer][call])
            of[node.output[0]] = {layer: time}, outputs[layer][call]
        elif node.op_type in PASSING and known:
            for (some, size), (others, other_size) in combinations(known, 2):
                meet([*some], [*others], min(size, other_size))
            latest = sorted(
                {k: t for layers, _ in known for k, t in layers.items()}.items(),
                key=lambda item: item[1],
            )[-LAST:]
            of[node.output[0]] = dict(latest), min(size for _, size in known)
    return found
