"""Packing against a literal bit-by-bit reference."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfront.quant.packing import pack, unpack
from bitfront.quant.stored import packed_bytes


def literal(row: list[int], bits: int, unit: int) -> list[int]:
    """The row's codes as a string of bits, lowest first, cut into bytes."""
    stream = [code >> k & 1 for code in row for k in range(bits)]
    while len(stream) % (8 * unit):
        stream.append(0)
    return [sum(stream[8 * i + k] << k for k in range(8)) for i in range(len(stream) // 8)]


@st.composite
def rows_of_codes(draw: st.DrawFn) -> tuple[list[list[int]], int]:
    bits = draw(st.integers(1, 8))
    cols = draw(st.integers(1, 40))
    code = st.integers(0, (1 << bits) - 1)
    row = st.lists(code, min_size=cols, max_size=cols)
    return draw(st.lists(row, min_size=1, max_size=3)), bits


@settings(max_examples=150)
@given(rows_of_codes(), st.sampled_from([1, 4]))
def test_packing_is_the_stream_of_bits(drawn: tuple[list[list[int]], int], unit: int) -> None:
    rows, bits = drawn
    codes = torch.tensor(rows, dtype=torch.uint8)
    packed = pack(codes, bits, unit)
    assert packed.tolist() == [literal(row, bits, unit) for row in rows]
    assert packed.shape[1] == packed_bytes(len(rows[0]), bits, unit)
    assert torch.equal(unpack(packed, bits, len(rows[0])), codes)
