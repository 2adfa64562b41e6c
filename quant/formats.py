"""Weight formats: from a matrix to stored tensors, and from stored tensors alone back.

A format is an object of two methods; it joins by one line below.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from bitfront.registry import Registry
from bitfront.types import Scheme

from .floats import FP8, MXFP4, MXFP8, NVFP4, Cast, Keep
from .ggml_formats import GgmlBlocks
from .ggml_types import BLOCK_BYTES
from .integers import Integers
from .weights import QuantizedWeight


class Format(Protocol):
    """How weights of one kind are stored."""

    def quantize(self, M: Tensor, scheme: Scheme) -> QuantizedWeight:
        """``M`` (rows, cols), finite, rounded to nearest on a grid of least squared error.

        Scales are rounded to their stored dtype before codes are chosen. Raises ``SchemeError``
        when the format's range does not hold the weights.
        """
        ...

    def dequantize(self, q: QuantizedWeight) -> Tensor:
        """The weights (rows, cols) that the stored tensors stand for, before the last cast."""
        ...


FORMATS: Registry[Format] = Registry("weight format")
FORMATS.register("int")(Integers())
FORMATS.register("keep")(Keep())
FORMATS.register("bf16")(Cast(torch.bfloat16))
FORMATS.register("fp16")(Cast(torch.float16))
FORMATS.register("fp8")(FP8())
FORMATS.register("mxfp4")(MXFP4())
FORMATS.register("mxfp8")(MXFP8())
FORMATS.register("nvfp4")(NVFP4())
for _name in BLOCK_BYTES:
    FORMATS.register(_name)(GgmlBlocks(_name))


def dequantize(q: QuantizedWeight, dtype: torch.dtype) -> Tensor:
    """The weight matrix (rows, cols) that ``q``'s stored tensors stand for, in ``dtype``.

    Computed in float32 and cast once.
    """
    return FORMATS[q.scheme.format].dequantize(q).to(dtype)
