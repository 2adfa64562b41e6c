"""Block types of GGUF, byte for byte: from the parts of a block to its bytes, and back.

A row is a sequence of blocks of E weights (32, or 256 in sub-blocks of 16 or 32):

    codes   (N, E) uint8      u, unsigned: 2^(b-1) stands for 0 where there are no minima
    d       (N,) float16      scale of the block
    m       (N,) float16      minimum of the block, or scale of its sub-blocks' minima
    scales  (N, S) uint8      of sub-blocks, as they stand in the file (0 is 32 in q3_k)
    minima  (N, S) uint8      of sub-blocks

A code's bits stand in one or two planes. A plane of fields of ``bits`` in rows of ``width`` bytes
puts code ``(r·k + i)·width + j``, with k = 8 / bits, in byte ``r·width + j`` from bit ``i·bits``.
Layouts are those of ggml (ggml-common.h, ``block_q4_K`` and its like).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bitfront.scheme import BLOCK_BITS, BLOCK_GROUPS

from .ggml_types import BLOCK_BYTES


@dataclass(frozen=True, eq=False)
class Blocks:
    """The parts of N blocks, as above; None where the type has no such part."""

    codes: Tensor
    d: Tensor
    m: Tensor | None = None
    scales: Tensor | None = None
    minima: Tensor | None = None


@dataclass(frozen=True)
class Layout:
    """How a type's bytes are arranged, and what its parts mean.

    bits: of a code. size: weights of a block. subs: sub-blocks, 1 where there are none. affine:
    with minima. order: the parts in the file: ``d``, ``m``, ``scales``, or a plane (shift of the
    code, bits, width).
    """

    bits: int
    size: int
    subs: int
    affine: bool
    order: tuple[str | tuple[int, int, int], ...]

    @property
    def zero(self) -> int:
        """The code of 0, in types without minima."""
        return 0 if self.affine else 1 << (self.bits - 1)


_ORDERS: Mapping[str, tuple[str | tuple[int, int, int], ...]] = {
    "q8_0": ("d", (0, 8, 32)),
    "q5_0": ("d", (4, 1, 1), (0, 4, 16)),
    "q5_1": ("d", "m", (4, 1, 1), (0, 4, 16)),
    "q4_0": ("d", (0, 4, 16)),
    "q4_1": ("d", "m", (0, 4, 16)),
    "q6_k": ((0, 4, 64), (4, 2, 32), "scales", "d"),
    "q5_k": ("d", "m", "scales", (4, 1, 32), (0, 4, 32)),
    "q4_k": ("d", "m", "scales", (0, 4, 32)),
    "q3_k": ((2, 1, 32), (0, 2, 32), "scales", "d"),
    "q2_k": ("scales", (0, 2, 32), "d", "m"),
}
_SUBS = {"q6_k": 16, "q5_k": 8, "q4_k": 8, "q3_k": 16, "q2_k": 16}
_AFFINE = ("q5_1", "q4_1", "q5_k", "q4_k", "q2_k")
LAYOUTS = {
    name: Layout(
        BLOCK_BITS[name], BLOCK_GROUPS[name], _SUBS.get(name, 1), name in _AFFINE, order
    )
    for name, order in _ORDERS.items()
}  # fmt: skip


def packed(name: str, blocks: Blocks) -> Tensor:
    """The bytes (N, bytes of a block) uint8 of ``blocks``."""
    layout, parts = LAYOUTS[name], []
    codes = blocks.codes ^ 0x80 if name == "q8_0" else blocks.codes  # two's complement
    for part in layout.order:
        if isinstance(part, tuple):
            shift, bits, width = part
            parts.append(_spread((codes >> shift) & ((1 << bits) - 1), bits, width))
        elif part == "scales":
            parts.append(_SCALES[name][0](blocks))
        else:
            number = blocks.d if part == "d" else blocks.m
            assert number is not None
            parts.append(number.contiguous().view(torch.uint8).reshape(-1, 2))
    return torch.cat(parts, 1)


def unpacked(name: str, data: Tensor) -> Blocks:
    """The parts of blocks, from their bytes (N, bytes of a block) uint8."""
    layout, at = LAYOUTS[name], 0
    codes = data.new_zeros((len(data), layout.size))
    numbers: dict[str, Tensor] = {}
    scales: tuple[Tensor | None, Tensor | None] = (None, None)
    for part in layout.order:
        if isinstance(part, tuple):
            shift, bits, width = part
            end = at + layout.size * bits // 8
            codes |= _gathered(data[:, at:end], bits, width) << shift
        elif part == "scales":
            end = at + (12 if name in ("q3_k", "q4_k", "q5_k") else 16)
            scales = _SCALES[name][1](data[:, at:end])
        else:
            end = at + 2
            numbers[part] = data[:, at:end].contiguous().view(torch.float16).reshape(-1)
        at = end
    assert at == BLOCK_BYTES[name]
    codes = codes ^ 0x80 if name == "q8_0" else codes
    return Blocks(codes, numbers["d"], numbers.get("m"), *scales)


def values(name: str, blocks: Blocks) -> Tensor:
    """The weights (N, E) float32 that the parts stand for, each product rounded as ggml does."""
    layout = LAYOUTS[name]
    q = (blocks.codes.to(torch.int16) - layout.zero).float()
    d = blocks.d.float().unsqueeze(1)
    if layout.subs == 1:
        return d * q if blocks.m is None else d * q + blocks.m.float().unsqueeze(1)
    assert blocks.scales is not None
    q = q.unflatten(1, (layout.subs, -1))
    s = (d * signed_scales(name, blocks.scales)).unsqueeze(2)
    if blocks.m is None:
        return (s * q).flatten(1)
    assert blocks.minima is not None
    return (s * q - (blocks.m.float().unsqueeze(1) * blocks.minima.float()).unsqueeze(2)).flatten(1)


def signed_scales(name: str, scales: Tensor) -> Tensor:
    """Sub-blocks' scales as float32 numbers."""
    if name == "q6_k":
        return scales.view(torch.int8).float()
    return scales.float() - 32 if name == "q3_k" else scales.float()


