"""Codes below 8 bits as SDNQ (0.2) packs them.

    codes   (n,) uint8       values below 2^b
    packed  (units, bytes)   of 2 and 4 bits (units,)

A unit of ``sdnq_stored.UNITS[b]`` codes has the first of them in the low bits of its bytes; the
others' bits fill what is left, as ``_FIELDS`` says: of each byte, (code, its lowest bit, bits, to).
"""

from __future__ import annotations

from torch import Tensor

from .sdnq_stored import UNITS

Field = tuple[int, int, int, int]

_FIELDS: dict[int, tuple[tuple[Field, ...], ...]] = {
    2: (tuple((i, 0, 2, 2 * i) for i in range(4)),),
    3: (
        ((0, 0, 3, 0), (3, 0, 3, 3), (6, 0, 2, 6)),
        ((1, 0, 3, 0), (4, 0, 3, 3), (7, 0, 2, 6)),
        ((2, 0, 3, 0), (5, 0, 3, 3), (6, 2, 1, 6), (7, 2, 1, 7)),
    ),
    4: (((0, 0, 4, 0), (1, 0, 4, 4)),),
    5: (
        ((0, 0, 5, 0), (5, 0, 3, 5)),
        ((1, 0, 5, 0), (6, 0, 3, 5)),
        ((2, 0, 5, 0), (7, 0, 3, 5)),
        ((3, 0, 5, 0), (5, 3, 2, 5), (7, 4, 1, 7)),
        ((4, 0, 5, 0), (6, 3, 2, 5), (7, 3, 1, 7)),
    ),
    6: tuple(((j, 0, 6, 0), (3, 4 - 2 * j, 2, 6)) for j in range(3)),
    7: tuple(((j, 0, 7, 0), (7, 6 - j, 1, 7)) for j in range(7)),
}


def pack(codes: Tensor, bits: int) -> Tensor:
    """``codes`` (n,) uint8 packed; n is a multiple of a unit's codes."""
    count, width = UNITS[bits]
    units = codes.view(-1, count)
    packed = units.new_zeros(len(units), width)
    for byte, fields in enumerate(_FIELDS[bits]):
        for code, low, size, to in fields:
            packed[:, byte] |= ((units[:, code] >> low) & ((1 << size) - 1)) << to
    return packed.flatten() if width == 1 else packed
