"""Quantized inputs: the runtime's own numbers, and steps of least error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bitfront.errors import ModelError
from bitfront.quant.activations import fake_quantize, rounded_bias, static_grid, static_step
from bitfront.quant.formats import dequantize
from bitfront.quant.layers import adapter_of
from bitfront.quant.quantizers import quantize
from bitfront.quant.statistics import collect
from bitfront.quant.surgery import applied
from bitfront.types import Activation, Scheme
from tests.modules import with_made_up_grids


def inputs(*shape: int) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    x[0] = 0
    return x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_dynamic_is_what_compressed_tensors_computes(bits: int, dtype: torch.dtype) -> None:
    forward = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward")
    helpers = pytest.importorskip("compressed_tensors.quantization.utils.helpers")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    args = quantization.QuantizationArgs(num_bits=bits, strategy="token", dynamic=True)
    x = inputs(2, 5, 16).to(dtype)
    scale, zero = helpers.compute_dynamic_scales_and_zp(x, args, nn.Linear(16, 2))
    theirs = forward.fake_quantize(x, scale, zero, args)
    assert torch.equal(fake_quantize("a", x, Activation(bits), "linear", None), theirs)


@pytest.mark.parametrize("bits", [4, 8])
def test_static_is_what_compressed_tensors_computes(bits: int) -> None:
    forward = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    args = quantization.QuantizationArgs(num_bits=bits, strategy="tensor")
    x, step = inputs(2, 5, 16), torch.tensor(0.13)
    theirs = forward.fake_quantize(x, step.reshape(1), torch.zeros(1, dtype=torch.int8), args)
    assert torch.equal(fake_quantize("a", x, Activation(bits, static=True), "linear", step), theirs)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("linear", (3, 4, 6)),
        ("hf_conv1d", (3, 4, 6)),
        ("conv1d", (3, 4, 6)),
        ("conv2d", (3, 4, 6, 5)),
        ("conv_transpose2d", (3, 4, 6, 5)),
    ],
)
def test_what_shares_a_dynamic_step(kind: str, shape: tuple[int, ...]) -> None:
    x = inputs(*shape)
    y = fake_quantize("a", x, Activation(8), kind, None)
    dims = (-1,) if kind in ("linear", "hf_conv1d") else tuple(range(1, x.ndim))
    step = x.abs().amax(dims, keepdim=True) / 127.5
    expected = torch.where(step > 0, (x / step).round().clamp(-128, 127) * step, 0.0)
    assert torch.equal(y, expected)


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("shape", [(3, 4, 6), (2, 3, 4, 6), (5, 6)])
@pytest.mark.parametrize("bos", [False, True])
def test_each_group_of_a_token_has_a_step(bits: int, shape: tuple[int, ...], bos: bool) -> None:
    if bos and len(shape) < 3:
        return
    x = inputs(*shape)
    y = fake_quantize("a", x, Activation(bits, bos=bos, group=3), "linear", None)
    top = 2 ** (bits - 1) - 1
    for position in np.ndindex(*shape[:-1]):
        if bos and position[-1] == 0:
            assert torch.equal(y[position], x[position])
            continue
        for at in (slice(0, 3), slice(3, 6)):
            part = x[position][at]
            step = part.abs().max() / top
            expected = (part / step).round() * step if step else part
            assert torch.equal(y[position][at], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("step", [None, torch.tensor(0.13)], ids=["dynamic", "static"])
@pytest.mark.parametrize("shape", [(3, 4, 6), (2, 3, 4, 6), (3, 1, 6)])
@pytest.mark.parametrize("kind", ["linear", "hf_conv1d"])
def test_the_first_token_stays(
    kind: str, shape: tuple[int, ...], step: Tensor | None, dtype: torch.dtype
) -> None:
    """To the bit, and the others are rounded as if it were not there."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[..., 0, :] *= 500
    y = fake_quantize("a", x, Activation(8, static=step is not None, bos=True), kind, step)
    others = x[..., 1:, :]
    s = others.abs().amax(-1, keepdim=True) / 127.5 if step is None else step.to(dtype)
    expected = torch.cat([x[..., :1, :], (others / s).round().clamp(-128, 127) * s], -2)
    assert y.dtype == dtype
    assert torch.equal(y, expected)


