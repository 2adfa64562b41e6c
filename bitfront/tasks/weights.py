"""Weights files into plain torch modules: safetensors, or torch files without code in them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from bitfront.errors import ModelError

from .boundary import foreign
from .paths import expanded

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys that checkpoints nest weights under


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fill ``model`` from a weights file; every parameter must be there, of the right shape."""
    file = expanded(path)
    state = read_weights(file)
    wanted = model.state_dict()
    _refuse(file, "lacks", [n for n in wanted if n not in state and not _optional(n, wanted)])
    _refuse(file, "has unknown", [n for n in state if n not in wanted])
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise ModelError(
                f"{name!r} in {file.name} has shape {tuple(tensor.shape)}, the model's "
                f"{tuple(wanted[name].shape)}",
                "check the model's arguments, or use its own weights",
            )
        if _kind(tensor) != _kind(wanted[name]):  # torch would convert it without a word
            raise ModelError(
                f"{name!r} in {file.name} is {tensor.dtype}, the model's {wanted[name].dtype}",
                "use weights in full precision",
            )
    with foreign(f"loading {file.name}", "use the model's own weights"):
        model.load_state_dict(state, strict=False)


def read_weights(file: Path) -> dict[str, Tensor]:
    """Name -> tensor of a ``.safetensors`` file, or of a torch file with tensors only."""
    if not file.is_file():
        raise ModelError(f"no weights file {str(file)!r}", "give the path of a file")
    if file.suffix not in SUFFIXES:
        raise ModelError(
            f"unknown kind of weights file {file.name!r}", f"use {', '.join(SUFFIXES)}"
        )
    remedy = "save model.state_dict() in it, or copy it again if it is damaged"
    with foreign(f"reading weights from {file.name}", remedy):
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(file))
        state = torch.load(file, map_location="cpu", weights_only=True)
    for key in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{file.name} holds no state dict", "save model.state_dict() in it")
    return state


def _kind(tensor: Tensor) -> str:
    if tensor.is_floating_point():
        return "real"
    return "complex" if tensor.is_complex() else "integer"


def _optional(name: str, wanted: dict[str, Tensor]) -> bool:
    """Counters of batch norm, and second names of tensors that are shared."""
    return name.endswith("num_batches_tracked") or any(
        other != name and wanted[other].data_ptr() == wanted[name].data_ptr()
        for other in wanted
        if wanted[name].numel()
    )


def _refuse(file: Path, what: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise ModelError(
            f"{file.name} {what} {', '.join(map(repr, names[:3]))}{more}",
            "the weights belong to another model, or it was made with other arguments",
        )
