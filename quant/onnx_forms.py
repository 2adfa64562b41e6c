"""Layers as nodes of an ONNX graph, in the forms of ``onnx_stored``.

A form computes what ``surgery.applied`` does, up to the order of sums. Tensors, besides the bias:

float     weight (rows, cols)
folded    weight (rows, cols) of 16 bits; or codes (rows, groups, g), and scale and zero
          (rows, groups, 1)
blocked   codes (rows, groups, bytes), scale (rows, groups), zero (rows, bytes)
integer   codes (cols, rows), scale (rows,), step () of static inputs, offset () with zero points
rounded   codes as the module has them, scale (rows,), bias (rows,) of int32, step () and offset ()
          of inputs, output_step () and output_offset () of outputs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bitfront.registry import Registry
from bitfront.types import Layer, Scheme

from .activations import rounded_bias
from .onnx_parts import MICROSOFT, Nodes, convolved, product
from .packing import pack, to_signed, to_unsigned, unpack
from .stored import CASTS, groups
from .weights import QuantizedLayer, QuantizedWeight

MIDDLE = 128  # zero point of inputs as UINT8, which are symmetric

Named = Mapping[str, Tensor]  # suffix -> tensor


class Form(NamedTuple):
    """build: adds a layer's nodes and tensors; the name of its output, without bias unless it is
    ``biased``. weight: what the tensors of a file stand for.
    """

    build: Callable[[Nodes, nn.Module, Layer, QuantizedLayer, str], str]
    weight: Callable[[Layer, Scheme, Named], QuantizedWeight]
    biased: bool = False


FORMS: Registry[Form] = Registry("form of a layer")


def _float(nodes: Nodes, module: nn.Module, layer: Layer, q: QuantizedLayer, x: str) -> str:
    return product(nodes, module, layer.kind, x, nodes.hold("weight", q.weight.codes))


def _float_weight(layer: Layer, scheme: Scheme, tensors: Named) -> QuantizedWeight:
    return QuantizedWeight(scheme, tensors["weight"])


def _folded(nodes: Nodes, module: nn.Module, layer: Layer, q: QuantizedLayer, x: str) -> str:
    w, scheme = q.weight, q.weight.scheme
    if scheme.format in CASTS:
        M = nodes.cast(nodes.hold("weight", w.codes), "FLOAT")
        return product(nodes, module, layer.kind, x, M)
    assert w.scale is not None
    kind = _code_kind(scheme)
    codes = w.codes.unflatten(1, (groups(layer, scheme), -1))
    M = nodes.cast(nodes.hold("codes", codes, kind), "FLOAT")
    if w.zero is not None:
        zero = nodes.cast(nodes.hold("zero", w.zero.unsqueeze(-1), kind), "FLOAT")
        M = nodes.add("Sub", M, zero)
    scale = nodes.cast(nodes.hold("scale", w.scale.unsqueeze(-1)), "FLOAT")
    M = nodes.add("Reshape", nodes.add("Mul", M, scale), nodes.shape(layer.rows, layer.cols))
    return product(nodes, module, layer.kind, x, M)


def _folded_weight(layer: Layer, scheme: Scheme, tensors: Named) -> QuantizedWeight:
    if scheme.format in CASTS:
        return QuantizedWeight(scheme, tensors["weight"])
    zero = None if scheme.symmetric else tensors["zero"].squeeze(-1)
    return QuantizedWeight(scheme, tensors["codes"].flatten(1), tensors["scale"].squeeze(-1), zero)


def _blocked(nodes: Nodes, module: nn.Module, layer: Layer, q: QuantizedLayer, x: str) -> str:
    """At accuracy level 4 for ``a8g``: inputs of 8 bits in the groups of the weights."""
    w, scheme = q.weight, q.weight.scheme
    assert w.scale is not None
    unsigned = to_unsigned(w.codes, scheme.bits) if scheme.symmetric else w.codes
    packed = pack(unsigned, scheme.bits).unflatten(1, (groups(layer, scheme), -1))
    inputs = [x, nodes.hold("codes", packed), nodes.cast(nodes.hold("scale", w.scale), "FLOAT")]
    if w.zero is not None:
        inputs.append(nodes.hold("zero", pack(w.zero, scheme.bits)))
    return nodes.add(
        "MatMulNBits", *inputs, domain=MICROSOFT, K=layer.cols, N=layer.rows, bits=scheme.bits,
        block_size=scheme.group, accuracy_level=0 if scheme.activation is None else 4,
    )  # fmt: skip


def _blocked_weight(layer: Layer, scheme: Scheme, tensors: Named) -> QuantizedWeight:
    codes = unpack(tensors["codes"].flatten(1), scheme.bits, layer.cols)
    if scheme.symmetric:
        return QuantizedWeight(scheme, to_signed(codes, scheme.bits), tensors["scale"])
    zero = unpack(tensors["zero"], scheme.bits, groups(layer, scheme))
    return QuantizedWeight(scheme, codes, tensors["scale"], zero)


def _integer(nodes: Nodes, module: nn.Module, layer: Layer, q: QuantizedLayer, x: str) -> str:
    """Dynamic inputs are divided by each token's step, and the products multiplied by it."""
    codes, scale = _rows(nodes, q.weight, q.weight.codes.T)
    steps = None
    if q.input_scale is not None:
        step, middle = _grid(nodes, "", q.input_scale, q.input_zero)
    else:
        middle = _offset(nodes, "middle", MIDDLE)
        steps, step = _steps(nodes, x), nodes.hold("one", torch.tensor(1.0))
        x = nodes.add("Div", x, steps)
    rounded = nodes.add("QuantizeLinear", x, step, middle)
    y = nodes.add("MatMulIntegerToFloat", rounded, codes, step, scale, middle, domain=MICROSOFT)
    return y if steps is None else nodes.add("Mul", y, steps)


