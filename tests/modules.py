"""One module of every layer kind in every shape that matters, with an input, for tests."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bitfront.quant.layers import adapter_of
from bitfront.quant.weights import QuantizedLayer, QuantizedWeight
from bitfront.types import Layer

Case = Callable[[], tuple[nn.Module, Tensor]]


def _hf_conv1d() -> nn.Module:
    from transformers.pytorch_utils import Conv1D

    module = Conv1D(12, 8)
    nn.init.normal_(module.bias)
    return module


def _r(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


CASES: dict[str, Case] = {
    "linear": lambda: (nn.Linear(8, 12), _r(3, 5, 8)),
    "linear-nobias": lambda: (nn.Linear(8, 12, bias=False), _r(3, 8)),
    "linear-4d": lambda: (nn.Linear(8, 12), _r(2, 3, 4, 8)),
    "linear-unbatched": lambda: (nn.Linear(8, 12), _r(8)),
    "hf_conv1d": lambda: (_hf_conv1d(), _r(2, 5, 8)),
    "embedding": lambda: (nn.Embedding(12, 8), torch.tensor([[0, 3, 11], [3, 3, 7]])),
    "embedding-padding": lambda: (
        nn.Embedding(12, 8, padding_idx=3),
        torch.tensor([[0, 3], [3, 7]]),
    ),
    "conv1d": lambda: (nn.Conv1d(4, 6, 3), _r(2, 4, 9)),
    "conv1d-rich": lambda: (
        nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2, padding_mode="circular"),
        _r(2, 4, 9),
    ),
    "conv1d-same": lambda: (nn.Conv1d(4, 6, 4, padding="same", dilation=3), _r(2, 4, 11)),
    "conv1d-unbatched": lambda: (nn.Conv1d(4, 6, 3), _r(4, 9)),
    "conv2d": lambda: (nn.Conv2d(4, 6, 3, padding=1), _r(2, 4, 7, 6)),
    "conv2d-stride": lambda: (
        nn.Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(2, 1), dilation=(1, 2)),
        _r(2, 4, 9, 8),
    ),
    "conv2d-groups": lambda: (nn.Conv2d(4, 8, 3, groups=2, bias=False), _r(2, 4, 7, 6)),
    "conv2d-depthwise": lambda: (nn.Conv2d(6, 6, 3, groups=6, padding=1), _r(2, 6, 5, 5)),
    "conv2d-same": lambda: (nn.Conv2d(4, 6, (4, 3), padding="same"), _r(2, 4, 7, 6)),
    "conv2d-valid": lambda: (nn.Conv2d(4, 6, 3, padding="valid"), _r(2, 4, 7, 6)),
    "conv2d-reflect": lambda: (
        nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="reflect"),
        _r(2, 4, 7, 6),
    ),
    "conv2d-replicate-same": lambda: (
        nn.Conv2d(4, 6, (4, 3), padding="same", padding_mode="replicate"),
        _r(2, 4, 7, 6),
    ),
    "conv2d-unbatched": lambda: (nn.Conv2d(4, 6, 3, padding=1), _r(4, 7, 6)),
    "conv_transpose1d": lambda: (nn.ConvTranspose1d(4, 6, 3), _r(2, 4, 5)),
    "conv_transpose1d-rich": lambda: (
        nn.ConvTranspose1d(4, 6, 3, 3, padding=2, output_padding=2, groups=2, dilation=2),
        _r(2, 4, 5),
    ),
    "conv_transpose2d": lambda: (nn.ConvTranspose2d(4, 6, 2, stride=2), _r(2, 4, 3, 5)),
    "conv_transpose2d-rich": lambda: (
        nn.ConvTranspose2d(
            4, 6, (3, 2), (2, 3), padding=(1, 0), output_padding=(1, 2), groups=2, dilation=(2, 1)
        ),
        _r(2, 4, 4, 5),
    ),
    "conv_transpose2d-wide-padding": lambda: (
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=3, output_padding=1),
        _r(2, 4, 5, 5),
    ),
    "conv_transpose2d-unbatched": lambda: (nn.ConvTranspose2d(4, 6, 2, stride=2), _r(4, 3, 5)),
}  # fmt: skip


def make(case: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor]:
    """The module of ``case`` with its own fixed weights, and an input for it."""
    with torch.random.fork_rng():
        torch.manual_seed(len(case))
        module, x = CASES[case]()
    module.to(dtype).eval()
    return module, x.to(dtype) if x.is_floating_point() else x


def layer_of(name: str, module: nn.Module, shares: str | None = None) -> Layer:
    """The layer that stands for ``module``."""
    adapter = adapter_of(module)
    M = adapter.matrix(module)
    bias = getattr(module, "bias", None)
    return Layer(
        name=name, kind=adapter.kind, rows=M.shape[0], cols=M.shape[1],
        dtype=str(M.dtype).removeprefix("torch."), bias=0 if bias is None else bias.numel(),
        macs=100, shares=shares,
    )  # fmt: skip


def with_made_up_grids(weight: QuantizedWeight, step: float = 0.03) -> QuantizedLayer:
    """A quantized layer with grids of static inputs and of outputs that no data was asked for."""
    activation = weight.scheme.activation
    if activation is None or not activation.static:
        return QuantizedLayer(weight)
    zero = None if activation.symmetric else (1 << activation.bits) // 3
    output = torch.tensor(0.7 * step) if activation.output else None
    return QuantizedLayer(
        weight, torch.tensor(step), 0, zero, output, zero if activation.output else None
    )
