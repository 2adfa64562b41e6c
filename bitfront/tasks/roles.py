"""Classes of layers by what they do in a network, for metrics and budgets of their own.

    self-attention   cross-attention   feed-forward   convolution   time embedding   text embedding
    norm-adjacent    other

The first rule that fits decides. Names and types are those of diffusers and transformers; in other
networks attention is known by its layers that read one tensor together (q/k/v), and a feed-forward
by linear layers that run one after the other, the first widening what the second narrows back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from torch import nn

from bitfront.types import Layer

from .base import Task
from .grouping import LINEAR

SELF, CROSS, FEED = "self-attention", "cross-attention", "feed-forward"
CONVOLUTION, TIME, TEXT = "convolution", "time embedding", "text embedding"
NORM, OTHER = "norm-adjacent", "other"

_TEXT = re.compile(
    r"text_enc|caption_proj|context_embed|encoder_hid|add_embedding|text_embed|txt_in"
)
_TIME = re.compile(r"(^|[._])(time|timestep|temb|t_embed|t_block|adaln)|modulation|_mod\b")
_CROSS = re.compile(r"(^|\.)(attn2|cross_?attn|cross_?attention|encoder_attn)(\.|$)")
_FEED = re.compile(r"(^|\.)(ff|ffn|mlp|proj_mlp|feed_forward|ff_context|net)(\.|$)")

_UNCONDITIONED = ("language", "vision")  # kinds of tasks without a time or a prompt


def classes(task: Task) -> dict[str, str]:
    """Layer -> its class, in order of execution."""
    together = {name for group in task.groups if len(group) == 3 for name in group}
    hourglass = set(_hourglasses(task))
    found = {}
    for layer in task.layers:
        of = None if task.kind in _UNCONDITIONED else _conditioning(layer.name)
        of = of or _class(task.model, layer, layer.name in together)
        found[layer.name] = FEED if of == OTHER and layer.name in hourglass else of
    return found


def _conditioning(name: str) -> str | None:
    """The embedding that a layer is part of: its innermost name that speaks of one decides."""
    for part in reversed(name.split(".")):
        if _TEXT.search(part):
            return TEXT
        if _TIME.search(part):
            return TIME
    return None


def _class(model: nn.Module, layer: Layer, together: bool) -> str:
    name, above = layer.name, list(_ancestors(model, layer.name))
    if layer.kind.startswith("conv"):
        return CONVOLUTION
    if any("Norm" in type(m).__name__ for m in above):
        return NORM  # what scales and shifts by time and class
    attention = next((m for m in above if "Attention" in type(m).__name__), None)
    if attention is not None or together:
        crossed = getattr(attention, "is_cross_attention", False) or _CROSS.search(name)
        return CROSS if crossed else SELF
    if _FEED.search(name) or any("FeedForward" in type(m).__name__ for m in above):
        return FEED
    return OTHER


def _hourglasses(task: Task) -> Iterator[str]:
    """Linear layers of the body that go from C to more (side by side, if gated) and back to C."""
    beside = {name: group for group in task.groups for name in group}
    for one, two in pairwise(task.layers):
        linear = all(x.kind in LINEAR and x.role == "body" for x in (one, two))
        if linear and one.rows == two.cols > one.cols == two.rows:
            yield from (*beside.get(one.name, (one.name,)), two.name)


def _ancestors(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """The modules around a layer, the nearest first."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield model.get_submodule(name)
