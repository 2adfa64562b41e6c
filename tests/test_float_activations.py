"""Inputs in float formats: the runtime's own numbers, the definition, numbers of calibration."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from bitfront.quant.activations import calibrated, fake_quantize
from bitfront.quant.floats import E2M1
from bitfront.quant.statistics import Histogram, collect
from bitfront.types import Activation, Scheme

STATIC = {"fp8a8s": 0.013, "nvfp4a4": 512.7}  # made-up numbers of calibration
TEXTS = ("fp8a8", "fp8a8s", "nvfp4a4", "mxfp4a4", "mxfp8a8")
E4M3 = sorted(
    {float(v) for v in torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
     if v == v and v >= 0}
)  # fmt: skip


def activation(text: str) -> Activation:
    found = Scheme.parse(text).activation
    assert found is not None
    return found


def number(text: str) -> Tensor | None:
    return torch.tensor(STATIC[text]) if text in STATIC else None


def inputs(dtype: torch.dtype, shape: tuple[int, ...] = (3, 7, 64)) -> Tensor:
    """Groups of every size, zeros, ties, and tokens far larger and smaller than others."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, generator=generator)
    x[0, 0] = 0
    x[0, 1, :32] = 0
    x[0, 2] *= 300
    x[1, 0] *= 1e-3
    x[1, 1] = torch.randint(-24, 25, (shape[-1],), generator=generator) / 4  # E2M1's ties
    x[1, 2, ::2] *= 1e-5
    x[2, 0] = -7.0
    x[2, 1] *= 60
    return x.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("text", TEXTS)
def test_what_compressed_tensors_computes(text: str, dtype: torch.dtype) -> None:
    forward = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward")
    helpers = pytest.importorskip("compressed_tensors.quantization.utils.helpers")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    from bitfront.quant.export_compressed import activation_args

    args = quantization.QuantizationArgs(**activation_args(activation(text)))
    x, given = inputs(dtype), number(text)
    if text == "fp8a8s":
        assert given is not None
        theirs = forward.fake_quantize(x, given.reshape(1).to(dtype), None, args)
    else:
        overall = None if given is None else given.reshape(1)
        scale, zero = helpers.compute_dynamic_scales_and_zp(x, args, nn.Linear(64, 2), overall)
        theirs = forward.fake_quantize(x, scale, zero, args, overall)
    ours = fake_quantize("a", x, activation(text), "linear", given)
    assert ours.dtype == dtype
    if dtype == torch.float16:  # where its power of two leaves float16 it takes 1 instead
        small = x.unflatten(-1, (-1, 32)).abs().amax(-1, keepdim=True) < 2.0**-13
        keep = ~small.expand(*x.shape[:-1], 2, 32).flatten(-2)
        assert torch.equal(ours[keep], theirs[keep])
    else:
        assert torch.equal(ours, theirs)


def literal(x: list[float], text: str, given: float) -> list[float]:
    """One token in float64, by the definitions; dtypes round on the way, which the test allows."""
    size = {"fp8a8": 64, "fp8a8s": 64, "nvfp4a4": 16}.get(text, 32)
    grid = E2M1 if "fp4" in text else E4M3
    out = []
    for start in range(0, len(x), size):
        part = x[start : start + size]
        top = max(abs(v) for v in part)
        if not top:
            out += part
            continue
        if text == "fp8a8":
            step = top / 448
        elif text == "fp8a8s":
            step = given
        elif text == "nvfp4a4":
            step = min(E4M3, key=lambda v: abs(v - min(given * top / 6, 448.0))) / given
        else:
            k = math.floor(math.log2(top))
            step = 2.0 ** (k + (top >= 1.75 * 2.0**k) - (2 if text == "mxfp4a4" else 8))
        for v in part:
            nearest = min(grid, key=lambda g: abs(g - min(abs(v) / step, grid[-1])))
            out.append(math.copysign(nearest * step, v))
    return out


@pytest.mark.parametrize("text", TEXTS)
def test_the_literal_definition(text: str) -> None:
    """Next to a tie either neighbour may win: then the two are equally far, up to float32."""
    x = torch.randn(40, 64, generator=torch.Generator().manual_seed(3))
    x *= torch.logspace(-1, 1, 40)[:, None]
    given = number(text)
    ours = fake_quantize("a", x[None], activation(text), "linear", given)[0]
    for token, got in zip(x, ours, strict=True):
        expected = torch.tensor(literal(token.tolist(), text, STATIC.get(text, 0.0)))
        off = ~torch.isclose(got, expected, rtol=1e-5, atol=0)
        assert int(off.sum()) <= 1
        far, near = (got - token).abs()[off], (expected - token).abs()[off]
        torch.testing.assert_close(far, near, rtol=1e-3, atol=0)


@pytest.mark.parametrize("text", TEXTS)
def test_gradients_pass_straight_through(text: str) -> None:
    x = inputs(torch.float32).requires_grad_()
    y = fake_quantize("a", x, activation(text), "linear", number(text))
    weight = torch.linspace(-1, 1, 64)
    (y * weight).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, weight.expand_as(x))


@pytest.mark.parametrize("text", TEXTS)
def test_a_group_or_token_does_not_see_the_others(text: str) -> None:
    x = inputs(torch.bfloat16)
    whole = fake_quantize("a", x, activation(text), "linear", number(text))
    size = activation(text).group or 64
    for start in range(0, 64, size):
        part = x[..., start : start + size]
        alone = fake_quantize("a", part, activation(text), "linear", number(text))
        assert torch.equal(alone, whole[..., start : start + size])
    assert torch.equal(
        fake_quantize("a", x[1:2], activation(text), "linear", number(text)), whole[1:2]
    )


def histogram(x: Tensor) -> Histogram:
    layer = nn.Linear(x.shape[-1], 2)
    found = collect(nn.ModuleDict({"a": layer}), [], ["a"], lambda: layer(x))["a"].magnitudes
    assert found is not None
    return found


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e4])
def test_calibrated_nvfp4_uses_the_whole_range_of_scales(factor: float) -> None:
    x = factor * torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    t = float(calibrated(histogram(x), activation("nvfp4a4")))
    # the histogram's bins are 1/2048 of the largest, or narrower
    assert 448 * 6 * (1 - 1 / 2048) <= t * float(x.abs().max()) <= 448 * 6


@pytest.mark.parametrize("outliers", [1.0, 50.0, 3000.0])
def test_calibrated_fp8_step_is_near_the_best_one(outliers: float) -> None:
    x = torch.randn(4096, 8, generator=torch.Generator().manual_seed(0))
    x[:4] *= outliers

    def error(step: float) -> float:
        rounded = fake_quantize("a", x, activation("fp8a8s"), "linear", torch.tensor(step))
        return float((rounded - x).double().square().sum())

    best = min(error(float(x.abs().max()) / 448 * 0.98**i) for i in range(300))
    # candidates are 4 % apart, and a bin stands for all that falls in it
    assert error(float(calibrated(histogram(x), activation("fp8a8s")))) <= 1.05 * best


@pytest.mark.parametrize("text", ["fp8a8s", "nvfp4a4"])
def test_calibrated_by_zeros(text: str) -> None:
    assert float(calibrated(histogram(torch.zeros(4, 64)), activation(text))) == 1.0
