"""Denoisers as ONNX graphs: diffusers' conditional U-Net and transformer, and real ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bitfront.quant.onnx_file import OnnxFile
from bitfront.tasks import DiffusionTask
from bitfront.types import parse_schemes
from tests import pipelines
from tests.test_onnx_export import export, mixed

SCHEMES = parse_schemes("w8 w4g16 w8a8 w4a8s keep w8g16a8g")
TINY: dict[str, Any] = {
    "steps": 4, "samples": 4, "eval_samples": 3, "batch": 2, "timesteps": 2, "timestep_groups": 2,
    "device": "cpu",
}  # fmt: skip


def inputs(folder: Path) -> dict[str, list[Any]]:
    """Name -> sizes, words where they vary."""
    given = OnnxFile(folder).graph.graph.input
    return {
        x.name: [d.dim_param or d.dim_value for d in x.type.tensor_type.shape.dim] for x in given
    }


def test_a_transformer_by_class(tmp_path: Path) -> None:
    task = DiffusionTask(pipelines.by_class(tmp_path / "dit"), classes=[1, 2], **TINY)
    assert export(task, mixed(task, SCHEMES), tmp_path / "out").ok
    assert inputs(tmp_path / "out") == {
        "hidden_states": ["batch_size", 4, 8, 8], "timestep": ["batch_size"],
        "class_labels": ["batch_size"],
    }  # fmt: skip


def test_a_unet_by_prompt(tmp_path: Path) -> None:
    task = DiffusionTask(pipelines.by_prompt(tmp_path / "sd"), ["a b", "c"], **TINY)
    assert export(task, mixed(task, SCHEMES), tmp_path / "out").ok
    assert inputs(tmp_path / "out") == {
        "sample": ["batch_size", 4, 8, 8], "timestep": [],
        "encoder_hidden_states": ["batch_size", 16, 16],
    }  # fmt: skip


def real(assets: Path, network: str, file: str, *more: Callable[[int, int], Tensor]) -> Any:
    """A network of the assets in a loop that only mixes what it predicts into noise."""
    spec = importlib.util.spec_from_file_location("archs", assets / "archs.py")
    assert spec is not None
    assert spec.loader is not None
    archs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(archs)
    model: nn.Module = getattr(archs, network)()
    model.load_state_dict(load_file(assets / file))

    def sample(generators: list[torch.Generator], conditions: list[int] | None) -> Tensor:
        x = torch.stack([torch.randn(1, 28, 28, generator=g) for g in generators])
        for step in range(4):
            x = 0.9 * x + 0.1 * model(x, *(make(step, len(x)) for make in more))
        return x

    return model.eval(), sample


def test_a_real_unet(assets: Path, tmp_path: Path) -> None:
    file = "mnist_attn_unet/attn_unet.safetensors"

    def time(step: int, count: int) -> Tensor:
        return torch.full((count,), 900 - 200 * step)

    task = DiffusionTask(
        lambda: real(assets, "AttnUNet", file, time), samples=4, eval_samples=4, batch=4,
        timesteps=2, timestep_groups=1, device="cpu",
    )  # fmt: skip
    assert export(task, mixed(task, SCHEMES), tmp_path / "out").ok


def test_a_real_transformer_by_class(assets: Path, tmp_path: Path) -> None:
    file = "mnist_flow_vit/flow_vit.safetensors"

    def time(step: int, count: int) -> Tensor:
        return torch.full((count,), step / 4)

    def label(step: int, count: int) -> Tensor:
        return torch.arange(count) % 10

    task = DiffusionTask(
        lambda: real(assets, "FlowViT", file, time, label), samples=4, eval_samples=4, batch=4,
        timesteps=2, timestep_groups=1, device="cpu",
    )  # fmt: skip
    assert export(task, mixed(task, SCHEMES), tmp_path / "out").ok
    assert inputs(tmp_path / "out")["y"] == ["batch_size"]
