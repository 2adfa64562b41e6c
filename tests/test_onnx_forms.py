"""Layers as ONNX nodes: ONNX Runtime gives what the quantized module gives, and nothing is lost."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bitfront.quant.costs import tensor_bytes
from bitfront.quant.export_onnx import fill_of
from bitfront.quant.layers import adapter_of
from bitfront.quant.onnx_forms import FORMS
from bitfront.quant.onnx_graph import alone
from bitfront.quant.onnx_parts import from_proto, to_proto
from bitfront.quant.onnx_run import Session
from bitfront.quant.onnx_stored import core_of, form_of, in_onnx, reason
from bitfront.quant.quantizers import quantize
from bitfront.quant.surgery import applied
from bitfront.quant.weights import QuantizedLayer, QuantizedWeight
from bitfront.types import Layer, Scheme, parse_schemes
from tests.modules import with_made_up_grids

SCHEMES = parse_schemes(
    "keep bf16 fp16 w2 w3 w4 w5 w8 w3z w8z w4g8 w3g16z w4g16z w4g32 w8g32 w4g32a8g w4g16za8g "
    "w2g32za8g w8g16a8g w8g32za8g w8a8 w8a8s w4a8 w3a8s w6a8 w8a8sz w3a8sz "
    "w8a8so w8a8szo w4a8szo w5a8so"
)
FLOAT = ("float", "folded")


def _modules() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Layers of every kind, and the shapes of their inputs."""
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    return {
        "linear": (nn.Linear(64, 40), (2, 5, 64)),
        "vectors": (nn.Linear(64, 40, bias=False), (3, 64)),
        "hf_conv1d": (Conv1D(40, 64), (2, 5, 64)),
        "embedding": (nn.Embedding(50, 32), (2, 7)),
        "conv1d": (nn.Conv1d(16, 6, 5, padding=2), (2, 16, 20)),
        "conv2d": (nn.Conv2d(8, 12, 3, stride=2, padding=(1, 0), groups=2), (2, 8, 9, 11)),
        "same": (nn.Conv2d(8, 12, (3, 5), padding="same", dilation=2), (2, 8, 9, 11)),
        "reflect": (nn.Conv2d(8, 12, 3, padding=(1, 2), padding_mode="reflect"), (2, 8, 6, 7)),
        "circular": (nn.Conv1d(16, 6, 3, padding=2, padding_mode="circular"), (2, 16, 9)),
        "replicate": (nn.Conv1d(16, 6, 3, padding=1, padding_mode="replicate"), (2, 16, 9)),
        "conv_transpose2d": (
            nn.ConvTranspose2d(8, 12, 3, stride=2, padding=1, output_padding=1, groups=2),
            (2, 8, 5, 6),
        ),
        "conv_transpose1d": (nn.ConvTranspose1d(16, 6, 4, stride=3, dilation=2), (2, 16, 9)),
    }


MODULES = _modules()


def given(shape: tuple[int, ...], kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if kind == "embedding":
        return torch.randint(0, 50, shape, generator=generator)
    x = torch.randn(shape, generator=generator)
    x[0, 0] = 0  # a token without a step
    return x


def quantized(module: nn.Module, scheme: Scheme) -> QuantizedLayer:
    M = adapter_of(module).matrix(module)
    if scheme.format == "keep":
        return QuantizedLayer(QuantizedWeight(scheme, M))
    return with_made_up_grids(quantize(M, scheme))


@pytest.mark.parametrize("name", list(MODULES))
def test_the_runtime_computes_what_was_measured(name: str) -> None:
    module, shape = MODULES[name]
    kind = adapter_of(module).kind
    layer = Layer(f"block.{name}", kind, *adapter_of(module).matrix(module).shape)
    model = nn.ModuleDict({"block": nn.ModuleDict({name: module})}).eval()
    x = given(shape, kind)
    used = set()
    for scheme in SCHEMES:
        form = form_of(layer, scheme)
        if form is None:
            continue
        used.add(form)
        q = quantized(module, scheme)
        with torch.no_grad(), applied(model, {} if form == "float" else {layer.name: q}):
            expected = module(x)
        graph = alone(fill_of(layer, scheme, module, lambda q=q: q), shape)  # type: ignore[misc]
        (found,) = Session(graph, 1)({"x": x})
        assert found.shape == expected.shape
        if form == "rounded":
            check_rounded(module, q, x, found)
            check_rounded(module, q, x, expected)
        else:
            assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5), str(scheme)
        operator, attributes = core_of(layer, scheme)
        (node,) = [n for n in graph.graph.node if n.op_type == operator]
        assert attributes.items() <= {a.name: a.i for a in node.attribute}.items()
        _check_tensors(graph, layer, scheme, form, q)
    more = {"linear": {"blocked", "integer"}, "hf_conv1d": {"blocked", "integer"}}
    more |= {"conv1d": {"rounded"}, "conv2d": {"rounded"}}
    assert used == {"float", "folded"} | more.get(kind, set())


