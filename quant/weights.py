"""What quantizing gives: integer codes with scales, or values already rounded to a float format."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bitfront.types import Scheme

from .ggml_types import is_block, row_weights


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """One layer's weight matrix under one scheme.

    codes: (rows, cols). Integer schemes: int8 for symmetric ones, in [-2^(b-1), 2^(b-1) - 1];
        uint8 for asymmetric ones, in [0, 2^b - 1]. ``bf16``, ``fp16``, ``fp8``: the rounded values
        in that dtype. ``mxfp4``, ``nvfp4``: uint8 indices of E2M1 values.
        Block types of GGUF: uint8, the bytes of a row's blocks, with scales and all.
    scale: (rows, groups) in the dtype that is stored, or None for ``bf16``, ``fp16`` and
        block types.
    zero: (rows, groups) uint8, or None.
    tensor_scale: 0-dim float32, the second-level scale of ``nvfp4``, or None.

    The dequantized weight is a function of these stored tensors alone, so a trial and its export
    cannot differ.
    """

    scheme: Scheme
    codes: Tensor
    scale: Tensor | None = None
    zero: Tensor | None = None
    tensor_scale: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols) of the weight matrix."""
        rows, cols = self.codes.shape
        if is_block(self.scheme):
            return rows, row_weights(cols, self.scheme)
        return rows, cols


@dataclass(frozen=True, eq=False)
class QuantizedLayer:
    """A layer's quantized weight and, for static activation schemes, its input's scale.

    head: outputs of one head where the scheme quantizes what is cached, else 0. input_zero: the
    code of 0 on the input's grid, None for a symmetric one. output_scale, output_zero: the same of
    the output's grid, where the scheme rounds outputs.
    """

    weight: QuantizedWeight
    input_scale: Tensor | None = (
        None  # 0-dim float32: step of the static per-tensor activation grid
    )
    head: int = 0
    input_zero: int | None = None
    output_scale: Tensor | None = None
    output_zero: int | None = None


def scale_dtype(weight_dtype: torch.dtype) -> torch.dtype:
    """The dtype that scales are stored in: the weights' own, 16 bits for float32 and float64."""
    return torch.float16 if weight_dtype in (torch.float32, torch.float64) else weight_dtype
