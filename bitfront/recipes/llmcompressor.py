"""llm-compressor's YAML recipe: ``oneshot(model=..., recipe="recipe.yaml", ...)``.

    QuantizationModifier    schemes that round to nearest
    GPTQModifier            schemes with +gptq
    GPTQModifier            schemes with +gptq:act (``actorder: static``; one for all of its groups)

Each has a config group for a scheme, whose targets are layers. Read from the sources of
llm-compressor 0.14.0.1 and compressed-tensors 0.19.0 and 0.20.0. A target without ``re:`` is a
module's name, or the name of a class that it is of (``Linear``); class names have no dots, so a
layer's name without one is written as a pattern, which ``re.match`` sees from its beginning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from bitfront.types import Layer, Scheme

from .base import About, Pairs, Recipe, comment, grouped, yaml_quoted

_FLOATS = {
    "fp8": {"num_bits": 8, "strategy": "channel"},
    "nvfp4": {
        "num_bits": 4, "strategy": "tensor_group", "group_size": 16,
        "scale_dtype": "torch.float8_e4m3fn", "zp_dtype": "torch.float8_e4m3fn",
    },
    "mxfp4": {
        "num_bits": 4, "strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8",
        "zp_dtype": "torch.uint8",
    },
}  # fmt: skip
# quantizer -> a group of modifiers, in which each has a kind of its own, and the modifier
_MODIFIERS = {
    "rtn": "  default_modifiers:\n    QuantizationModifier:\n",
    "gptq": "  gptq_modifiers:\n    GPTQModifier:\n      actorder: null\n",
    "gptq:act": "  ordered_gptq_modifiers:\n    GPTQModifier:\n      actorder: static\n",
}
_OBSERVER = "memoryless_mse"  # scales of least squared error, as Bitfront's are


class LlmCompressor(Recipe):
    """What compressed-tensors has for Linear layers: integers and floats, with activations."""

    name = "llm-compressor"
    suffix = ".yaml"
    versions = "llmcompressor 0.14.0.1, compressed-tensors 0.19.0 and 0.20.0"

    def refusal(self, layer: Layer, scheme: Scheme) -> str | None:
        if layer.kind != "linear":
            return f"its checkpoints are loaded with quantized Linear layers, not {layer.kind} ones"
        return None

    def render(self, quantized: Pairs, kept: Sequence[Layer], about: About) -> str:
        groups = grouped(quantized)
        ignored = [_target(layer.name) for layer in kept if layer.kind == "linear"]
        text = comment(about) + "default_stage:\n"
        for quantizer, beginning in _MODIFIERS.items():
            found = [_group(s, names) for s, names in groups.items() if s.quantizer == quantizer]
            if found:
                text += beginning + "      config_groups:\n" + "".join(found)
                text += "      ignore:\n" + _items(ignored, 8) if ignored else ""
        return text


def _group(scheme: Scheme, names: Sequence[str]) -> str:
    """A config group."""
    text = f"        {yaml_quoted(str(scheme))}:\n          targets:\n"
    text += _items([_target(name) for name in names], 12)
    return text + "".join(
        f"          {part}: {yaml_quoted(words)}\n" for part, words in _parts(scheme).items()
    )


def _items(values: Sequence[str], indent: int) -> str:
    return "".join(f"{' ' * indent}- {yaml_quoted(value)}\n" for value in values)


def _target(name: str) -> str:
    return name if "." in name and not name.startswith("re:") else f"re:^{re.escape(name)}$"


def _parts(scheme: Scheme) -> dict[str, dict[str, Any]]:
    """A config group's ``weights`` and ``input_activations``."""
    parts = {"weights": _weights(scheme)}
    if scheme.activation is not None:
        parts["input_activations"] = {
            "num_bits": scheme.activation.bits, "type": "int", "symmetric": True,
            "strategy": "tensor" if scheme.activation.static else "token",
            "dynamic": not scheme.activation.static,
        }  # fmt: skip
    return parts


def _weights(scheme: Scheme) -> dict[str, Any]:
    if scheme.format != "int":
        return {"type": "float", "symmetric": True, "dynamic": False, **_FLOATS[scheme.format]}
    words: dict[str, Any] = {
        "num_bits": scheme.bits, "type": "int", "symmetric": scheme.symmetric, "dynamic": False,
        "observer": _OBSERVER,
    }  # fmt: skip
    if scheme.group is None:
        return {**words, "strategy": "channel"}
    return {**words, "strategy": "group", "group_size": scheme.group}