def test_an_input_without_tokens_has_no_first_one() -> None:
    with pytest.raises(ModelError, match=r"layer 'a' is to keep the first token of .* \(3, 6\)"):
        fake_quantize("a", inputs(3, 6), Activation(8, bos=True), "linear", None)


@pytest.mark.parametrize("bos", [False, True])
def test_gradients_pass_and_values_are_the_same_with_and_without_them(bos: bool) -> None:
    x, activation = inputs(3, 5, 7), Activation(4, bos=bos)
    plain = fake_quantize("a", x, activation, "linear", None)
    tracked = x.clone().requires_grad_()
    y = fake_quantize("a", tracked, activation, "linear", None)
    assert torch.equal(y.detach(), plain)
    y.sum().backward()
    assert tracked.grad is not None
    assert torch.equal(tracked.grad, torch.ones_like(x))


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("shape", ["normal", "relu", "outliers"])
def test_static_step_is_near_the_best_one(bits: int, shape: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4096, 8, generator=generator)
    if shape == "relu":
        x = x.relu()
    if shape == "outliers":
        x[:4] *= 30
    layer = nn.Linear(8, 2)
    model = nn.ModuleDict({"a": layer})
    found = collect(model, [], ["a"], lambda: layer(x))["a"].magnitudes
    assert found is not None

    def error(step: float) -> float:
        rounded = fake_quantize("a", x, Activation(bits, static=True), "linear", torch.tensor(step))
        return float((rounded - x).double().square().sum())

    top = float(x.abs().max())
    hi = 2 ** (bits - 1) - 1
    least = min(error(top / hi * 0.99**i) for i in range(500))
    # neighbouring candidates differ by 4 %, and histogram bins are 1/16 of an 8-bit step or less
    assert error(float(static_step(found, bits))) <= 1.02 * least


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("shape", ["normal", "shifted", "relu", "gelu", "positive", "negative"])
def test_a_grid_with_a_zero_point_is_near_the_best_one(bits: int, shape: str) -> None:
    x = torch.randn(4096, 8, generator=torch.Generator().manual_seed(0))
    functions = {
        "normal": x, "shifted": x + 1.5, "relu": x.relu(), "gelu": nn.functional.gelu(3 * x),
        "positive": x.abs() + 2, "negative": -x.abs() - 0.5,
    }  # fmt: skip
    x, levels = functions[shape], 2**bits - 1
    layer = nn.Linear(8, 2)
    found = collect(nn.ModuleDict({"a": layer}), [], ["a"], lambda: layer(x))["a"].magnitudes
    assert found is not None
    activation = Activation(bits, static=True, symmetric=False)

    def error(step: float, zero: int) -> float:
        codes = ((x / step).round() + zero).clamp(0, levels)
        return float(((codes - zero) * step - x).double().square().sum())

    step, zero = static_grid(found, activation)
    assert zero is not None
    rounded = fake_quantize("a", x, activation, "linear", step, zero)
    ours = float((rounded - x).double().square().sum())
    assert ours == pytest.approx(error(float(step), zero), rel=1e-5)
    lo, hi = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    clips = [0.98**i for i in range(60)]
    least = min(
        error((p * hi - q * lo) / levels, round(-q * lo * levels / (p * hi - q * lo)))
        for p in clips
        for q in (clips if lo and hi else clips[:1] if hi else [p])
    )
    # the ends are searched one after the other, at ratios of 4 %
    assert ours <= 1.03 * least
    if lo == 0:
        assert zero == 0
    plain = static_grid(found, Activation(bits, static=True))[0]
    symmetric = fake_quantize("a", x, Activation(bits, static=True), "linear", plain)
    if shape in ("relu", "positive", "negative"):  # half the step, a quarter of the squared error
        assert ours < 0.35 * float((symmetric - x).double().square().sum())
    assert ours < 1.03 * float((symmetric - x).double().square().sum())


