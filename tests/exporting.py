"""Small models with awkward shapes, their layers and quantized weights, for tests of exporters."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from bitfront.quant.exporters import Exporter
from bitfront.quant.layers import adapter_for
from bitfront.quant.quantizers import quantize
from bitfront.quant.surgery import original
from bitfront.quant.weights import QuantizedLayer
from bitfront.tasks.base import Batch, Task
from bitfront.tasks.pipelines import load_pipeline
from bitfront.types import Layer, Scheme, parse_schemes
from tests import pipelines
from tests.modules import with_made_up_grids

WEIGHT_SCHEMES = parse_schemes(
    "w2 w3 w4 w5 w6 w7 w8 w3z w4g5 w5g3z w2g32 w3g8 w4g16z bf16 fp16 fp8 mxfp8 mxfp4 nvfp4 q8_0 "
    "q4_1"
)
ACTIVATION_SCHEMES = parse_schemes(
    "w8a8 w8a8s w4a8 w5a6 w4g8a4s w4g3a8g fp8a8 fp8a8s nvfp4a4 mxfp4a4 mxfp8a8 "
    "w8a8sz w4g5a6sz w4a8so w5a8szo"
)
KEEP = Scheme.parse("keep")


class OddNet(nn.Module):
    """Every kind of layer, rows whose bits fill no whole bytes, tied and shared tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6, bias=False)
        self.up = nn.ConvTranspose2d(6, 5, 2, stride=2, groups=1)
        self.mix = nn.Linear(5, 48)
        self.narrow = nn.Linear(48, 45, bias=False)
        self.table = nn.Embedding(11, 45)
        self.signal = nn.Conv1d(45, 7, 3)
        self.unsignal = nn.ConvTranspose1d(7, 45, 3)
        self.head = nn.Linear(45, 11)
        self.head.weight = self.table.weight
        self.register_buffer("scratch", torch.ones(3), persistent=False)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        y = self.up(self.depthwise(self.norm(self.stem(x)))).mean((2, 3))
        y = self.narrow(torch.relu(self.mix(y)))[:, :, None] + self.table(ids).transpose(1, 2)
        return self.head(torch.relu(self.unsignal(self.signal(y))).transpose(1, 2))


def odd_net(seed: int = 0, dtype: torch.dtype = torch.float32) -> OddNet:
    torch.manual_seed(seed)
    return OddNet().to(dtype).eval()


def odd_inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 7, 7, generator=generator).to(dtype)
    return x, torch.randint(0, 11, (2, 6), generator=generator)


def tiny_llama(tied: bool = True, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import LlamaConfig

    return _causal_lm(
        LlamaConfig(
            vocab_size=40, hidden_size=32, intermediate_size=44, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32,
            tie_word_embeddings=tied,
        ),
        dtype,
    )  # fmt: skip


def tiny_gpt2(dtype: torch.dtype = torch.float32) -> Any:
    from transformers import GPT2Config

    config = GPT2Config(vocab_size=40, n_embd=24, n_layer=1, n_head=2, n_positions=32)
    return _causal_lm(config, dtype)


def _causal_lm(config: Any, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


DENOISERS = ("unconditional", "by_class", "by_prompt")  # in ``tests.pipelines``


def denoiser(kind: str, folder: Path, dtype: torch.dtype) -> tuple[nn.Module, dict[str, Tensor]]:
    """A pipeline's denoiser, loaded from ``folder``, and what it is called with."""
    source = getattr(pipelines, kind)(folder / kind)
    pipeline, component = load_pipeline(str(source), str(dtype).removeprefix("torch."))
    generator = torch.Generator().manual_seed(3)

    def noise(*shape: int) -> Tensor:
        return torch.randn(2, *shape, generator=generator).to(dtype)

    call = {"timestep": torch.tensor([3, 500])}
    if kind == "unconditional":
        call |= {"sample": noise(1, 16, 16)}
    elif kind == "by_class":
        call |= {"hidden_states": noise(4, 8, 8), "class_labels": torch.tensor([1, 2])}
    else:
        call |= {"sample": noise(4, 8, 8), "encoder_hidden_states": noise(5, 16)}
    model: nn.Module = getattr(pipeline, component)
    for parameter in model.parameters():  # sums depend on where a weight stands in memory
        parameter.data = parameter.data.clone()
    return model.eval().requires_grad_(False), call  # as SDNQ's weights; see ``without_gradients``


def needs_sdnq() -> None:
    """Skip the test where the package is missing that diffusers reads these exports by."""
    if importlib.util.find_spec("sdnq") is None:
        pytest.skip("sdnq is not installed: pip install 'bitfront[diffusers]'")


def token_ids() -> Tensor:
    return torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(2))


def layers_of(model: nn.Module) -> tuple[Layer, ...]:
    """All layers that an adapter describes, in order of definition."""
    layers: list[Layer] = []
    owners: dict[int, str] = {}
    for name, module in model.named_modules():
        adapter = adapter_for(module)
        if adapter is None:
            continue
        weight = cast(Any, module).weight
        rows, cols = adapter.matrix(module).shape
        owner = owners.setdefault(weight.data_ptr(), name)
        shares = None if owner == name else owner
        dtype = str(weight.dtype).removeprefix("torch.")
        kernel = tuple(getattr(module, "kernel_size", ()))
        layers.append(Layer(name, adapter.kind, rows, cols, dtype, shares=shares, kernel=kernel))
    return tuple(layers)


def quantized_by(
    model: nn.Module, schemes: Mapping[str, Scheme]
) -> Callable[[str], QuantizedLayer]:
    """As ``Builder.quantized``, with a made-up number for static activations."""

    def quantized(name: str) -> QuantizedLayer:
        scheme = schemes[name]
        weight = quantize(original(name, model.get_submodule(name)), scheme, None)
        return with_made_up_grids(weight, 731.3 if scheme.format == "nvfp4" else 0.037)

    return quantized


def mix(
    exporter: Exporter, layers: Sequence[Layer], seed: int, pool: Sequence[Scheme] | None = None
) -> dict[str, Scheme]:
    """A scheme for each layer, drawn from those of ``pool`` and ``keep`` that it can take."""
    generator = torch.Generator().manual_seed(seed)
    schemes: dict[str, Scheme] = {}
    sharing = {layer.shares for layer in layers}
    for layer in layers:
        if layer.shares is not None:
            schemes[layer.name] = schemes[layer.shares]
            continue
        twins = [other for other in layers if layer.name in (other.name, other.shares)]
        able = [
            scheme
            for scheme in (*(pool or WEIGHT_SCHEMES + ACTIVATION_SCHEMES), KEEP)
            if all(exporter.reason(twin, scheme) is None for twin in twins)
            and not (layer.name in sharing and scheme.activation)
        ]
        schemes[layer.name] = able[int(torch.randint(len(able), (), generator=generator))]
    return schemes


class LiveTask(Task):
    """A task around a model in hand."""

    kind = "odd"
    metrics = ("kl",)

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        self.model, self.device = model, torch.device("cpu")
        self.calibration = self.evaluation = [batch]

    def outputs(self, batch: Batch) -> Tensor:
        found = self.model(*batch.args, **batch.kwargs)
        return found if isinstance(found, Tensor) else found.logits

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        return layers_of(self.model)

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        return ()

    def fingerprint(self) -> dict[str, str]:
        return {}

    def recipe(self) -> dict[str, Any]:
        return {"kind": self.kind}


def odd_task(seed: int = 0) -> LiveTask:
    return LiveTask(odd_net(seed), Batch(odd_inputs(), {}, 2))
