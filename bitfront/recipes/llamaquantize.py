"""llama-quantize's types of tensors: ``--tensor-type-file recipe.txt IN.gguf OUT.gguf Q8_0``.

    ^TENSOR$=TYPE   one word for each layer, and one that matches no tensor: where it is from

Read from the source of llama.cpp as llama-cpp-python 0.3.36 has it. Words are parted by white
space, and at their first ``=``; the first pattern that is found in a tensor's name wins. Patterns
count only where the type for the whole file is a quantized one; a layer that is kept has a word
too, which spares it. A type that does not divide a row would become another one: such pairs are
refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from urllib.parse import quote

from bitfront.errors import ExportError
from bitfront.quant.ggml_types import type_name
from bitfront.quant.gguf_models import reason, tensor_name
from bitfront.quant.stored import KEEP
from bitfront.types import Layer, Scheme

from .base import About, Pairs, Recipe, untouched


class LlamaQuantize(Recipe):
    """GGUF's block types, of the layers of the models that can be exported to it."""

    name = "llama-quantize"
    suffix = ".txt"
    versions = "llama.cpp of llama-cpp-python 0.3.36"

    def reason(self, layer: Layer, scheme: Scheme) -> str | None:
        return None if untouched(layer, scheme) else self.refusal(layer, scheme)

    def refusal(self, layer: Layer, scheme: Scheme) -> str | None:
        return _nowhere(layer) or reason(layer, scheme)

    def render(self, quantized: Pairs, kept: Sequence[Layer], about: About) -> str:
        origin = quote(json.dumps(about, allow_nan=False), safe="")
        words = [f"^bitfront:{origin}$=f32"]
        spared = [(layer, KEEP) for layer in kept if _nowhere(layer) is None]
        for layer, scheme in [*quantized, *spared]:
            if layer.shares is None:
                name = re.escape(tensor_name(f"{layer.name}.weight"))
                words.append(f"^{name}$={type_name(layer, scheme)}")
        return "\n".join(words) + "\n"


def _nowhere(layer: Layer) -> str | None:
    """Why no tensor of llama.cpp's is the layer's; None if one is."""
    try:
        tensor_name(f"{layer.name}.weight")
    except ExportError as error:
        return error.what
    return None if type_name(layer, KEEP) else f"GGUF's models have no {layer.dtype}"
