"""GGUF's types of tensors: their names, and their bytes. It is imported without torch."""

from __future__ import annotations

from bitfront.scheme import BLOCK_BITS, BLOCK_GROUPS
from bitfront.types import Layer, Scheme

BLOCK_BYTES = {
    "q8_0": 34, "q6_k": 210, "q5_k": 176, "q5_0": 22, "q5_1": 24, "q4_k": 144, "q4_0": 18,
    "q4_1": 20, "q3_k": 110, "q2_k": 84,
}  # fmt: skip
SMALL_BLOCKS = tuple(name for name in BLOCK_BITS if BLOCK_GROUPS[name] == 32)
_PLAIN = {"bf16": "BF16", "fp16": "F16"}
_KEPT = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def is_block(scheme: Scheme) -> bool:
    """Whether a scheme is one of GGUF's block types."""
    return scheme.format in BLOCK_BYTES


def row_bytes(cols: int, scheme: Scheme) -> int:
    """Bytes of a row's blocks; the block size divides ``cols``."""
    return cols // BLOCK_GROUPS[scheme.format] * BLOCK_BYTES[scheme.format]


def row_weights(size: int, scheme: Scheme) -> int:
    """Weights of a row whose blocks have ``size`` bytes."""
    return size // BLOCK_BYTES[scheme.format] * BLOCK_GROUPS[scheme.format]


def type_name(layer: Layer, scheme: Scheme) -> str | None:
    """The type of a layer's tensor, as GGUF names it (``Q4_K``, ``F16``), or None for none."""
    if is_block(scheme):
        return scheme.format.upper()
    if scheme.format == "keep":
        return _KEPT.get(layer.dtype)
    return _PLAIN.get(scheme.format)
