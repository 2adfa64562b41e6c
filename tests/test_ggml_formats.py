"""GGUF's block types: bytes as the gguf package reads them, errors against its and brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bitfront.errors import SchemeError
from bitfront.quant import packed as safetensors
from bitfront.quant.formats import dequantize
from bitfront.quant.ggml_layouts import LAYOUTS, packed, unpacked
from bitfront.quant.ggml_types import BLOCK_BYTES
from bitfront.quant.quantizers import quantize
from bitfront.quant.suitability import takes
from bitfront.quant.weights import QuantizedLayer, QuantizedWeight
from bitfront.scheme import BLOCK_BITS, BLOCK_GROUPS
from bitfront.types import Layer, Scheme

each_type = pytest.mark.parametrize("name", BLOCK_BYTES)
WRITTEN = ("q8_0", "q5_0", "q5_1", "q4_0", "q4_1")  # by the gguf package


def weights(seed: int = 0, rows: int = 16, cols: int = 512) -> Tensor:
    """Normal ones, and in the last rows heavy tails and a shift."""
    generator = torch.Generator().manual_seed(seed)
    M = 0.02 * torch.randn(rows, cols, generator=generator)
    M[rows // 2 :] *= torch.exp(0.5 * torch.randn(rows - rows // 2, cols, generator=generator))
    M[-2:] += 0.03
    return M


def theirs(data: Tensor, name: str) -> np.ndarray[Any, Any]:
    gguf = pytest.importorskip("gguf")
    return gguf.dequantize(data.numpy(), getattr(gguf.GGMLQuantizationType, name.upper()))


def error(M: Tensor, back: Tensor) -> float:
    return float((back.double() - M.double()).square().sum())


def test_sizes_are_those_of_the_gguf_package() -> None:
    gguf = pytest.importorskip("gguf")
    for name, size in BLOCK_BYTES.items():
        kind = getattr(gguf.GGMLQuantizationType, name.upper())
        assert gguf.GGML_QUANT_SIZES[kind] == (BLOCK_GROUPS[name], size)
    assert set(LAYOUTS) == set(BLOCK_BYTES) == set(BLOCK_BITS)


@each_type
def test_any_bytes_stand_for_the_same_weights_to_the_bit(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    data = torch.randint(0, 256, (500, BLOCK_BYTES[name]), generator=generator, dtype=torch.uint8)
    blocks = unpacked(name, data)
    assert torch.equal(packed(name, blocks), data)
    finite = torch.isfinite(blocks.d) & (True if blocks.m is None else torch.isfinite(blocks.m))
    data = data[finite]
    back = dequantize(QuantizedWeight(Scheme.parse(name), data), torch.float32)
    expected = theirs(data, name)
    assert back.shape == expected.shape
    assert np.array_equal(back.numpy().view(np.int32), expected.view(np.int32))


@each_type
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), scale=st.floats(1e-6, 1e3), shift=st.floats(-2, 2))
def test_what_is_measured_is_what_others_read(
    name: str, seed: int, scale: float, shift: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    M = scale * (torch.randn(3, 256, generator=generator) + shift)
    q = quantize(M, Scheme.parse(name))
    assert q.shape == (3, 256)
    back = dequantize(q, torch.float32)
    assert np.array_equal(back.numpy().view(np.int32), theirs(q.codes, name).view(np.int32))
    # never worse than zeros, whatever the scale
    assert error(M, back) <= error(M, torch.zeros_like(M)) * (1 + 1e-6)


@pytest.mark.parametrize("name", WRITTEN)
def test_less_squared_error_than_the_gguf_package(name: str) -> None:
    gguf = pytest.importorskip("gguf")
    M = weights()
    kind = getattr(gguf.GGMLQuantizationType, name.upper())
    reference = gguf.dequantize(gguf.quantize(M.numpy(), kind), kind)
    ours = dequantize(quantize(M, Scheme.parse(name)), torch.float32)
    for rows in (slice(0, 8), slice(8, 14), slice(14, 16)):
        assert error(M[rows], ours[rows]) < 0.97 * error(M[rows], torch.tensor(reference[rows]))


@pytest.mark.parametrize("name", ["q4_0", "q5_0"])
def test_one_scale_is_nearly_the_best_of_all_that_float16_has(name: str) -> None:
    M = weights(3, 4, 64)
    ours = dequantize(quantize(M, Scheme.parse(name)), torch.float32)
    half = 1 << (BLOCK_BITS[name] - 1)
    total = 0.0
    for w in M.reshape(-1, 32).double():
        top = float(w.abs().max())
        ends = np.array([top / (2 * half), top / (half - 2)], dtype=np.float16).view(np.uint16)
        all_of = np.arange(ends[0], ends[1] + 1, dtype=np.uint16).view(np.float16).astype(float)
        d = torch.tensor(np.concatenate([all_of, -all_of]))[:, None]
        q = torch.round(w / d).clamp(-half, half - 1)
        total += float((d * q - w).square().sum(1).min())
    assert total * 0.999999 <= error(M, ours) <= 1.01 * total


@pytest.mark.parametrize("name", ["q6_k", "q3_k", "q5_k", "q4_k", "q2_k"])
def test_super_blocks_lose_little_to_scales_of_their_own(name: str) -> None:
    """Each sub-block with its best real scale (and minimum) bounds what codes of scales can do."""
    M = weights(5)
    layout = LAYOUTS[name]
    size = layout.size // layout.subs
    bound = sum(_free_error(w, layout.bits, layout.affine) for w in M.reshape(-1, size).numpy())
    ours = error(M, dequantize(quantize(M, Scheme.parse(name)), torch.float32))
    # scales of 4 bits cost most; the bound is of a coarse grid, so ours may also be a little less
    assert 0.97 * bound < ours < bound * (1.25 if name == "q2_k" else 1.12)


def _free_error(w: np.ndarray[Any, Any], bits: int, affine: bool) -> float:
    """Least squared error of a group over a grid of ranges, refitted once, in float64."""
    w, top = w.astype(np.float64), (1 << bits) - 1
    best = float(np.square(w).sum())
    if affine:
        low, high = min(w.min(), 0.0), w.max()
        for a in np.linspace(0, 0.3, 9):
            for b in np.linspace(0, 0.3, 9):
                start, step = low * (1 - a), (high * (1 - b) - low * (1 - a)) / top
                q = np.clip(np.round((w - start) / step), 0, top)
                s, m = np.polyfit(q, w, 1)
                best = min(best, float(np.square(s * q + min(m, 0.0) - w).sum()))
        return best
    half = 1 << (bits - 1)
    for reach in np.linspace(half * 0.8, half * 1.8, 200):
        for d in (np.abs(w).max() / reach, -np.abs(w).max() / reach):
            q = np.clip(np.round(w / d), -half, half - 1)
            if q.any():
                s = (q @ w) / (q @ q)
                best = min(best, float(np.square(s * q - w).sum()))
    return best


@each_type
def test_columns_that_no_block_divides_are_refused_with_what_fits(name: str) -> None:
    scheme, size = Scheme.parse(name), BLOCK_GROUPS[name]
    assert takes(Layer("a", "linear", 4, 512), scheme) is None
    assert takes(Layer("a", "embedding", 4, 512), scheme) is None
    assert takes(Layer("a", "linear", 4, 172), scheme) == (
        f"blocks of {size} do not divide 172 inputs; use fp16 or bf16"
    )
    if size == 256:
        assert takes(Layer("a", "linear", 4, 64), scheme) == (
            "blocks of 256 do not divide 64 inputs; use q8_0, q5_0, q5_1, q4_0, q4_1"
        )
    with pytest.raises(SchemeError, match=f"{name} with options"):
        Scheme(name, group=8)


@each_type
def test_safetensors_hold_the_same_blocks(name: str) -> None:
    layer, scheme = Layer("a", "linear", 16, 512), Scheme.parse(name)
    q = quantize(weights(), scheme)
    tensors = safetensors.to_tensors(layer, QuantizedLayer(q))
    back = safetensors.from_tensors(layer, scheme, tensors).weight
    assert torch.equal(back.codes, q.codes)
    assert back.shape == q.shape == (16, 512)
    assert (
        tensors["weight_codes"].numel() * 8 / (16 * 512)
        == 8 * BLOCK_BYTES[name] / (BLOCK_GROUPS[name])
    )
