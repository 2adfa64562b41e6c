"""Quantizers: how a weight matrix gets to its scheme's format.

Adding one is one function and one line below (and its name in the grammar of schemes).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bitfront.errors import SchemeError
from bitfront.registry import Registry
from bitfront.types import Scheme

from .formats import FORMATS, dequantize
from .gptq import gptq
from .statistics import InputStatistics
from .weights import QuantizedWeight


@dataclass(frozen=True)
class Quantizer:
    """``run(M, scheme, statistics)`` quantizes finite ``M`` (rows, cols).

    It is a pure function: the same arguments give the same codes, and ``M`` is left alone.
    ``uses_inputs`` says whether it needs the layer's input statistics (``H``).
    """

    run: Callable[[Tensor, Scheme, InputStatistics | None], QuantizedWeight]
    uses_inputs: bool = False


def rtn(M: Tensor, scheme: Scheme, stats: InputStatistics | None = None) -> QuantizedWeight:
    """Round to nearest, on the grid of least squared error."""
    return FORMATS[scheme.format].quantize(M, scheme)


QUANTIZERS: Registry[Quantizer] = Registry("quantizer")
QUANTIZERS.register("rtn")(Quantizer(rtn))
QUANTIZERS.register("gptq")(Quantizer(gptq, uses_inputs=True))
QUANTIZERS.register("gptq:act")(Quantizer(partial(gptq, act_order=True), uses_inputs=True))


def quantize(M: Tensor, scheme: Scheme, stats: InputStatistics | None = None) -> QuantizedWeight:
    """``M`` (rows, cols) under ``scheme``, by the quantizer that the scheme names.

    Raises ``SchemeError`` for weights that are not finite, that the format cannot hold, or whose
    quantizer lacks ``stats``.
    """
    quantizer = QUANTIZERS[scheme.quantizer]
    if quantizer.uses_inputs and (stats is None or stats.H is None):
        raise SchemeError(
            f"{scheme} without input statistics", "collect them from calibration data"
        )
    largest = max(abs(float(end)) for end in torch.aminmax(M))
    if not math.isfinite(largest):
        raise SchemeError("weights that are not finite", "repair the model first")
    # sums depend on the order in memory: equal matrices must get equal codes
    q = quantizer.run(M.contiguous(), scheme, stats)
    # rounding takes no weight beyond twice the largest
    near_the_end = largest > torch.finfo(M.dtype).max / 2
    if near_the_end and not torch.isfinite(dequantize(q, M.dtype)).all():
        raise SchemeError(
            f"{scheme} takes weights as large as {largest:.3g} beyond {M.dtype}",
            "keep this layer",
        )
    return q
