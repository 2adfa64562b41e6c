"""Packing against what it says, and against compressed-tensors' own functions."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import (
    pack_to_int32,
    unpack_from_int32,
)

from bitfront.errors import InvalidInput
from bitfront.quant.packing import pack, to_signed, to_unsigned, unpack
from bitfront.quant.stored import packed_bytes


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("cols", [1, 5, 31, 32, 33, 172])
def test_words_are_those_of_compressed_tensors(bits: int, cols: int) -> None:
    half = 1 << (bits - 1)
    codes = torch.randint(-half, half, (6, cols), dtype=torch.int8)
    words = pack(to_unsigned(codes, bits), bits, unit=4).view(torch.int32)
    assert torch.equal(words, pack_to_int32(codes, bits))
    assert torch.equal(unpack_from_int32(words, bits, codes.shape), codes)


def test_extremes_survive() -> None:
    codes = torch.tensor([[-128, 127, -1, 0]], dtype=torch.int8)
    assert torch.equal(to_signed(unpack(pack(to_unsigned(codes, 8), 8), 8, 4), 8), codes)


def test_no_columns() -> None:
    assert pack(torch.zeros(3, 0, dtype=torch.uint8), 3).shape == (3, 0)
    assert unpack(torch.zeros(3, 0, dtype=torch.uint8), 3, 0).shape == (3, 0)


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(InvalidInput, match="code 4 in 2 bits"):
        pack(torch.tensor([[4]], dtype=torch.uint8), 2)
    with pytest.raises(InvalidInput, match="9 bits"):
        pack(torch.zeros(1, 1, dtype=torch.uint8), 9)
    with pytest.raises(InvalidInput, match=r"torch\.int8"):
        pack(torch.zeros(1, 1, dtype=torch.int8), 2)
    with pytest.raises(InvalidInput, match="in 1 bytes"):
        unpack(torch.zeros(1, 1, dtype=torch.uint8), 4, 3)


def test_packed_bytes() -> None:
    assert [packed_bytes(27, bits) for bits in (2, 3, 4, 8)] == [7, 11, 14, 27]
    assert packed_bytes(27, 3, unit=4) == 12
