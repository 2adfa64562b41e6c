"""Codes of 1 to 8 bits, packed densely.

    codes   (rows, cols) uint8   values below 2^b
    packed  (rows, bytes) uint8  each row a stream of bits: code i stands in bits [i·b, (i + 1)·b),
                                 least significant bit first, padded with zeros to whole units

Eight codes fill exactly b bytes, so packing goes by eights through one 64-bit word. With units of
four bytes a row is also the little-endian int32 words that compressed-tensors from 0.19 on reads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bitfront.errors import InvalidInput

from .stored import packed_bytes


def pack(codes: Tensor, bits: int, unit: int = 1) -> Tensor:
    """``codes`` (rows, cols) uint8 as (rows, packed_bytes) uint8.

    Raises ``InvalidInput`` for codes that do not fit in ``bits``.
    """
    _check_bits(bits)
    if codes.dtype != torch.uint8 or codes.ndim != 2:
        raise InvalidInput(
            f"codes of {codes.dtype} and shape {tuple(codes.shape)}", "give a matrix of uint8"
        )
    if codes.numel() and int(codes.max()) >> bits:
        raise InvalidInput(
            f"code {int(codes.max())} in {bits} bits", f"codes must be below {1 << bits}"
        )
    rows, cols = codes.shape
    eights = math.ceil(cols / 8)
    words = codes.new_zeros((rows, eights), dtype=torch.int64)
    for i in range(8):
        column = codes[:, i::8]
        words[:, : column.shape[1]] |= column.to(torch.int64) << (i * bits)
    packed = codes.new_zeros((rows, eights, bits))
    for j in range(bits):
        packed[..., j] = (words >> (8 * j)) & 0xFF
    packed = packed.reshape(rows, eights * bits)
    short = packed_bytes(cols, bits, unit) - packed.shape[1]
    return torch.nn.functional.pad(packed, (0, short))  # a negative pad crops


def unpack(packed: Tensor, bits: int, cols: int) -> Tensor:
    """The ``cols`` codes of each row of ``packed`` (rows, bytes) uint8, as (rows, cols) uint8.

    Raises ``InvalidInput`` when the rows are too short for that many codes.
    """
    _check_bits(bits)
    if packed.dtype != torch.uint8 or packed.ndim != 2:
        raise InvalidInput(
            f"packed codes of {packed.dtype} and shape {tuple(packed.shape)}",
            "give a matrix of uint8",
        )
    rows, width = packed.shape
    if width < packed_bytes(cols, bits):
        raise InvalidInput(
            f"{cols} codes of {bits} bits in {width} bytes", f"they take {packed_bytes(cols, bits)}"
        )
    eights = math.ceil(cols / 8)
    words = packed.new_zeros((rows, eights), dtype=torch.int64)
    for j in range(bits):
        column = packed[:, j : eights * bits : bits]
        words[:, : column.shape[1]] |= column.to(torch.int64) << (8 * j)
    codes = packed.new_empty((rows, eights, 8))
    for i in range(8):
        codes[..., i] = (words >> (i * bits)) & ((1 << bits) - 1)
    return codes.reshape(rows, eights * 8)[:, :cols]


def to_unsigned(codes: Tensor, bits: int) -> Tensor:
    """Symmetric int8 codes in [-2^(b-1), 2^(b-1) - 1], shifted to uint8 from 0."""
    return (codes.to(torch.int16) + (1 << (bits - 1))).to(torch.uint8)


def to_signed(codes: Tensor, bits: int) -> Tensor:
    """The inverse of ``to_unsigned``."""
    return (codes.to(torch.int16) - (1 << (bits - 1))).to(torch.int8)


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise InvalidInput(f"codes of {bits} bits", "1 to 8 bits can be packed")
