"""GPTQModel's ``QuantizeConfig``, as JSON: ``QuantizeConfig(**json.load(file))``.

    base        bits, group_size, sym of the commonest scheme
    dynamic     "+:^NAME$" -> what a layer has; "-:^NAME$" -> {} for one that is kept
    meta        where it is from; GPTQModel keeps it in quantize_config.json

Read from the source of 7.7.0. A rule is matched from a module's name's beginning (PCRE ``match``),
so each ends in ``$``. Rules with ``-:`` are moved before all others, whatever their order, and are
also asked about names inside a block (``self_attn.q_proj``): a rule that keeps "the rest" would
keep everything, so each kept layer is named. With 5, 6 or 7 bits GPTQModel chooses its format
``gptq_p`` for the checkpoint, whose kernels want multiples of 32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from bitfront.types import Layer, Scheme

from .base import About, Pairs, Recipe, grouped, patterns, quoted

_KINDS = ("linear", "hf_conv1d")
_GROUPS = (16, 32, 64, 128, 256, 512, 1024)
_PLANAR, _PLANAR_UNIT = (5, 6, 7), 32


class GptqModel(Recipe):
    """Weight-only integers of a language model's linear layers, rounded by GPTQ."""

    name = "gptqmodel"
    suffix = ".json"
    versions = "gptqmodel 7.7.0"

    def refusal(self, layer: Layer, scheme: Scheme) -> str | None:
        if layer.kind not in _KINDS:
            return f"it quantizes Linear layers of a language model's blocks, not {layer.kind} ones"
        if scheme.format != "int":
            return "GPTQ is for integers"
        if scheme.activation is not None:
            return "GPTQ quantizes weights only"
        if scheme.group is not None and scheme.group not in _GROUPS:
            return f"its group sizes are {', '.join(map(str, _GROUPS))} or a whole row"
        uneven = layer.rows % _PLANAR_UNIT or layer.cols % _PLANAR_UNIT
        if scheme.bits in _PLANAR and uneven:
            return (
                f"with {scheme.bits} bits it wants inputs and outputs in multiples of "
                f"{_PLANAR_UNIT}, not {layer.rows} × {layer.cols}"
            )
        return None

    def render(self, quantized: Pairs, kept: Sequence[Layer], about: About) -> str:
        (common, _), *_ = Counter(scheme for _, scheme in quantized).most_common(1)
        base = {"method": "gptq", **_weights(common), "lm_head": _has_head(quantized)}
        named = [layer.name for layer in kept if layer.kind in _KINDS]
        rules: list[tuple[str, dict[str, Any]]] = [(f"-:^{p}$", {}) for p in patterns(named)]
        for scheme, names in grouped(quantized).items():
            rules += [(f"+:^{p}$", _fields(scheme)) for p in patterns(names)]
        lines = [f"  {quoted(rule)}: {quoted(fields)}" for rule, fields in rules]
        return (
            "{\n"
            + "".join(f" {quoted(key)}: {quoted(value)},\n" for key, value in base.items())
            + ' "dynamic": {\n'
            + ",\n".join(lines)
            + f'\n }},\n "meta": {quoted({"bitfront": about})}\n}}\n'
        )


def _fields(scheme: Scheme) -> dict[str, Any]:
    """GPTQModel's words for a scheme; the order of columns is its own where none is named."""
    if scheme.quantizer == "gptq":  # as they are
        return {**_weights(scheme), "desc_act": False, "act_group_aware": False}
    if scheme.quantizer == "gptq:act":  # ordered, in groups of the original order
        order = {"desc_act": True, "act_group_aware": False, "static_groups": True}
        return {**_weights(scheme), **order}
    return _weights(scheme)


def _weights(scheme: Scheme) -> dict[str, Any]:
    group = -1 if scheme.group is None else scheme.group
    return {"bits": scheme.bits, "group_size": group, "sym": scheme.symmetric}


def _has_head(quantized: Pairs) -> bool:
    return any(layer.role == "head" for layer, _ in quantized)
