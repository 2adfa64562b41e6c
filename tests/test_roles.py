"""Classes of layers by what they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from bitfront.tasks import DiffusionTask, VisionTask
from bitfront.tasks.roles import classes
from tests import pipelines, small_tasks, tiny
from tests.test_diffusion_samplers import flux

SMALL = {"steps": 2, "samples": 1, "eval_samples": 1, "timesteps": 1, "timestep_groups": 1}
SMALL_BROUGHT: Any = {name: value for name, value in SMALL.items() if name != "steps"}


def test_of_a_unet_with_text(tmp_path: Path) -> None:
    found = classes(
        DiffusionTask(
            pipelines.by_prompt(tmp_path / "sd"), ["a"], text_encoders=True, device="cpu",
            **SMALL,  # type: ignore[arg-type]
        )
    )  # fmt: skip
    block = "unet.mid_block.attentions.0.transformer_blocks.0."
    assert {
        "unet.conv_in": "convolution",
        "unet.time_embedding.linear_1": "time embedding",
        "unet.mid_block.resnets.0.time_emb_proj": "time embedding",
        "unet.mid_block.resnets.0.conv1": "convolution",
        f"{block}attn1.to_q": "self-attention",
        f"{block}attn1.to_out.0": "self-attention",
        f"{block}attn2.to_q": "cross-attention",
        f"{block}attn2.to_k": "cross-attention",
        f"{block}ff.net.0.proj": "feed-forward",
        f"{block}ff.net.2": "feed-forward",
    }.items() <= found.items()
    assert {c for n, c in found.items() if n.startswith("text_encoder.")} == {"text embedding"}


def test_of_a_diffusion_transformer(tmp_path: Path) -> None:
    found = classes(
        DiffusionTask(
            pipelines.by_class(tmp_path / "dit"), classes=[1], device="cpu",
            **SMALL,  # type: ignore[arg-type]
        )
    )  # fmt: skip
    block = "transformer_blocks.1."
    assert found["pos_embed.proj"] == "convolution"
    assert found[f"{block}norm1.linear"] == "norm-adjacent"
    assert found[f"{block}attn1.to_v"] == "self-attention"
    assert found[f"{block}ff.net.2"] == "feed-forward"
    assert found["proj_out_2"] == "other"


def test_of_flux() -> None:
    found = classes(DiffusionTask(flux, device="cpu", batch=1, **SMALL_BROUGHT))
    assert {
        "context_embedder": "text embedding",
        "time_text_embed.timestep_embedder.linear_1": "time embedding",
        "time_text_embed.text_embedder.linear_1": "text embedding",
        "transformer_blocks.0.norm1_context.linear": "norm-adjacent",
        "transformer_blocks.0.attn.add_q_proj": "self-attention",
        "transformer_blocks.0.ff_context.net.2": "feed-forward",
        "single_transformer_blocks.0.proj_mlp": "feed-forward",
        "single_transformer_blocks.0.proj_out": "other",  # of attention and feed-forward at once
    }.items() <= found.items()


class Norms(nn.Module):
    """A convolution inside a module with its norm; a mixer with names that say little."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.modulation = nn.Linear(4, 4)
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.modulation(self.stem(x).mean((2, 3)))
        return self.head(self.b(self.a(y).relu()))


class ConvNorm(nn.Sequential):
    """Named as torchvision and timm name such pairs."""


def test_of_a_classifier() -> None:
    """It knows no time, whatever its layers are called."""
    x = np.zeros((4, 6, 6, 3), dtype=np.uint8)
    found = classes(VisionTask(Norms(), (x,), samples=2, device="cpu"))
    assert found == {
        "stem.0": "convolution", "modulation": "other", "a": "feed-forward", "b": "feed-forward",
        "head": "other",
    }  # fmt: skip


def test_of_other_networks(tmp_path: Path) -> None:
    found = classes(small_tasks.attentive())
    assert found["q"] == found["k"] == found["v"] == "self-attention"
    assert found["gate"] == found["up"] == found["down"] == "feed-forward"
    assert found["head"] == "other"
    found = classes(tiny.language_task(tmp_path))
    assert found["model.layers.0.self_attn.o_proj"] == "self-attention"
    assert found["model.layers.0.mlp.down_proj"] == "feed-forward"
