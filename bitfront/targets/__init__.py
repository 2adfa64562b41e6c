"""Where models are deployed. A new target is one file and one line here."""

from __future__ import annotations

from collections.abc import Sequence

from bitfront.errors import InvalidInput
from bitfront.registry import Registry

from .base import Aimed, Handover, Shape, Target, Timed
from .loaders import LlamaCpp, Transformers, Vllm
from .ort_cpu import OrtCpu

TARGETS: Registry[Target] = Registry("target")
TARGETS.register(OrtCpu.name)(OrtCpu())
TARGETS.register(LlamaCpp.name)(LlamaCpp())
TARGETS.register(Vllm.name)(Vllm())
TARGETS.register(Transformers.name)(Transformers())


def aimed(text: str) -> Aimed:
    """The target that ``text`` spells (``base``).

    Raises ``UnknownName`` for a target that there is not, and ``InvalidInput`` for a shape that is
    none, or of a target that is not timed here.
    """
    name, colon, shape = text.strip().partition(":")
    target = TARGETS[name]
    if not colon:
        return Aimed(target, None)
    if not isinstance(target, Timed):
        raise InvalidInput(
            f"target {text!r}: {name} is not timed here",
            f"write {name}, and give what you timed with --costs",
        )
    return Aimed(target, Shape.parse(shape))


def all_aimed(texts: Sequence[str]) -> tuple[Aimed, ...]:
    """Targets of one search, which load the same files. Raises as ``aimed``."""
    found = tuple(dict.fromkeys(aimed(text) for text in texts))
    for one in found[1:]:
        if one.target.container != found[0].target.container:
            raise InvalidInput(
                f"targets {found[0]} and {one} load different files", "search for each by itself"
            )
    return found


__all__ = ["TARGETS", "Aimed", "Handover", "Shape", "Target", "Timed", "aimed", "all_aimed"]
