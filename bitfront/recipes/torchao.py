"""torchao's ``FqnToConfig``, as the JSON that its ``config_from_dict`` reads.

    quantize_(model, config_from_dict(json.load(file)), filter_fn=None)
    AutoModelForCausalLM.from_pretrained(..., quantization_config=TorchAoConfig(config))

Read from the source of 0.18.0. A key is a name, or ``re:PATTERN``, matched with ``re.fullmatch``;
names come first, then the first pattern that matches. A layer under ``null`` is left alone, like
one under no key. Widths below 8 bits are stored as int8. A convolution would get scales for each
position of its kernel, which no scheme here means, and a Conv1D of transformers has its weight the
other way round.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from bitfront.types import Layer, Scheme

from .base import About, Pairs, Recipe, grouped, patterns, quoted

_NVFP4_UNIT = 16


class TorchAo(Recipe):
    """Weight-only integers and floats of linear layers and embeddings; dynamic int8."""

    name = "torchao"
    suffix = ".json"
    versions = "torchao 0.18.0"

    def refusal(self, layer: Layer, scheme: Scheme) -> str | None:
        if layer.kind not in ("linear", "embedding"):
            return f"it quantizes Linear layers and embeddings by rows, not {layer.kind} ones"
        if scheme.quantizer != "rtn":
            return "it rounds to nearest; use schemes without +gptq"
        if scheme.format == "mxfp4":
            return "it has mxfp4 for weights with activations only"
        if scheme.format == "nvfp4":
            if layer.kind != "linear":
                return f"its nvfp4 is for Linear layers, not {layer.kind} ones"
            if layer.rows % _NVFP4_UNIT or layer.cols % _NVFP4_UNIT:
                return (
                    f"its nvfp4 wants multiples of {_NVFP4_UNIT}, not {layer.rows} × {layer.cols}"
                )
        if scheme.activation is not None and not _w8a8(scheme):
            return (
                "of symmetric activations it has dynamic 8 bits with symmetric 8-bit weights a "
                "row, w8a8"
            )
        return None

    def render(self, quantized: Pairs, kept: Sequence[Layer], about: About) -> str:
        rules = [(key, "null") for key in _keys(layer.name for layer in kept)]
        for scheme, names in grouped(quantized).items():
            rules += [(key, quoted(_config(scheme))) for key in _keys(names)]
        lines = [f"   {quoted(key)}: {config}" for key, config in rules]
        return (
            '{\n "_type": "FqnToConfig",\n "_version": 1,\n'
            + f' "bitfront": {quoted(about)},\n'
            + ' "_data": {\n  "fqn_to_config": {\n'
            + ",\n".join(lines)
            + "\n  }\n }\n}\n"
        )


def _keys(names: Iterable[str]) -> list[str]:
    """A name where one is alone, else a pattern; a name that would mean something else, too."""
    return [
        f"re:{pattern}" if len(found) > 1 or re.match("re:|_default$", found[0]) else found[0]
        for pattern, found in patterns(names).items()
    ]


def _config(scheme: Scheme) -> dict[str, Any]:
    """torchao's words for a scheme."""
    if scheme.format == "fp8":
        return _made("Float8WeightOnlyConfig", 2, granularity=_made("PerRow", 1, dim=-1))
    if scheme.format == "nvfp4":
        return _made("NVFP4WeightOnlyConfig", 1, use_dynamic_per_tensor_scale=True)
    if scheme.activation is not None:
        return _made(
            "Int8DynamicActivationInt8WeightConfig", 2,
            act_mapping_type=_member("MappingType", "SYMMETRIC"),
            granularity=_made("PerRow", 1, dim=-1),
        )  # fmt: skip
    whole = scheme.group is None
    return _made(
        "IntxWeightOnlyConfig", 2,
        weight_dtype=_member("torch.dtype", f"int{scheme.bits}"),
        granularity=_made("PerAxis", 1, axis=0)
        if whole
        else _made("PerGroup", 1, group_size=scheme.group),
        mapping_type=_member("MappingType", "SYMMETRIC" if scheme.symmetric else "ASYMMETRIC"),
    )  # fmt: skip


def _w8a8(scheme: Scheme) -> bool:
    return str(scheme) == "w8a8"


def _made(kind: str, version: int, **fields: Any) -> dict[str, Any]:
    return {"_type": kind, "_version": version, "_data": fields}


def _member(kind: str, name: str) -> dict[str, Any]:
    return {"_type": kind, "_data": name}
