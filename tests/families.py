"""Tiny classifiers of transformers' image families, saved as users have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitfront.tasks import VisionTask

CLASSES = 4
_VIT: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 16, "patch_size": 8, "num_labels": CLASSES,
}  # fmt: skip
_SWIN: dict[str, Any] = {
    "image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2],
    "window_size": 4, "mlp_ratio": 2.0, "num_labels": CLASSES,
}  # fmt: skip
_RESNET: dict[str, Any] = {
    "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_labels": CLASSES,
}  # fmt: skip
_MOBILE: dict[str, Any] = {
    "image_size": 32, "depth_multiplier": 0.05, "min_depth": 4, "num_labels": CLASSES,
}  # fmt: skip
_SQUARE = {"height": 16, "width": 16}
_CROP: dict[str, Any] = {"size": {"shortest_edge": 34}, "crop_size": {"height": 32, "width": 32}}


def vit() -> tuple[Any, Any]:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    return ViTForImageClassification(ViTConfig(**_VIT)), ViTImageProcessor(size=_SQUARE)


def deit() -> tuple[Any, Any]:
    from transformers import DeiTConfig, DeiTForImageClassification, DeiTImageProcessor

    processor = DeiTImageProcessor(size={"height": 18, "width": 18}, crop_size=_SQUARE)
    return DeiTForImageClassification(DeiTConfig(**_VIT)), processor


def swin() -> tuple[Any, Any]:
    """Two stages; the second block of the first one has rolled windows."""
    from transformers import SwinConfig, SwinForImageClassification, ViTImageProcessor

    return SwinForImageClassification(SwinConfig(**_SWIN)), ViTImageProcessor(size=_SQUARE)


def resnet(kind: str = "basic") -> tuple[Any, Any]:
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(**_RESNET, layer_type=kind)
    processor = ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.9)
    return ResNetForImageClassification(config), processor


def bottleneck() -> tuple[Any, Any]:
    return resnet("bottleneck")


def mobile_v1() -> tuple[Any, Any]:
    """Depthwise convolutions, batch norms and ReLU6."""
    from transformers import (
        MobileNetV1Config,
        MobileNetV1ForImageClassification,
        MobileNetV1ImageProcessor,
    )

    net = MobileNetV1ForImageClassification(MobileNetV1Config(**_MOBILE))
    return net, MobileNetV1ImageProcessor(**_CROP)


def mobile_v2() -> tuple[Any, Any]:
    """Inverted residuals besides."""
    from transformers import (
        MobileNetV2Config,
        MobileNetV2ForImageClassification,
        MobileNetV2ImageProcessor,
    )

    config = MobileNetV2Config(**_MOBILE, depth_divisible_by=4)
    return MobileNetV2ForImageClassification(config), MobileNetV2ImageProcessor(**_CROP)


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "vit": vit, "deit": deit, "swin": swin, "resnet": resnet, "bottleneck": bottleneck,
    "mobile_v1": mobile_v1, "mobile_v2": mobile_v2,
}  # fmt: skip


def classifier_task(folder: Path, family: str) -> VisionTask:
    """The task a user has of a saved classifier and a file of images: 8 to calibrate on."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (16, 20, 20, 3), dtype=np.uint8)
    y = np.arange(16) % CLASSES
    np.savez(folder / "x.npz", x_train=x[:8], y_train=y[:8], x_test=x[8:], y_test=y[8:])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, processor = FAMILIES[family]()
        made = processor(list(x), return_tensors="pt", input_data_format="channels_last")
        _settle(net, made["pixel_values"])
    net.save_pretrained(folder / family)
    processor.save_pretrained(folder / family)
    return VisionTask(folder / family, folder / "x.npz", samples=8, batch=4, device="cpu")


def _settle(net: nn.Module, x: Tensor) -> None:
    """Random weights of a size at which signals neither vanish nor saturate on the way through."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan = module.weight[0].numel()
            nn.init.normal_(module.weight, std=fan**-0.5)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    net.train()
    with torch.no_grad():
        net(x)
    net.eval()
