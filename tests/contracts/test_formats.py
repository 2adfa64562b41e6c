"""Every weight format: what is stored, what it stands for, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bitfront.errors import SchemeError
from bitfront.quant.formats import FORMATS, dequantize
from bitfront.quant.quantizers import quantize
from bitfront.quant.scales import integer_range
from bitfront.quant.weights import QuantizedWeight, scale_dtype
from bitfront.types import Scheme, parse_schemes

INTEGERS = parse_schemes("w2 w3 w4 w5 w6 w7 w8 w2g16 w3g32 w4g1 w8g64 w2z w4z w8z w3g16z w4g32z")
FLOATS = parse_schemes("keep bf16 fp16 fp8 mxfp8 mxfp4 nvfp4")
BLOCKS = parse_schemes("q8_0 q6_k q5_k q5_0 q5_1 q4_k q4_0 q4_1 q3_k q2_k")
SCHEMES = (*INTEGERS, *FLOATS, *BLOCKS)
LINES = ("q5_k", "q5_1", "q4_k", "q4_1", "q2_k")  # a minimum that is no multiple of the scale
COLS = 256  # the least that every one takes
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
each_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=str)


def weights(dtype: torch.dtype = torch.float32, rows: int = 24, cols: int = COLS) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (0.1 * torch.randn(rows, cols, generator=generator)).to(dtype)


def literal(q: QuantizedWeight) -> Tensor:
    """Integer weights in float64, one at a time: exact."""
    assert q.scale is not None
    rows, cols = q.shape
    group = q.scheme.group or cols
    out = torch.empty(rows, cols, dtype=torch.float64)
    for r in range(rows):
        for c in range(cols):
            zero = 0 if q.zero is None else int(q.zero[r, c // group])
            out[r, c] = (int(q.codes[r, c]) - zero) * float(q.scale[r, c // group])
    return out


def test_every_format_is_covered() -> None:
    assert {scheme.format for scheme in SCHEMES} == set(FORMATS)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@each_scheme
def test_shapes_dtypes_and_determinism(scheme: Scheme, dtype: torch.dtype) -> None:
    M = weights(dtype)
    before = M.clone()
    q, again = quantize(M, scheme), quantize(M, scheme)
    assert torch.equal(M, before)
    assert q.shape == tuple(M.shape)
    back = dequantize(q, dtype)
    assert back.dtype == dtype
    assert back.shape == M.shape
    assert back.data_ptr() != M.data_ptr()
    for field in ("codes", "scale", "zero", "tensor_scale"):
        a, b = getattr(q, field), getattr(again, field)
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a.float(), b.float())
    if scheme.format == "int":
        assert q.codes.dtype == (torch.int8 if scheme.symmetric else torch.uint8)
        assert q.scale is not None
        assert q.scale.dtype == scale_dtype(dtype)
        assert q.scale.shape == (24, COLS // (scheme.group or COLS))
        assert (q.scale > 0).all()
        assert (q.zero is None) == scheme.symmetric


@pytest.mark.parametrize("scheme", INTEGERS, ids=str)
def test_codes_stay_in_range_and_are_nearest(scheme: Scheme) -> None:
    M = weights()
    q = quantize(M, scheme)
    lo, hi = integer_range(scheme.bits, scheme.symmetric)
    assert int(q.codes.min()) >= lo
    assert int(q.codes.max()) <= hi
    assert q.zero is None or int(q.zero.max()) <= hi
    # every other code of the same grid is at least as far away
    assert q.scale is not None
    s = q.scale.double().repeat_interleave(scheme.group or COLS, 1)
    z = 0.0 if q.zero is None else q.zero.double().repeat_interleave(scheme.group or COLS, 1)
    levels = (torch.arange(lo, hi + 1, dtype=torch.float64) - torch.as_tensor(z)[..., None]) * s[
        ..., None
    ]
    nearest = (levels - M.double()[..., None]).abs().amin(-1)
    got = (literal(q) - M.double()).abs()
    # w / s is rounded in float32: ties may fall either way, by 2^-24 of at most 2^8
    assert (got <= nearest + s * 2.0**-15).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scheme", INTEGERS, ids=str)
def test_integers_are_the_exact_product_rounded_once(scheme: Scheme, dtype: torch.dtype) -> None:
    q = quantize(weights(dtype), scheme)
    assert torch.equal(dequantize(q, dtype), literal(q).to(dtype))


@each_scheme
def test_weights_on_the_grid_come_back(scheme: Scheme) -> None:
    once = dequantize(quantize(weights(), scheme), torch.float32)
    if scheme.format == "int" and scheme.symmetric:
        twice = dequantize(quantize(once, scheme), torch.float32)
        # a group may lose its outermost code to a finer scale only where that is no worse
        assert (twice - once).norm() <= 0.02 * once.norm()
    elif scheme.format in ("keep", "bf16", "fp16"):
        assert torch.equal(dequantize(quantize(once, scheme), torch.float32), once)


@each_scheme
def test_zero_rows_and_groups(scheme: Scheme) -> None:
    M = weights()
    M[3] = 0
    M[5, 32:] = 0
    M[:, 7] = 0
    back = dequantize(quantize(M, scheme), M.dtype)
    assert not back[3].any()
    assert not back[5, 32:].any()
    assert torch.isfinite(back).all()
    assert not dequantize(quantize(torch.zeros(4, COLS), scheme), M.dtype).any()


@each_scheme
def test_constant_and_one_sided_rows(scheme: Scheme) -> None:
    M = torch.empty(6, COLS)
    M[0], M[1], M[2] = 1.0, -0.37, 0.03
    M[3:] = weights()[:3].abs()
    M[5] *= -1
    back = dequantize(quantize(M, scheme), M.dtype)
    # one magnitude fits some code of any integer grid up to the scale's rounding (2^-11, more
    # below 6e-5, where float16 is subnormal: 0.03 / 127 is well above);
    # E2M1 and E4M3 scales are coarser
    tolerance = 1e-3 if scheme.format in ("int", "keep", "fp16") else 0.26
    torch.testing.assert_close(back[:3], M[:3], rtol=tolerance, atol=0.0)
    # the nearest level of a line may lie beyond 0, by half a step; a step is some part of the range
    over = 0.6 * M[3:].abs().max() / (2**scheme.bits - 1) if scheme.format in LINES else 0.0
    assert (back[3:5] >= -over).all()
    assert (back[5] <= over).all()


@each_scheme
def test_tiny_weights_do_not_blow_up(scheme: Scheme) -> None:
    M = weights() * 1e-30
    M[0, 0] = torch.finfo(torch.float32).smallest_normal * 2.0**-20
    back = dequantize(quantize(M, scheme), M.dtype)
    assert torch.isfinite(back).all()
    assert float(back.abs().max()) <= 2 * float(M.abs().max()) or float(back.abs().max()) < 1e-7


@each_scheme
def test_huge_weights_are_kept_or_refused_clearly(scheme: Scheme) -> None:
    M = weights()
    M[2, 3] = 3e38
    # 16-bit scales, or values, end at 65504
    if scheme.format in ("int", "fp8", "fp16") or scheme in BLOCKS:
        with pytest.raises(SchemeError, match=r"as large as 3e\+38.*: keep this layer"):
            quantize(M, scheme)
    else:
        back = dequantize(quantize(M, scheme), M.dtype)
        # E2M1 reaches 6 · 2^125 and then 8 · 2^125 = infinity: one part in six is lost
        assert float((back - M).abs().max()) < 3e38 / 6


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@each_scheme
def test_weights_that_are_not_finite_are_refused(scheme: Scheme, bad: float) -> None:
    M = weights()
    M[1, 1] = bad
    with pytest.raises(SchemeError, match="not finite"):
        quantize(M, scheme)


@each_scheme
def test_largest_float16_weights_stay_finite_or_are_refused(scheme: Scheme) -> None:
    M = weights(torch.float16)
    M[0] = 65504.0
    M[1, 5] = -65504.0
    try:
        back = dequantize(quantize(M, scheme), M.dtype)
    except SchemeError as error:
        message = str(error)
    else:
        message = ""
        assert torch.isfinite(back).all()
    assert not message or "6.55e+04" in message


@each_scheme
def test_strided_input(scheme: Scheme) -> None:
    M = weights()
    strided = M.T.contiguous().T
    assert not strided.is_contiguous()
    a, b = quantize(M, scheme), quantize(strided, scheme)
    assert torch.equal(dequantize(a, M.dtype), dequantize(b, M.dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scheme", [s for s in INTEGERS if s.symmetric], ids=str)
def test_same_weights_as_compressed_tensors(scheme: Scheme, dtype: torch.dtype) -> None:
    forward = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    q = quantize(weights(dtype), scheme)
    args = quantization.QuantizationArgs(
        num_bits=scheme.bits, type="int", symmetric=True,
        strategy="group" if scheme.group else "channel", group_size=scheme.group,
    )  # fmt: skip
    theirs = forward.dequantize(q.codes, q.scale, args=args)
    assert torch.equal(theirs, dequantize(q, dtype))


def test_same_nvfp4_and_mxfp4_weights_as_compressed_tensors() -> None:
    base = pytest.importorskip("compressed_tensors.compressors.nvfp4.base")
    mx = pytest.importorskip("compressed_tensors.compressors.mxfp4.base")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    M = weights(torch.bfloat16)
    for name, compressor, size in (
        ("nvfp4", base.NVFP4PackedCompressor, 16),
        ("mxfp4", mx.MXFP4PackedCompressor, 32),
    ):
        q = quantize(M, Scheme.parse(name))
        state = {
            "weight_packed": q.codes[:, ::2] | (q.codes[:, 1::2] << 4),
            "weight_scale": q.scale,
        }
        if q.tensor_scale is not None:
            state["weight_global_scale"] = q.tensor_scale.reshape(1)
        args = quantization.QuantizationArgs(
            num_bits=4, type="float", symmetric=True, group_size=size,
            strategy="tensor_group" if name == "nvfp4" else "group",
        )  # fmt: skip
        scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
        theirs = compressor.decompress(state, scheme)["weight"]
        assert torch.equal(theirs, dequantize(q, torch.bfloat16)), name


def test_same_mxfp8_weights_as_compressed_tensors() -> None:
    mx = pytest.importorskip("compressed_tensors.compressors.mxfp8.base")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    q = quantize(weights(torch.bfloat16), Scheme.parse("mxfp8"))
    args = quantization.QuantizationArgs(
        num_bits=8, type="float", symmetric=True, group_size=32, strategy="group",
        scale_dtype="torch.uint8",
    )  # fmt: skip
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
    state = {"weight": q.codes, "weight_scale": q.scale}
    theirs = mx.MXFP8QuantizationCompressor.decompress(state, scheme)["weight"]
    assert torch.equal(theirs, dequantize(q, torch.bfloat16))


def test_float_formats_beat_their_plain_scales() -> None:
    """Chosen group scales are no worse than the textbook ones (OCP MX; largest weight to 6)."""
    M = weights()
    tops = M.unflatten(1, (-1, 32)).abs().amax(-1, keepdim=True)
    s = torch.exp2(torch.floor(torch.log2(tops)) - 2)
    grid = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    grid = torch.cat([grid, -grid])
    w = M.unflatten(1, (-1, 32))
    nearest = grid[((w / s)[..., None] - grid).abs().argmin(-1)] * s
    plain = float((nearest - w).square().sum())
    ours = float((dequantize(quantize(M, Scheme.parse("mxfp4")), M.dtype) - M).square().sum())
    assert ours <= plain
