"""compressed-tensors checkpoints: what plain ``AutoModelForCausalLM.from_pretrained`` loads.

    suffix          weight-only integers, and with activations      w8a8       fp8       bf16, fp16
    weight_packed   int32, dense little-endian words (packing.py)
    weight_scale    (rows, groups)                                  same       same
    weight_shape    int64, (2,)
    weight                                                          int8       E4M3      as it is
    input_scale     float32, (1,), static activations only          same       same

    suffix                nvfp4                          mxfp4           mxfp8
    weight_packed         uint8, two codes a byte        same
    weight                                                               E4M3
    weight_scale          (rows, groups), E4M3           uint8           uint8
    weight_global_scale   float32, (1,)
    input_global_scale    float32, (1,), nvfp4a4 only

Layers of one scheme form a config group with their names as targets; every other Linear is on the
ignore list. Verified with compressed-tensors 0.20 and transformers 5.23: the loader casts scales to
the model's dtype and multiplies there, which is ``formats.dequantize`` to the bit; nvfp4, mxfp4 and
mxfp8 become bfloat16 whatever the model is, so only bfloat16 models have them. Widths of 3, 5,
6 and 7 bits are packed densely from 0.19 on and padded up to 0.17, so old readers misread them.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bitfront.types import Activation, Layer, Scheme

from .export_base import KEEP, Exporter
from .ggml_types import is_block
from .packing import pack, to_unsigned
from .stored import CASTS, compressed_format, compressed_input
from .suitability import takes
from .weights import QuantizedLayer

BLOCK_FLOATS = {"nvfp4": "torch.float8_e4m3fn", "mxfp4": "torch.uint8", "mxfp8": "torch.uint8"}
_FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # as vLLM merges them
_VLLM_FLOATS = {
    "fp8a8": "inputs stay as they are on GPUs without FP8 kernels (before capability 8.9)",
    "fp8a8s": "inputs stay as they are on GPUs without FP8 kernels (before capability 8.9)",
    "nvfp4a4": "inputs stay as they are on GPUs without FP4 kernels (before capability 10.0)",
    "mxfp4": "vLLM rounds inputs too where GPUs have FP4 kernels (capability 10.0)",
    "mxfp4a4": "inputs stay as they are on GPUs without FP4 kernels (before capability 10.0)",
    "mxfp8": "vLLM rounds inputs too, as for mxfp8a8",
}
_TOKENIZER_FILES = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "*.model", "*.tiktoken", "chat_template*", "LICENSE*",
)  # fmt: skip


class CompressedTensors(Exporter):
    """Causal language models of transformers; Linear layers, and 16-bit casts of embeddings too."""

    name = "compressed-tensors"
    stands_alone = True

    def reason(self, layer: Layer, scheme: Scheme) -> str | None:
        if scheme == KEEP:
            return None
        if scheme.format in CASTS:
            known = ("linear", "hf_conv1d", "embedding")
            return None if layer.kind in known else f"a {layer.kind} can only be kept"
        if layer.kind != "linear":
            return f"transformers' loader decompresses Linear layers only, not a {layer.kind}"
        if layer.shares is not None:
            return f"its weight is tied to {layer.shares!r}, which must stay in one piece"
        if is_block(scheme):
            return f"{scheme} is a block type of GGUF; use the containers gguf or safetensors"
        if scheme.format in BLOCK_FLOATS and layer.dtype != "bfloat16":
            return f"its loader gives {scheme.format} weights in bfloat16, and it is {layer.dtype}"
        if scheme.activation is not None and scheme.activation.bos:
            return "compressed-tensors quantizes every token alike; use schemes without b"
        if scheme.format == "int" and scheme.activation and scheme.activation.group is not None:
            return "its loader has one step for a token; use activations without g, or safetensors"
        if scheme.activation is not None and not scheme.activation.symmetric:
            return "zero points of activations are not written; use a8s, or safetensors"
        if scheme.activation is not None and scheme.activation.output:
            return "it rounds no outputs; use activations without o, or safetensors"
        if scheme.cache is not None:
            return "this container's files say nothing of a cache; use safetensors"
        if not scheme.symmetric:
            return (
                "compressed-tensors 0.19 and 0.20 fail to load zero points; use symmetric schemes"
            )
        return takes(layer, scheme)

    def reason_model(self, model: nn.Module) -> str | None:
        from transformers import PreTrainedModel
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        if not isinstance(model, PreTrainedModel):
            return "it is for causal language models of transformers; use safetensors"
        known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model.config.model_type, ())
        if type(model).__name__ not in ((known,) if isinstance(known, str) else known):
            return "AutoModelForCausalLM would not load its class; use safetensors"
        if getattr(model.config, "quantization_config", None) is not None:
            return "it is quantized already; start from its full-precision weights"
        return None

    def pack(self, layer: Layer, quantized: QuantizedLayer) -> Mapping[str, Tensor]:
        q = quantized.weight
        if q.scheme.format in CASTS:
            return {"weight": q.codes.T if layer.kind == "hf_conv1d" else q.codes}
        assert q.scale is not None
        tensors = {"weight_scale": q.scale}
        if compressed_format(q.scheme) == "pack-quantized":
            words = pack(to_unsigned(q.codes, q.scheme.bits), q.scheme.bits, unit=4)
            tensors["weight_packed"] = words.view(torch.int32)
            tensors["weight_shape"] = torch.tensor(q.shape)
        elif q.codes.dtype == torch.uint8:
            tensors["weight_packed"] = pack(q.codes, q.scheme.bits)
        else:
            tensors["weight"] = q.codes
        if q.tensor_scale is not None:
            tensors["weight_global_scale"] = q.tensor_scale.reshape(1)
        if quantized.input_scale is not None:
            tensors[compressed_input(q.scheme)] = quantized.input_scale.reshape(1)
        return tensors

    def open(self, folder: Path, model: nn.Module | None = None) -> nn.Module:
        from transformers import AutoModelForCausalLM

        opened: nn.Module = AutoModelForCausalLM.from_pretrained(folder)
        return opened.eval()

    def accompany(
        self, model: nn.Module, layers: Sequence[Layer], schemes: Mapping[str, Scheme], folder: Path
    ) -> Mapping[str, Any]:
        from transformers import PreTrainedModel

        assert isinstance(model, PreTrainedModel)
        config = copy.deepcopy(model.config)
        config.dtype = model.dtype
        config.architectures = [type(model).__name__]
        content = json.loads(config.to_json_string())
        quantization = quantization_config(model, schemes)
        if quantization is not None:
            content["quantization_config"] = quantization
        (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n")
        if model.generation_config is not None:
            model.generation_config.save_pretrained(folder)
        copied = copy_tokenizer(model.name_or_path or "", folder)
        return {"tokenizer": copied, "vllm": vllm_notes(schemes)}


def quantization_config(model: nn.Module, schemes: Mapping[str, Scheme]) -> dict[str, Any] | None:
    """``quantization_config`` of config.json; None when no layer needs one."""
    targets: dict[Scheme, list[str]] = {}
    for name, scheme in schemes.items():
        if scheme != KEEP and scheme.format not in CASTS:
            targets.setdefault(_grid(scheme), []).append(name)
    if not targets:
        return None
    quantized = {name for names in targets.values() for name in names}
    formats = {compressed_format(scheme) for scheme in targets}
    return {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": {
            f"group_{i}": _config_group(scheme, names)
            for i, (scheme, names) in enumerate(targets.items())
        },
        "ignore": [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and name not in quantized
        ],
    }


def vllm_notes(schemes: Mapping[str, Scheme]) -> list[str]:
    """What vLLM will not take as it is, or only slowly; from reading its source (0.33)."""
    notes = []
    for siblings in _FUSED:
        parts: dict[str, dict[str, Scheme]] = {}
        for name, scheme in schemes.items():
            parent, _, last = name.rpartition(".")
            if last in siblings:
                parts.setdefault(parent, {})[last] = _grid(scheme)
        for parent, found in parts.items():
            if len(set(found.values())) > 1:
                spelled = ", ".join(f"{last} {scheme}" for last, scheme in found.items())
                notes.append(f"{parent}: vLLM fuses these and refuses them unlike: {spelled}")
            elif len(found) > 1 and {scheme.format for scheme in found.values()} == {"nvfp4"}:
                notes.append(
                    f"{parent}: vLLM reads {', '.join(found)} with the largest of their global"
                    " scales, and each has its own"
                )
    for scheme in dict.fromkeys(_grid(scheme) for scheme in schemes.values()):
        note = _vllm_note(scheme)
        if note is not None:
            notes.append(f"{scheme}: {note}")
    return notes


def _vllm_note(scheme: Scheme) -> str | None:
    if scheme.format != "int":
        return _VLLM_FLOATS.get(str(scheme))
    if scheme.activation is None:
        return (
            None
            if scheme.bits in (4, 8)
            else "weight-only without fast kernels (4 and 8 bits have)"
        )
    if scheme.activation.bits != 8 or scheme.bits not in (4, 8):
        return "vLLM has no kernel for these activations"
    return None


def _grid(scheme: Scheme) -> Scheme:
    """The scheme without its quantizer, which leaves no trace in a checkpoint."""
    return Scheme.parse(str(scheme).partition("+")[0])


def _config_group(scheme: Scheme, names: Sequence[str]) -> dict[str, Any]:
    inputs = None
    if scheme.activation is not None:
        inputs = activation_args(scheme.activation)
    return {
        "targets": list(names),
        "format": compressed_format(scheme),
        "weights": {
            **_numbers(scheme.format, scheme.bits),
            "strategy": _grouped(scheme.format) if scheme.group else "channel",
            "group_size": scheme.group,
            "dynamic": False,
        },
        "input_activations": inputs,
    }


def activation_args(activation: Activation) -> dict[str, Any]:
    """compressed-tensors' ``QuantizationArgs`` of a layer's input."""
    words = _numbers(activation.format, activation.bits)
    if activation.group is None:
        strategy = "tensor" if activation.static else "token"
        return {**words, "strategy": strategy, "dynamic": not activation.static}
    return {
        **words,
        "strategy": _grouped(activation.format),
        "group_size": activation.group,
        "dynamic": "local" if activation.static else True,
    }


def _numbers(format: str, bits: int) -> dict[str, Any]:
    words = {"num_bits": bits, "type": "int" if format == "int" else "float", "symmetric": True}
    scales = BLOCK_FLOATS.get(format)
    return words if scales is None else {**words, "scale_dtype": scales, "zp_dtype": scales}


def _grouped(format: str) -> str:
    """The strategy of weights or inputs in groups; those of one have a scale of all groups too."""
    return "tensor_group" if format == "nvfp4" else "group"


def copy_tokenizer(source: str, folder: Path) -> list[str]:
    """Copy tokenizer files from a local folder or from the hub's cache; their names."""
    origin = local_folder(source)
    if origin is None:
        return []
    files = {path for pattern in _TOKENIZER_FILES for path in origin.glob(pattern)}
    for path in files:
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    return sorted(path.name for path in files if path.is_file())


def local_folder(source: str) -> Path | None:
    """A model's files, in a folder or in the hub's cache; None where there are none."""
    if not source:
        return None  # made from a configuration: there is no tokenizer
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(source, "config.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None
