"""diffusers pipelines: what plain ``DiffusionPipeline.from_pretrained`` loads.

The denoiser's quantized layers are SDNQ's (``sdnq_stored``), which diffusers reads by the package
``sdnq``: each has a config of its own, every other layer is on the list of those left alone. The
other components are the files of the pipeline's folder. Verified with diffusers 0.42 and sdnq 0.2.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bitfront.errors import ExportError
from bitfront.types import Layer, Scheme

from . import sdnq_stored
from .export_base import KEEP, Exporter
from .folders import MANIFEST
from .packing import to_unsigned
from .sdnq_packing import pack
from .stored import CASTS
from .tensorfiles import DENOISERS, PIPELINE
from .weights import QuantizedLayer

# classes that SDNQ replaces, by their names; it leaves those that derive from them alone
_CLASSES = {"linear": "Linear", "embedding": "Embedding", "conv1d": "Conv1d", "conv2d": "Conv2d"}
_REPLACED = (*_CLASSES.values(), "Conv3d", *(f"ConvTranspose{n}d" for n in (1, 2, 3)))
# what ``from_pretrained`` never reads where there are safetensors
_OTHER_WEIGHTS = (".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".onnx", ".pb", ".gguf")


class Diffusers(Exporter):
    """The denoiser of a pipeline from a folder, with the folder's other components."""

    name = "diffusers"
    stands_alone = True

    def reason(self, layer: Layer, scheme: Scheme) -> str | None:
        return sdnq_stored.reason(layer, scheme)

    def reason_model(self, model: nn.Module) -> str | None:
        from diffusers import ModelMixin

        if not isinstance(model, ModelMixin):
            return "it is for a pipeline's denoiser, without its text encoders; use safetensors"
        if getattr(model.config, "quantization_config", None) is not None:
            return "it is quantized already; start from its full-precision weights"
        if _origin(model) is None:
            return "it is not from the folder of a pipeline, whose other components are needed"
        return None

    def completed(
        self, model: nn.Module, layers: Sequence[Layer], schemes: Mapping[str, Scheme]
    ) -> dict[str, Scheme]:
        chosen = super().completed(model, layers, schemes)
        for layer in layers:
            kind = type(model.get_submodule(layer.name)).__name__
            if _quantized(chosen[layer.name]) and kind != _CLASSES[layer.kind]:
                raise ExportError(
                    f"{self.name} cannot hold {layer.name!r} as {chosen[layer.name]}",
                    f"SDNQ quantizes no {kind}: keep it",
                )
        return chosen

    def pack(self, layer: Layer, quantized: QuantizedLayer) -> Mapping[str, Tensor]:
        q = quantized.weight
        if q.scheme.format in CASTS:
            return {"weight": q.codes.reshape(sdnq_stored.own_shape(layer))}
        assert q.scale is not None
        codes = q.codes
        if q.scheme.bits in sdnq_stored.UNITS:
            unsigned = to_unsigned(codes, q.scheme.bits) if q.scheme.symmetric else codes
            weight = pack(unsigned.flatten(), q.scheme.bits)
        else:
            weight = codes.reshape(sdnq_stored.code_shape(layer, q.scheme))
        tensors = {"weight": weight, "scale": _spread(layer, q.scheme, q.scale)}
        if q.zero is not None:
            tensors["zero_point"] = _spread(layer, q.scheme, -(q.zero.float() * q.scale.float()))
        return tensors

    def open(self, folder: Path, model: nn.Module | None = None) -> nn.Module:
        pipeline, component = open_pipeline(folder)
        opened: nn.Module = getattr(pipeline, component)
        return opened.eval()

    def accompany(
        self, model: nn.Module, layers: Sequence[Layer], schemes: Mapping[str, Scheme], folder: Path
    ) -> Mapping[str, Any]:
        found = _origin(model)
        assert found is not None  # ``reason_model`` has looked
        origin, component = found
        _copy_components(origin, component, folder)
        config = json.loads((origin / component / "config.json").read_text())
        if any(map(_quantized, schemes.values())):
            config["quantization_config"] = quantization_config(model, schemes)
        (folder / component).mkdir()
        (folder / component / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        return {"component": component, "dtype": dtype}


def open_pipeline(folder: Path) -> tuple[Any, str]:
    """The pipeline of an exported folder as diffusers loads it, and its denoiser's component.

    In the dtype that was exported: float32 is what ``from_pretrained`` takes by itself. Raises
    ``ExportError`` where sdnq is missing.
    """
    # its compiled functions give the same numbers, minutes later
    os.environ.setdefault("SDNQ_USE_TORCH_COMPILE", "0")
    from diffusers import DiffusionPipeline

    needs_sdnq()
    manifest = json.loads((folder / MANIFEST).read_text())
    plain = manifest["dtype"] == "float32"
    options = {} if plain else {"dtype": getattr(torch, manifest["dtype"])}
    pipeline = DiffusionPipeline.from_pretrained(folder, **options)
    pipeline.set_progress_bar_config(disable=True)
    getattr(pipeline, manifest["component"]).requires_grad_(False)  # SDNQ's weights want none
    return pipeline, manifest["component"]


def needs_sdnq() -> None:
    """Raises ``ExportError`` where the package is missing that diffusers loads these folders by."""
    from diffusers.utils import is_sdnq_available

    if not is_sdnq_available():
        raise ExportError(
            "sdnq is missing, which diffusers loads quantized pipelines by",
            "pip install 'bitfront[diffusers]'",
        )


def dequantized(denoiser: nn.Module) -> None:
    """Give SDNQ's layers the weights that they stand for, in place."""
    from sdnq.dequantizer import dequantize_sdnq_model

    dequantize_sdnq_model(denoiser)


def quantization_config(model: nn.Module, schemes: Mapping[str, Scheme]) -> dict[str, Any]:
    """``quantization_config`` of the denoiser's config.json."""
    chosen = {name: scheme for name, scheme in schemes.items() if _quantized(scheme)}
    return {
        "quant_method": "sdnq",
        "weights_dtype": "int8",
        "group_size": -1,
        "quant_conv": True,
        "quant_embedding": True,
        "dequantize_fp32": True,
        "use_quantized_matmul": False,
        "use_quantized_matmul_conv": False,
        "add_skip_keys": False,
        "modules_to_not_convert": [
            f"{name}.weight"
            for name, module in model.named_modules()
            if type(module).__name__ in _REPLACED and name not in chosen
        ],
        "modules_quant_config": {
            f"{name}.weight": {
                "weights_dtype": _weights_dtype(scheme),
                "group_size": -1 if scheme.group is None else scheme.group,
            }
            for name, scheme in chosen.items()
        },
    }


def _weights_dtype(scheme: Scheme) -> str:
    if scheme.format == "fp8":
        return "float8_e4m3fn"
    return f"{'' if scheme.symmetric else 'u'}int{scheme.bits}"


def _quantized(scheme: Scheme) -> bool:
    return scheme != KEEP and scheme.format not in CASTS


def _spread(layer: Layer, scheme: Scheme, values: Tensor) -> Tensor:
    """Numbers of rows and groups in the shape of scales, for each place of a kernel."""
    shape = sdnq_stored.scale_shape(layer, scheme)
    ones = len(shape) - 2
    return values.reshape(*values.shape, *(1,) * ones).expand(shape).contiguous()


def _origin(model: nn.Module) -> tuple[Path, str] | None:
    """The folder of the pipeline that ``model`` is from, and its component there."""
    config: Any = model.config
    folder = Path(config.get("_name_or_path") or "")
    index = folder / PIPELINE
    if not index.is_file():
        return None
    parts = json.loads(index.read_text())
    kind = type(model).__name__
    for component in DENOISERS:
        if isinstance(parts.get(component), list) and parts[component][-1] == kind:
            return folder, component
    return None


def _copy_components(origin: Path, denoiser: str, folder: Path) -> None:
    """Copy a pipeline's index and its components but the denoiser, those files that are loaded."""
    index = json.loads((origin / PIPELINE).read_text())
    shutil.copyfile(origin / PIPELINE, folder / PIPELINE)
    for component in index:
        source = origin / component
        if component == denoiser or component.startswith("_") or not source.is_dir():
            continue
        for path in sorted(source.rglob("*")):
            if path.is_file() and _is_loaded(path):
                target = folder / path.relative_to(origin)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


def _is_loaded(path: Path) -> bool:
    """Whether it is no weights in another format or variant (``model.fp16.safetensors``)."""
    if path.name.endswith((".safetensors", ".safetensors.index.json")):
        return "." not in path.name.partition(".safetensors")[0]
    return path.suffix not in _OTHER_WEIGHTS
