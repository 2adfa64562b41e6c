"""Tiny diffusers pipelines with random weights, saved as a user would have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def _saved(folder: Path, make: Callable[[], Any]) -> Path:
    if not folder.exists():
        with torch.random.fork_rng():
            torch.manual_seed(5)
            make().save_pretrained(folder)
    return folder


def unconditional(folder: Path) -> Path:
    """A U-Net with self-attention on 16 × 16 images."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    def make() -> Any:
        unet = UNet2DModel(
            sample_size=16, in_channels=1, out_channels=1, layers_per_block=1, norm_num_groups=4,
            block_out_channels=(8, 16), attention_head_dim=8,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        return DDPMPipeline(unet, DDPMScheduler())

    return _saved(folder, make)


def by_class(folder: Path) -> Path:
    """A diffusion transformer of two blocks that learns the variance, for classes to 1000."""
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    def make() -> Any:
        transformer = DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8,
            num_layers=2, sample_size=8, patch_size=2, num_embeds_ada_norm=1000,
        )  # fmt: skip
        return DiTPipeline(transformer, _vae(), DDIMScheduler())

    return _saved(folder, make)


def by_prompt(folder: Path) -> Path:
    """A Stable Diffusion of some thousand parameters."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    def make() -> Any:
        unet = UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, norm_num_groups=4,
            block_out_channels=(8, 16), cross_attention_dim=16, attention_head_dim=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        text = CLIPTextConfig(
            vocab_size=len(_WORDS), hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=16, bos_token_id=0, eos_token_id=1,
            pad_token_id=1,
        )  # fmt: skip
        return StableDiffusionPipeline(
            _vae(), CLIPTextModel(text), _tokenizer(folder.parent), unet,
            DDIMScheduler(steps_offset=1, clip_sample=False),
            None, None, requires_safety_checker=False,
        )  # fmt: skip

    return _saved(folder, make)


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        latent_channels=4, block_out_channels=(4, 8), norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip


_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WORDS = ["<|startoftext|>", "<|endoftext|>", *_LETTERS, *(letter + "</w>" for letter in _LETTERS)]


def _tokenizer(folder: Path) -> Any:
    """CLIP's, with single letters for words' parts."""
    import json

    from transformers import CLIPTokenizer

    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({word: i for i, word in enumerate(_WORDS)}))
    merges.write_text("#version: 0.2\n")
    return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=16)
