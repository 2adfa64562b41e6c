"""Pieces of ONNX graphs: tensors of few bits, nodes with names, a layer's product with a matrix.

M   (rows, cols), a layer's weights as ``layers`` has them, whatever its kind
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .layers import own_forward
from .packing import pack, unpack
from .stored import tensor_name

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

MICROSOFT = "com.microsoft"
LAYER = "bitfront.layer"  # metadata of the nodes of a layer's first call: its name
OPSET = 21  # the first with INT4
WEIGHTS = ("weight", "codes", "scale", "zero")  # suffixes of what stands for a weight

_HALF_BYTES = ("INT4", "UINT4")
_PADDING = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}  # torch's -> ONNX's


class Nodes:
    """Nodes and tensors of one layer, their names under the layer's own.

    call: how often the model has called it before; its tensors are the same each time. owner: the
    layer whose tensors it uses instead of its own, but for the bias.
    """

    def __init__(self, layer: str, call: int = 0, owner: str | None = None) -> None:
        self._layer, self._call, self._owner = layer, call, owner
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []

    def name(self, suffix: str) -> str:
        """The full name of one of the layer's tensors."""
        return tensor_name(self._layer, suffix)

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Append a node; the name of its output. An input that is left out is ''."""
        from onnx import helper

        again = f"_call_{self._call}" if self._call else ""
        output = self.name(f"{op}_{len(self.nodes)}{again}")
        node = helper.make_node(op, inputs, [output], name=output, domain=domain, **attributes)
        if not self._call:
            node.metadata_props.add(key=LAYER, value=self._layer)
        self.nodes.append(node)
        return output

    def hold(self, suffix: str, values: Tensor, kind: str | None = None) -> str:
        """Add a tensor; its name. kind: ONNX's type, where torch has none for it (``INT4``)."""
        if self._owner is not None and suffix in WEIGHTS:
            return tensor_name(self._owner, suffix)
        self.tensors.append(to_proto(self.name(suffix), values, kind))
        return self.name(suffix)

    def shape(self, *sizes: int) -> str:
        """A tensor of sizes."""
        return self.hold(f"shape_{len(self.tensors)}", torch.tensor(sizes, dtype=torch.int64))

    def cast(self, name: str, kind: str) -> str:
        """``name`` as numbers of ONNX's type ``kind``."""
        from onnx import TensorProto

        return self.add("Cast", name, to=getattr(TensorProto, kind))


def to_proto(name: str, values: Tensor, kind: str | None = None) -> TensorProto:
    """``values`` as a tensor of a graph. ``INT4`` and ``UINT4``: of int8 and uint8 codes."""
    from onnx import TensorProto, helper

    values = values.detach().cpu().contiguous()
    shape = list(values.shape)
    if kind in _HALF_BYTES:
        halves = (values.to(torch.int16) & 0xF).to(torch.uint8)
        raw = pack(halves.reshape(1, -1), 4).numpy().tobytes()
        return helper.make_tensor(name, getattr(TensorProto, kind), shape, raw, raw=True)
    kinds = {
        torch.float32: "FLOAT", torch.float64: "DOUBLE", torch.float16: "FLOAT16",
        torch.bfloat16: "BFLOAT16", torch.int8: "INT8", torch.uint8: "UINT8",
        torch.int32: "INT32", torch.int64: "INT64", torch.bool: "BOOL",
    }  # fmt: skip
    raw = values.reshape(-1).view(torch.uint8).numpy().tobytes()
    kind = kinds[values.dtype]
    return helper.make_tensor(name, getattr(TensorProto, kind), shape, raw, raw=True)


def from_proto(proto: TensorProto) -> Tensor:
    """The inverse of ``to_proto``: half bytes as int8 or uint8."""
    from onnx import TensorProto, numpy_helper

    kind = TensorProto.DataType.Name(proto.data_type)
    shape = tuple(proto.dims)
    if kind in _HALF_BYTES:
        packed = torch.frombuffer(bytearray(proto.raw_data), dtype=torch.uint8)
        codes = unpack(packed.reshape(1, -1), 4, int(np.prod(shape))).reshape(shape)
        return ((codes ^ 8).to(torch.int8) - 8) if kind == "INT4" else codes
    if kind == "BFLOAT16":
        return torch.frombuffer(bytearray(proto.raw_data), dtype=torch.bfloat16).reshape(shape)
    return torch.from_numpy(numpy_helper.to_array(proto).copy())


def product(nodes: Nodes, module: Any, kind: str, x: str, M: str) -> str:
    """The layer's output for the input ``x`` with weights ``M``, a float tensor, without bias.

    module: the layer's, for what a convolution is besides its weights. A runtime lays weights out
    anew once, when it loads.
    """
    if kind == "embedding":
        return nodes.add("Gather", M, x, axis=0)
    if kind in ("linear", "hf_conv1d"):
        return nodes.add("MatMul", x, nodes.add("Transpose", M, perm=[1, 0]))
    shape = tuple(module.weight.shape)
    if not kind.startswith("conv_transpose"):
        w = nodes.add("Reshape", M, nodes.shape(*shape))
        x, geometry = convolved(nodes, module, x)
        return nodes.add("Conv", x, w, **geometry)
    G = module.groups
    apart = nodes.add("Reshape", M, nodes.shape(G, shape[1], shape[0] // G, -1))
    w = nodes.add("Reshape", nodes.add("Transpose", apart, perm=[0, 2, 1, 3]), nodes.shape(*shape))
    return nodes.add(
        "ConvTranspose", x, w, pads=[*module.padding, *module.padding],
        output_padding=list(module.output_padding), **_geometry(module),
    )  # fmt: skip


def convolved(nodes: Nodes, module: Any, x: str) -> tuple[str, dict[str, Any]]:
    """What a convolution that is not transposed convolves of its input, and its attributes."""
    pads = module._reversed_padding_repeated_twice  # last dimension first, (left, right) each
    before, after = pads[::2][::-1], pads[1::2][::-1]
    if module.padding_mode != "zeros":
        widths = nodes.shape(0, 0, *before, 0, 0, *after)
        x = nodes.add("Pad", x, widths, mode=_PADDING[module.padding_mode])
        before, after = [0] * len(before), [0] * len(after)
    return x, {"pads": [*before, *after], **_geometry(module)}


def _geometry(module: Any) -> dict[str, Any]:
    return {
        "kernel_shape": list(module.kernel_size), "strides": list(module.stride),
        "dilations": list(module.dilation), "group": module.groups,
    }  # fmt: skip


def with_bias(nodes: Nodes, module: Any, kind: str, y: str) -> str:
    """``y`` plus the layer's bias, if it has one; times the scale of a scaled embedding."""
    scale = getattr(module, "embed_scale", None) if own_forward(kind, module) else None
    if scale is not None:  # as the classes of transformers call it, for Gemma and BART
        return nodes.add("Mul", y, nodes.hold("embed_scale", torch.as_tensor(scale).float()))
    bias = getattr(module, "bias", None)
    if bias is None:
        return y
    if kind not in ("linear", "hf_conv1d"):
        bias = bias.reshape(-1, *[1] * (module.weight.ndim - 2))  # channels first
    return nodes.add("Add", y, nodes.hold("bias", bias))
