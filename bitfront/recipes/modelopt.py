"""ModelOpt's recipe file: ``mtq.quantize(model, load_recipe(file).quantize, forward_loop)``.

    quantizer_name                what ``fnmatch`` matches with the names of quantizers
    {num_bits, axis: 0}           one scale for a row
    {num_bits, block_sizes}       one scale for a block of the last dimension

Read from the source of 0.47.0. The first entry turns every quantizer off, later ones replace what
earlier ones say, so that kept layers need none. ``mse`` looks for scales of least squared error, as
Bitfront does. Axis 0 of a transposed convolution's weight is its inputs, so there is none here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bitfront.types import Layer, Scheme

from .base import About, Pairs, Recipe, comment, grouped, yaml_quoted

_BY_ROWS = ("linear", "hf_conv1d", "embedding")
_KINDS = (*_BY_ROWS, "conv1d", "conv2d")
_FLOATS = {
    "fp8": "{num_bits: [4, 3], axis: 0}",
    "nvfp4": "{num_bits: [2, 1], block_sizes: {-1: 16, type: static, scale_bits: [4, 3]}}",
    "mxfp4": "{num_bits: [2, 1], block_sizes: {-1: 32, type: dynamic, scale_bits: [8, 0]}}",
}


class ModelOpt(Recipe):
    """Symmetric integers of any width and floats, of linear layers, embeddings, convolutions."""

    name = "modelopt"
    suffix = ".yaml"
    versions = "nvidia-modelopt 0.47.0"

    def refusal(self, layer: Layer, scheme: Scheme) -> str | None:
        if layer.kind not in _KINDS:
            return f"its scales are not of the rows of {layer.kind} layers"
        if not scheme.symmetric:
            return "its integers have no zero points; use symmetric schemes"
        if scheme.quantizer != "rtn":
            return "its gptq is for all layers or none; use schemes without +gptq"
        if layer.kind not in _BY_ROWS:
            if scheme.group is not None:
                return "its blocks are of the last dimension, which is a kernel's width here"
            if scheme.activation is not None and not scheme.activation.static:
                return "its dynamic scales are of the last dimension, not of a whole sample"
        return None

    def render(self, quantized: Pairs, kept: Sequence[Layer], about: About) -> str:
        entries = ['{quantizer_name: "*", enable: false}']
        for scheme, names in grouped(quantized).items():
            for part, words in _parts(scheme).items():
                anchor = f"{scheme}-{part}"
                for i, name in enumerate(names):
                    cfg = f"*{anchor}" if i else f"&{anchor} {words}"
                    quantizer = yaml_quoted(f"{_literal(name)}.{part}_quantizer".removeprefix("."))
                    entries.append(f"{{quantizer_name: {quantizer}, cfg: {cfg}}}")
        return (
            comment(about)
            + "metadata:\n  recipe_type: ptq\n"
            + "quantize:\n  algorithm: {method: mse}\n  quant_cfg:\n"
            + "".join(f"    - {entry}\n" for entry in entries)
        )


def _literal(name: str) -> str:
    """A glob that matches ``name`` alone."""
    return re.sub(r"([*?[])", r"[\1]", name)


def _parts(scheme: Scheme) -> dict[str, str]:
    """Which quantizer -> its attributes."""
    if scheme.format != "int":
        return {"weight": _FLOATS[scheme.format]}
    scales = "axis: 0" if scheme.group is None else f"block_sizes: {{-1: {scheme.group}}}"
    parts = {"weight": f"{{num_bits: {scheme.bits}, {scales}}}"}
    if scheme.activation is not None:
        bits = f"num_bits: {scheme.activation.bits}"
        token = "type: dynamic, block_sizes: {-1: null}"
        parts["input"] = f"{{{bits}, {'axis: null' if scheme.activation.static else token}}}"
    return parts