def stored_scales(name: str, scales: Tensor) -> Tensor:
    """The inverse of ``signed_scales``, for whole numbers in range."""
    if name == "q6_k":
        return scales.to(torch.int8).view(torch.uint8)
    return (scales + 32 if name == "q3_k" else scales).to(torch.uint8)


def _spread(fields: Tensor, bits: int, width: int) -> Tensor:
    """``fields`` (N, E) below 2^bits as a plane (N, E·bits / 8)."""
    rows = fields.unflatten(1, (-1, 8 // bits, width))
    plane = rows[:, :, 0].clone()
    for i in range(1, 8 // bits):
        plane |= rows[:, :, i] << (i * bits)
    return plane.flatten(1)


def _gathered(plane: Tensor, bits: int, width: int) -> Tensor:
    """The inverse of ``_spread``."""
    rows = plane.unflatten(1, (-1, width))
    fields = [(rows >> (i * bits)) & ((1 << bits) - 1) for i in range(8 // bits)]
    return torch.stack(fields, 2).flatten(1)


def _six_bits(blocks: Blocks) -> Tensor:
    """8 scales and 8 minima of 6 bits in 12 bytes: low parts of the later ones come last."""
    s, m = blocks.scales, blocks.minima
    assert s is not None
    assert m is not None
    first = [x[:, :4] | ((x[:, 4:] >> 4) << 6) for x in (s, m)]
    return torch.cat([*first, (s[:, 4:] & 15) | ((m[:, 4:] & 15) << 4)], 1)


def _from_six_bits(data: Tensor) -> tuple[Tensor, Tensor]:
    s, m, low = data[:, :4], data[:, 4:8], data[:, 8:]
    return (
        torch.cat([s & 63, (low & 15) | ((s >> 6) << 4)], 1),
        torch.cat([m & 63, (low >> 4) | ((m >> 6) << 4)], 1),
    )


def _sixteen(blocks: Blocks) -> Tensor:
    """16 scales of 6 bits in 12 bytes: a plane of low parts, and one of high ones."""
    assert blocks.scales is not None
    return torch.cat([_spread(blocks.scales & 15, 4, 8), _spread(blocks.scales >> 4, 2, 4)], 1)


def _from_sixteen(data: Tensor) -> tuple[Tensor, None]:
    return _gathered(data[:, :8], 4, 8) | (_gathered(data[:, 8:], 2, 4) << 4), None


def _nibbles(blocks: Blocks) -> Tensor:
    """A scale and a minimum of 4 bits in a byte."""
    assert blocks.scales is not None
    assert blocks.minima is not None
    return blocks.scales | (blocks.minima << 4)


def _bytes(blocks: Blocks) -> Tensor:
    assert blocks.scales is not None
    return blocks.scales


_SCALES: Mapping[
    str, tuple[Callable[[Blocks], Tensor], Callable[[Tensor], tuple[Tensor, Tensor | None]]]
] = {
    "q6_k": (_bytes, lambda data: (data, None)),
    "q5_k": (_six_bits, _from_six_bits),
    "q4_k": (_six_bits, _from_six_bits),
    "q3_k": (_sixteen, _from_sixteen),
    "q2_k": (_nibbles, lambda data: (data & 15, data >> 4)),
}
