"""Models as small ones are, but wide, with random weights: their seconds mean something, their
quality nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from benchmarks.diffusion import networks
from bitfront.demo import Block
from bitfront.tasks import LanguageTask, ModuleTask, Task


class ResNet(nn.Module):
    """ResNet-20 with more channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        sizes = [(width, width, 1)] * 3
        for outputs in (2 * width, 4 * width):
            sizes += [(outputs // 2, outputs, 2), *[(outputs, outputs, 1)] * 2]
        self.blocks = nn.Sequential(*(Block(*size) for size in sizes))
        self.linear = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(self.blocks(relu(self.bn(self.conv(x)))).mean((2, 3)))
        return y


def wide_resnet(assets: Path) -> Task:
    """ResNet-20 four times as wide."""
    del assets

    def make() -> dict[str, Any]:
        torch.manual_seed(0)
        return {"model": ResNet(64).eval(), **_images(3, 32)}

    return ModuleTask(make, fold_norms=True)


def wide_vit(assets: Path) -> Task:
    """The ViT with width 512."""
    archs = networks(assets)

    def make() -> dict[str, Any]:
        torch.manual_seed(0)
        return {"model": archs.TinyViT(d=512, depth=6, h=8, ff=2048).eval(), **_images(3, 32)}

    return ModuleTask(make)


def wide_unet(assets: Path) -> Task:
    """diffusers' U-Net of 28 x 28 images, 64 and 128 channels, as a module."""
    del assets

    def make() -> dict[str, Any]:
        from diffusers import UNet2DModel

        torch.manual_seed(0)
        model: Any = UNet2DModel(
            sample_size=32, in_channels=3, out_channels=3, layers_per_block=1,
            block_out_channels=(64, 128), norm_num_groups=16,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        x = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        t = torch.full((8,), 10)
        given = [{"sample": part, "timestep": t, "return_dict": False} for part in x.split(8)]
        data = {"calibration": given[:2], "evaluation": given[2:]}
        return {"model": model.eval(), "output": "gaussian", **data}

    return ModuleTask(make)


def _images(channels: int, size: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(48, channels, size, size, generator=generator)
    return {"calibration": list(x[:32].split(16)), "evaluation": [x[32:]]}


def wide_llama(assets: Path) -> Task:
    """A Llama of four blocks and width 512, on stories."""
    folder = Path(_room().name) / "llama"
    llama_folder(
        assets, folder, hidden_size=512, intermediate_size=1376, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=512,
    )  # fmt: skip
    texts = assets / "text" / "tinystories_917_clean.json"
    return LanguageTask(folder, texts, samples=32, eval_samples=32, batch=8, layout="joined")


def llama_folder(assets: Path, folder: Path, **sizes: Any) -> None:
    """Save a Llama of these sizes with the tokenizer of the assets' small one."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=512, bos_token_id=1, eos_token_id=2, **sizes)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:  # outputs as wide as inputs, so that logits differ by nats
                parameter.normal_(0.0, parameter.shape[1] ** -0.5)
    model.save_pretrained(folder)
    for path in (assets / "stories260K_llama").glob("tokenizer*"):
        shutil.copyfile(path, folder / path.name)


@cache
def _room() -> tempfile.TemporaryDirectory[str]:
    """A folder until the process ends."""
    return tempfile.TemporaryDirectory(prefix="bitfront-")
