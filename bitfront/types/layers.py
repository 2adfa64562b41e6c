"""Layers as the rooms without torch see them, and groups of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DTYPE_BITS = {"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16}


@dataclass(frozen=True, slots=True)
class Layer:
    """A quantizable module, as the rooms without torch see it.

    The weight is seen as a matrix (``rows``, ``cols``): output channels × inputs of one channel
    (input channels per group × kernel for convolutions, tokens × width for embeddings).
    """

    name: str
    kind: str  # linear, hf_conv1d, conv1d, conv2d, conv_transpose1d, conv_transpose2d, embedding
    rows: int
    cols: int
    dtype: str = "float32"  # of the weight in the full model: float32, float16, bfloat16, float64
    bias: int = 0  # number of bias elements, never quantized
    macs: int = 0  # multiply-accumulates of one sample, summed over all calls in a forward
    role: str = "body"  # body, embedding or head
    shares: str | None = None  # the layer whose weight tensor this one uses too (counted there)
    flat: bool = False  # it is given single vectors, (N, K) or (N, 1, K), not tokens (N, T, K)
    attention: str = ""  # of attention with a cache: its query, key or value projection, or fused
    head: int = 0  # outputs of a key or value projection that one head has
    rectified: bool = False  # nothing but a ReLU reads its output
    ceiling: float = 0.0  # of that ReLU, where it has one (6 of ReLU6)
    kernel: tuple[int, ...] = ()  # sizes of a convolution's kernel
    beyond_lookup: bool = False  # an embedding that does more than look rows up, and scale them

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernel", tuple(self.kernel))  # a list, as JSON has it

    @property
    def weights(self) -> int:
        """Number of weight elements."""
        return self.rows * self.cols

    @property
    def read(self) -> tuple[float, float]:
        """The least and the greatest output that is read as it is; those beyond count as these."""
        if not self.rectified:
            return -math.inf, math.inf
        return 0.0, self.ceiling or math.inf

    @property
    def cached(self) -> bool:
        """Whether its output is what attention caches."""
        return self.attention in ("key", "value")

    @property
    def width(self) -> int:
        """Bits of one weight in the full model."""
        return DTYPE_BITS[self.dtype]


def closure(pairs: Iterable[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Disjoint groups from overlapping sets of indices that must agree, in order."""
    groups: list[set[int]] = []
    for pair in pairs:
        merged = set(pair)
        apart = []
        for group in groups:
            if group & merged:
                merged |= group
            else:
                apart.append(group)
        groups = [*apart, merged]
    return tuple(sorted(tuple(sorted(g)) for g in groups))
