"""Where a model runs and in which number format."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bitfront.errors import ModelError

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


def device_of(name: str) -> torch.device:
    """The device ``name`` stands for; ``auto`` is the accelerator if there is one, else the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"unknown device {name!r}", "use auto, cpu, cuda, cuda:1 or mps") from None
    there = {"cpu": True, "cuda": torch.cuda.is_available()}
    there["mps"] = torch.backends.mps.is_available()
    if not there.get(device.type, False):
        raise ModelError(f"device {name!r} is not available here", "use auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"no device {name!r}", f"there are {torch.cuda.device_count()} GPUs")
    return device


def dtype_of(name: str) -> torch.dtype | None:
    """The dtype ``name`` stands for; None for ``auto``, the one that the weights are stored in."""
    if name == "auto":
        return None
    if name not in DTYPES:
        raise ModelError(f"unknown dtype {name!r}", f"use auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def floating_dtype(model: nn.Module) -> torch.dtype:
    """The dtype of the model's first floating-point parameter (float32 if it has none)."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def moved(value: Any, device: torch.device, cast: torch.dtype | None) -> Any:
    """``value`` with every tensor in it on ``device``, floating-point ones in ``cast`` if given."""
    if isinstance(value, Tensor):
        return value.to(device, cast if cast is not None and value.is_floating_point() else None)
    if isinstance(value, dict):
        return {k: moved(v, device, cast) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(v, device, cast) for v in value))
    if isinstance(value, (list, tuple)):
        return type(value)(moved(v, device, cast) for v in value)
    return value
