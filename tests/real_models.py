"""Trained networks of the assets with calibration data, for tests and benchmarks of layers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

Model = tuple[nn.Module, Callable[[], Tensor]]


def resnet(assets: Path) -> Model:
    from safetensors.torch import load_file

    spec = importlib.util.spec_from_file_location("archs", assets / "archs.py")
    assert spec is not None
    assert spec.loader is not None
    archs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(archs)
    model = archs.ResNetCIFAR(20)
    model.load_state_dict(load_file(next((assets / "cifar10_resnet20").glob("*.safetensors"))))
    images = np.load(next((assets / "cifar10").glob("*.npz")))["x_train"][:64]
    x = torch.tensor(images).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (x - mean[:, None, None]) / std[:, None, None]
    return model.eval(), lambda: model(x)


def llama(assets: Path) -> Model:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(assets / "stories260K_llama").eval()
    ids = torch.tensor(np.load(next((assets / "text").glob("*.npz")))["ids"]).long()
    x = ids.flatten()[: 16 * 128].view(16, 128)
    return model, lambda: model(x).logits


MODELS = {"resnet": resnet, "llama": llama}
