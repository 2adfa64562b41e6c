"""Classes of layers by what they do in a network, for metrics and budgets of their own.

    self-attention   cross-attention   feed-forward   convolution   time embedding   text embedding
    norm-adjacent    other

The first rule that fits decides. Names and types are those of diffusers and transformers; in other
networks attention is known by its layers that read one tensor together (q/k/v).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from .base import Task

SELF, CROSS, FEED = "self-attention", "cross-attention", "feed-forward"
CONVOLUTION, TIME, TEXT = "convolution", "time embedding", "text embedding"
NORM, OTHER = "norm-adjacent", "other"

_TEXT = re.compile(
    r"text_enc|caption_proj|context_embed|encoder_hid|add_embedding|text_embed|txt_in"
)
_TIME = re.compile(r"(^|[._])(time|timestep|temb|t_embed|t_block|adaln)|modulation|_mod\b")
_CROSS = re.compile(r"(^|\.)(attn2|cross_?attn|cross_?attention|encoder_attn)(\.|$)")
_FEED = re.compile(r"(^|\.)(ff|ffn|mlp|feed_forward|ff_context|net)(\.|$)")


def classes(task: Task) -> dict[str, str]:
    """Layer -> its class, in order of execution."""
    together = {name for group in task.groups if len(group) == 3 for name in group}
    return {
        layer.name: _class(task.model, layer.name, layer.kind, layer.name in together)
        for layer in task.layers
    }


def _class(model: nn.Module, name: str, kind: str, together: bool) -> str:
    above = list(_ancestors(model, name))
    if _TEXT.search(name):
        return TEXT
    if _TIME.search(name):
        return TIME
    if any("Norm" in type(m).__name__ for m in above):
        return NORM  # what scales and shifts by time and class
    if kind.startswith("conv"):
        return CONVOLUTION
    attention = next((m for m in above if "Attention" in type(m).__name__), None)
    if attention is not None or together:
        crossed = getattr(attention, "is_cross_attention", False) or _CROSS.search(name)
        return CROSS if crossed else SELF
    if _FEED.search(name) or any("FeedForward" in type(m).__name__ for m in above):
        return FEED
    return OTHER


def _ancestors(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """The modules around a layer, the nearest first."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield model.get_submodule(name)