def _integer_weight(layer: Layer, scheme: Scheme, tensors: Named) -> QuantizedWeight:
    codes, scale = tensors["codes"].T.contiguous(), tensors["scale"].unsqueeze(-1)
    return QuantizedWeight(scheme, codes, scale)


def _rounded(nodes: Nodes, module: Any, layer: Layer, q: QuantizedLayer, x: str) -> str:
    """The bias is added to the sums of products, as int32, before the output is rounded."""
    assert q.input_scale is not None
    assert q.output_scale is not None
    x, geometry = convolved(nodes, module, x)
    codes, scale = _rows(nodes, q.weight, q.weight.codes.reshape(module.weight.shape))
    given = _grid(nodes, "", q.input_scale, q.input_zero)
    made = _grid(nodes, "output_", q.output_scale, q.output_zero)
    nothing = nodes.hold("nothing", torch.tensor(0, dtype=torch.int8))
    inputs = [nodes.add("QuantizeLinear", x, *given), *given, codes, scale, nothing, *made]
    if module.bias is not None:
        inputs.append(nodes.hold("bias", rounded_bias(q, module.bias)[0]))
    return nodes.add("DequantizeLinear", nodes.add("QLinearConv", *inputs, **geometry), *made)


def _rounded_weight(layer: Layer, scheme: Scheme, tensors: Named) -> QuantizedWeight:
    return QuantizedWeight(scheme, tensors["codes"].flatten(1), tensors["scale"].unsqueeze(-1))


def _rows(nodes: Nodes, weight: QuantizedWeight, codes: Tensor) -> tuple[str, str]:
    """Codes as int8, and the scales of rows as float32."""
    assert weight.scale is not None
    kind = _code_kind(weight.scheme)
    held = nodes.hold("codes", codes, kind)
    if kind == "INT4":
        held = nodes.cast(held, "INT8")
    return held, nodes.cast(nodes.hold("scale", weight.scale[:, 0]), "FLOAT")


def _grid(nodes: Nodes, part: str, step: Tensor, zero: int | None) -> tuple[str, str]:
    """Step and zero point of UINT8 inputs or outputs."""
    held = nodes.hold(f"{part}step", step)
    if zero is None:
        return held, _offset(nodes, f"{part}middle", MIDDLE)
    return held, _offset(nodes, f"{part}offset", zero)


def _offset(nodes: Nodes, suffix: str, zero: int) -> str:
    return nodes.hold(suffix, torch.tensor(zero, dtype=torch.uint8))


def _steps(nodes: Nodes, x: str) -> str:
    """Of each token, as ``activations`` has them: max|x| / 127.5, and not 0."""
    last = nodes.hold("last", torch.tensor([-1]))
    most = nodes.add("ReduceMax", nodes.add("Abs", x), last, keepdims=1)
    step = nodes.add("Div", most, nodes.hold("half", torch.tensor(127.5)))
    eps = nodes.hold("eps", torch.tensor(torch.finfo(torch.float32).eps))
    positive = nodes.add("Greater", step, nodes.hold("nothing", torch.tensor(0.0)))
    return nodes.add("Where", positive, step, eps)


FORMS["float"] = Form(_float, _float_weight)
FORMS["folded"] = Form(_folded, _folded_weight)
FORMS["blocked"] = Form(_blocked, _blocked_weight)
FORMS["integer"] = Form(_integer, _integer_weight)
FORMS["rounded"] = Form(_rounded, _rounded_weight, biased=True)


def _code_kind(scheme: Scheme) -> str:
    """ONNX's type of a code that is not packed by hand."""
    return f"{'' if scheme.symmetric else 'U'}INT{4 if scheme.bits <= 4 else 8}"
