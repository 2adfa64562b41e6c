"""Which layers can take which schemes, and why not. It is imported without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bitfront.scheme import BLOCK_GROUPS
from bitfront.types import Layer, Scheme

from .ggml_types import SMALL_BLOCKS, is_block

TOKEN_KINDS = ("linear", "hf_conv1d")  # of layers whose inputs are (N, T, K)
_TWO_DIMENSIONAL = (*TOKEN_KINDS, "embedding")
_BLOCK_FLOATS = ("fp8", "mxfp8", "mxfp4", "nvfp4")


Reason = Callable[[Layer, Scheme], str | None]


def takes(layer: Layer, scheme: Scheme) -> str | None:
    """Why ``layer`` cannot take ``scheme``, or None if it can."""
    if is_block(scheme) and layer.cols % (scheme.group or 1):
        return _uneven(layer, scheme)
    if scheme.group is not None and layer.cols % scheme.group:
        return f"group size {scheme.group} does not divide {layer.cols} inputs"
    if scheme.format in _BLOCK_FLOATS and layer.kind not in _TWO_DIMENSIONAL:
        return f"{scheme.format} is for two-dimensional weights, not those of a {layer.kind}"
    if layer.kind == "embedding" and scheme.activation is not None:
        return "an embedding's input is indices, which are not quantized"
    activation = scheme.activation
    if activation is not None and layer.kind not in TOKEN_KINDS:
        if activation.bos:
            return f"b leaves the first token as it is, and the input of a {layer.kind} has none"
        if activation.group is not None:
            return f"a{activation.bits}g is for tokens in groups, not the input of a {layer.kind}"
    if activation is not None and activation.output and layer.shares is not None:
        return (
            f"its weight is tied to {layer.shares!r}, and o rounds the output of a layer of its own"
        )
    if activation is not None and activation.bos and layer.flat:
        return "b leaves the first token as it is, and its inputs are single vectors"
    if scheme.cache is not None and layer.attention not in ("query", "key", "value"):
        if layer.attention == "fused":
            return "kv is for keys and values, and its output holds queries too"
        return "kv is for the projections of attention that a language model caches"
    if layer.kind == "embedding":
        from .quantizers import QUANTIZERS

        if QUANTIZERS[scheme.quantizer].uses_inputs:
            return f"{scheme.quantizer} needs input statistics, and an embedding has none"
    return None


def _uneven(layer: Layer, scheme: Scheme) -> str:
    what = f"blocks of {scheme.group} do not divide {layer.cols} inputs"
    smaller = [name for name in SMALL_BLOCKS if layer.cols % BLOCK_GROUPS[name] == 0]
    return f"{what}; use {', '.join(smaller) or 'fp16 or bf16'}"


def barred(
    layer: Layer, scheme: Scheme, layers: Mapping[str, Layer], reason: Reason = takes
) -> str | None:
    """Why ``layer`` cannot take ``scheme``, or why the layer whose weight it uses cannot.

    layers: by name. reason: what is asked of each of the two.
    """
    return reason(layer, scheme) or reason(layers[layer.shares or layer.name], scheme)