@pytest.mark.parametrize("bits", [4, 8])
def test_a_grid_of_zeros_has_a_step(bits: int) -> None:
    layer = nn.Linear(8, 2)
    model = nn.ModuleDict({"a": layer})
    found = collect(model, [], ["a"], lambda: layer(torch.zeros(4, 8)))["a"].magnitudes
    assert found is not None
    step, zero = static_grid(found, Activation(bits, static=True, symmetric=False))
    assert (float(step), zero) == (1.0, 0)


@pytest.mark.parametrize("scheme", ["w8a8so", "w4a8szo", "w4a4szo"])
@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 7, 5)),
        (nn.Conv2d(4, 6, 3), (4, 7, 5)),
        (nn.Conv1d(4, 6, 3, bias=False), (2, 4, 9)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 4, 5, 5)),
        (nn.Linear(8, 6), (2, 3, 8)),
        (nn.Linear(8, 6), (8,)),
    ],
)
def test_outputs_are_rounded_with_their_biases(
    module: Any, shape: tuple[int, ...], scheme: str
) -> None:
    adapter, x = adapter_of(module), inputs(*shape).sub(0.2)
    if module.bias is not None:
        module.bias.data *= 3
    q = with_made_up_grids(quantize(adapter.matrix(module), Scheme.parse(scheme)))
    assert q.weight.scheme.activation is not None
    assert q.input_scale is not None
    assert q.output_scale is not None
    bits, step = q.weight.scheme.activation.bits, q.output_scale
    lo, hi = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    zero = q.input_zero
    ends = (lo, hi) if zero is None else (-zero, 2**bits - 1 - zero)
    given = (x / q.input_scale).round().clamp(*ends) * q.input_scale
    y = adapter.apply(module, given, dequantize(q.weight, torch.float32))
    channels = y.ndim - 1 if isinstance(module, nn.Linear) else y.ndim - module.weight.ndim + 1
    if module.bias is not None:
        assert q.weight.scale is not None
        for c, b in enumerate(module.bias.tolist()):
            unit = float(q.weight.scale[c, 0].float() * q.input_scale)
            y.select(channels, c).add_(round(b / unit) * unit)
    model = nn.ModuleDict({"a": module})
    with torch.no_grad(), applied(model, {"a": q}):
        found = module(x)
    y = y.clamp(ends[0] * step, ends[1] * step)
    assert ((found / step) - (found / step).round()).abs().max() < 1e-4
    assert (found - y).abs().max() <= (0.5 + 1e-4) * step
    assert not module._forward_hooks


def test_gradients_pass_rounded_outputs() -> None:
    module = nn.Conv2d(4, 6, 3)
    q = with_made_up_grids(quantize(adapter_of(module).matrix(module), Scheme.parse("w8a8szo")))
    x = inputs(2, 4, 5, 5).requires_grad_()
    with applied(nn.ModuleDict({"a": module}), {"a": q}):
        module(x).sum().backward()
        weight = module.weight.detach().clone()
    plain = inputs(2, 4, 5, 5).requires_grad_()
    nn.functional.conv2d(plain, weight).sum().backward()
    assert x.grad is not None
    assert plain.grad is not None
    torch.testing.assert_close(x.grad, plain.grad)


def test_a_large_bias_leaves_room_for_the_sum() -> None:
    module = nn.Conv2d(4, 2, 3)
    assert module.bias is not None
    module.bias.data = torch.tensor([1e9, -1e9])
    q = with_made_up_grids(quantize(adapter_of(module).matrix(module), Scheme.parse("w8a8so")))
    codes, values = rounded_bias(q, module.bias)
    assert codes.tolist() == [2**30, -(2**30)]
    assert torch.allclose(values, codes * q.weight.scale[:, 0].float() * 0.03)  # type: ignore[index]


def test_static_step_of_zeros() -> None:
    layer = nn.Linear(8, 2)
    model = nn.ModuleDict({"a": layer})
    found = collect(model, [], ["a"], lambda: layer(torch.zeros(4, 8)))["a"].magnitudes
    assert found is not None
    assert float(static_step(found, 8)) == 1.0