def check_rounded(module: Any, q: QuantizedLayer, x: Tensor, found: Tensor) -> None:
    """Each output is a nearest step of the product in float64: up to which side of an edge."""
    assert q.input_scale is not None
    assert q.output_scale is not None
    assert q.weight.scale is not None
    units = q.weight.scale[:, 0].double() * q.input_scale.double()

    def ends(step: Tensor, zero: int | None) -> tuple[float, int, int]:
        return float(step.double()), *((-128, 127) if zero is None else (-zero, 255 - zero))

    s, lo, hi = ends(q.input_scale, q.input_zero)
    t, least, most = ends(q.output_scale, q.output_zero)
    given = ((x / q.input_scale).round().clamp(lo, hi) * s).double()
    weight = (q.weight.codes.double() * q.weight.scale.double()).reshape(module.weight.shape)
    exact = copy.deepcopy(module).double()
    exact.weight.data = weight
    if module.bias is not None:
        exact.bias.data = (module.bias.detach().double() / units).round() * units
    with torch.no_grad():
        y = exact(given).clamp(least * t, most * t)
    codes = found.double() / t
    assert (codes - codes.round()).abs().max() < 1e-4
    assert len(codes.round().unique()) > 20
    assert (found.double() - y).abs().max() < (0.5 + 1e-3) * t  # float32 near an edge


def _check_tensors(
    graph: object, layer: Layer, scheme: Scheme, form: str, q: QuantizedLayer
) -> None:
    """They stand for the layer's own weights, to the bit, in the bytes that are counted."""
    protos = {t.name: t for t in graph.graph.initializer}  # type: ignore[attr-defined]
    stored = in_onnx(layer, scheme)
    own = {suffix: protos[f"{layer.name}.{suffix}"] for suffix in stored}
    assert sum(len(t.raw_data) for t in own.values()) == sum(map(tensor_bytes, stored.values()))
    back = FORMS[form].weight(layer, scheme, {s: from_proto(t) for s, t in own.items()})
    for part in ("codes", "scale", "zero"):
        then, now = getattr(q.weight, part), getattr(back, part)
        assert (then is None) == (now is None)
        assert then is None or (then.dtype == now.dtype and torch.equal(then, now))


@pytest.mark.parametrize(
    ("kind", "scheme", "why"),
    [
        ("linear", "w4g32a8gb", "MatMulNBits rounds inputs as a8g"),
        ("linear", "w4g32a6g", "MatMulNBits rounds inputs as a8g"),
        ("linear", "w2g16a8g", "leaves inputs as they are for weights of 2 bits in groups of 16"),
        ("linear", "w3g32a8g", "MatMulNBits has weights of 2, 4 and 8 bits"),
        ("linear", "w4g8a8g", "MatMulNBits has groups of 16, 32, 64 and so on"),
        ("linear", "w8a4", "integer products take inputs of 8 bits, a8 or a8s"),
        ("linear", "w8a8b", "integer products take inputs of 8 bits, a8 or a8s"),
        ("linear", "w8g32a8", "integer products take symmetric weights with one scale for a row"),
        ("linear", "w8za8", "integer products take symmetric weights with one scale for a row"),
        ("linear", "fp8", "ONNX Runtime has no fp8; use integers, bf16 or fp16"),
        ("linear", "w8a8szo", "leave its outputs as they are; use it without o"),
        ("linear", "w8a6sz", "integer products take inputs of 8 bits, a8 or a8s"),
        ("conv2d", "w8a8s", "integer convolutions round outputs as well as inputs, to 8 bits"),
        ("conv2d", "w8a8", "integer convolutions round outputs as well as inputs, to 8 bits"),
        ("conv2d", "w8a6szo", "integer convolutions round outputs as well as inputs, to 8 bits"),
        ("conv2d", "w8za8so", "integer convolutions take symmetric weights with one scale for a"),
        ("conv_transpose2d", "w8a8so", "ONNX Runtime has no integer conv_transpose2d"),
        ("linear", "w4g24", "group size 24 does not divide 64 inputs"),
    ],
)
def test_why_there_is_no_form(kind: str, scheme: str, why: str) -> None:
    layer = Layer("a", kind, 40, 64)
    assert form_of(layer, Scheme.parse(scheme)) is None
    assert why in str(reason(layer, Scheme.parse(scheme)))


def test_other_dtypes_have_no_form() -> None:
    layer = Layer("a", "linear", 40, 64, dtype="bfloat16")
    assert "kernels are float32, and the layer is bfloat16" in str(reason(layer, SCHEMES[0]))


@pytest.mark.parametrize("kind", ["INT4", "UINT4"])
@pytest.mark.parametrize("shape", [(3, 5), (7,), (2, 2, 3)])
def test_half_bytes_come_back(kind: str, shape: tuple[int, ...]) -> None:
    least, dtype = (-8, torch.int8) if kind == "INT4" else (0, torch.uint8)
    codes = torch.randint(least, least + 16, shape, generator=torch.Generator().manual_seed(0))
    proto = to_proto("a", codes.to(dtype), kind)
    assert len(proto.raw_data) == math.ceil(codes.numel() / 2)
    assert torch.equal(from_proto(proto), codes.to(dtype))
    from onnx import numpy_helper

    assert np.array_equal(numpy_helper.to_array(proto).astype(np.int64), codes.numpy())
