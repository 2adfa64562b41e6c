"""Classes of layers by what they do."""

from __future__ import annotations

from pathlib import Path

from bitfront.tasks import DiffusionTask
from bitfront.tasks.roles import classes
from tests import pipelines, small_tasks, tiny

SMALL = {"steps": 2, "samples": 1, "eval_samples": 1, "timesteps": 1, "timestep_groups": 1}


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


def test_of_other_networks(tmp_path: Path) -> None:
    found = classes(small_tasks.attentive())
    assert found["q"] == found["k"] == found["v"] == "self-attention"
    assert found["head"] == "other"
    found = classes(tiny.language_task(tmp_path))
    assert found["model.layers.0.self_attn.o_proj"] == "self-attention"
    assert found["model.layers.0.mlp.down_proj"] == "feed-forward"
