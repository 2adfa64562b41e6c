"""GGUF's block types as weight formats: what is stored is the very bytes of the file."""

from __future__ import annotations

import torch
from torch import Tensor

from bitfront.types import Scheme

from .ggml_layouts import LAYOUTS, packed, unpacked, values
from .ggml_search import code_range, plain
from .ggml_search_k import scale_range, superblocks
from .ggml_types import BLOCK_BYTES, row_bytes
from .scales import check_reach, slices
from .weights import QuantizedWeight

_BLOCK = 1 << 22  # weights that are unpacked at a time


class GgmlBlocks:
    """One block type; the block size divides the columns."""

    def __init__(self, name: str) -> None:
        self.name = name

    def quantize(self, M: Tensor, scheme: Scheme) -> QuantizedWeight:
        layout = LAYOUTS[self.name]
        reach = max(map(abs, code_range(layout)))
        if layout.subs > 1:
            reach *= scale_range(self.name)[1]
        check_reach(M.abs().amax(1).float(), reach, torch.float16)
        w = M.reshape(-1, layout.size)
        data = torch.empty((len(w), BLOCK_BYTES[self.name]), dtype=torch.uint8, device=M.device)
        for part in slices(w):
            x = w[part].float()
            blocks = plain(x, layout) if layout.subs == 1 else superblocks(x, layout, self.name)
            data[part] = packed(self.name, blocks)
        return QuantizedWeight(scheme, data.reshape(len(M), row_bytes(M.shape[1], scheme)))

    def dequantize(self, q: QuantizedWeight) -> Tensor:
        data = q.codes.reshape(-1, BLOCK_BYTES[self.name])
        size = LAYOUTS[self.name].size
        out = torch.empty((len(data), size), device=data.device)
        step = _BLOCK // size
        for i in range(0, len(data), step):
            out[i : i + step] = values(self.name, unpacked(self.name, data[i : i + step]))
        return out.reshape(q.shape)
