"""The contract of recipes: an allocation in the language of a tool that quantizes by itself.

A recipe says which layer becomes what; the tool has the model, the data and the algorithm. So a
scheme is mapped to the same codes, groups and activations, and its scales are the tool's own. A
scheme that names no quantizer leaves the rounding to the tool too; one that names one is mapped to
it or refused.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from bitfront.errors import ExportError
from bitfront.quant.ggml_types import is_block
from bitfront.quant.stored import KEEP
from bitfront.quant.suitability import takes
from bitfront.types import Layer, Scheme

Pairs = Sequence[tuple[Layer, Scheme]]
About = Mapping[str, Any]  # where a recipe is from: JSON's types

CASTS = {"bf16": "bfloat16", "fp16": "float16"}
_NAMED = 3  # layers that a refusal names, of those with one scheme and reason


class Recipe(ABC):
    """Writes allocations for one tool. Stateless, without torch and without the tool.

    A new tool is one file with a subclass, and one line in ``bitfront/recipes/__init__.py``.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]  # of the file, with its dot
    versions: ClassVar[str]  # of the tool, whose source was read

    def reason(self, layer: Layer, scheme: Scheme) -> str | None:
        """Why the tool cannot make ``scheme`` of ``layer``; None if it can, or leaves it alone."""
        if untouched(layer, scheme):
            return None
        if is_block(scheme):
            return f"{scheme} is a block type of GGUF, for llama-quantize"
        if scheme.format in CASTS:
            return f"it casts no single layer; load the model in {CASTS[scheme.format]} and keep it"
        if layer.shares is not None:
            return f"its weight is tied to {layer.shares!r}, which must stay in one piece"
        if scheme.format != "int" and scheme.activation is not None:
            return f"no recipe has float activations; use {scheme.format}, or export the trial"
        if scheme.format == "mxfp8":
            return "no recipe has mxfp8; export the trial"
        if scheme.activation is not None and scheme.activation.bos:
            return "it quantizes every token alike; use schemes without b"
        if scheme.activation is not None and scheme.activation.group is not None:
            return "no recipe has activations in groups; use them without g"
        if scheme.activation is not None and not scheme.activation.symmetric:
            return "no recipe has zero points of activations; use them without z"
        if scheme.activation is not None and scheme.activation.output:
            return "no recipe rounds outputs; use activations without o"
        if scheme.cache is not None:
            return "it quantizes no outputs of single projections; use schemes without kv"
        return takes(layer, scheme) or self.refusal(layer, scheme)

    @abstractmethod
    def refusal(self, layer: Layer, scheme: Scheme) -> str | None:
        """``reason`` of a pair that ``takes`` allows: no cast or tied weight, no ``b`` or ``kv``,
        no activations in groups, with zero points or of outputs."""

    @abstractmethod
    def render(self, quantized: Pairs, kept: Sequence[Layer], about: About) -> str:
        """The file of layers that the tool takes (at least one), and of those it leaves alone."""

    def text(
        self, layers: Iterable[Layer], schemes: Mapping[str, Scheme], about: About | None = None
    ) -> str:
        """The recipe of an allocation; layers without a scheme are kept.

        Raises ``ExportError`` that names all layers, schemes and reasons where the tool cannot take
        a pair, for a scheme of an unknown layer, and where nothing is quantized.
        """
        pairs = [(layer, schemes.get(layer.name, KEEP)) for layer in layers]
        unknown = set(schemes) - {layer.name for layer, _ in pairs}
        if unknown:
            raise ExportError(f"a scheme for {min(unknown)!r}", "the model has no such layer")
        self._refuse(pairs)
        quantized = [pair for pair in pairs if not untouched(*pair)]
        if not quantized:
            raise ExportError(
                f"a recipe for {self.name} of an allocation that keeps every layer",
                "choose one that quantizes some",
            )
        return self.render(quantized, [p[0] for p in pairs if untouched(*p)], dict(about or {}))

    def _refuse(self, pairs: Pairs) -> None:
        why: dict[tuple[Scheme, str], list[str]] = {}
        for layer, scheme in pairs:
            reason = self.reason(layer, scheme)
            if reason is not None:
                why.setdefault((scheme, reason), []).append(layer.name)
        if why:
            parts = [f"{_some(names)} as {s}: {reason}" for (s, reason), names in why.items()]
            raise ExportError(
                f"{self.name} cannot take {'; '.join(parts)}",
                "choose another trial, or search with schemes that it takes",
            )


def untouched(layer: Layer, scheme: Scheme) -> bool:
    """Whether a layer stays as it is: kept, or cast to the dtype that it has."""
    return scheme == KEEP or CASTS.get(scheme.format) == layer.dtype


def grouped(pairs: Pairs) -> dict[Scheme, list[str]]:
    """Scheme -> names of its layers, in their order."""
    found: dict[Scheme, list[str]] = {}
    for layer, scheme in pairs:
        found.setdefault(scheme, []).append(layer.name)
    return found


def patterns(names: Iterable[str]) -> dict[str, list[str]]:
    """Regular expressions, each of which matches, as a whole, its names and nothing else.

    Names that differ in their first number alone (``layers.1.mlp``, ``layers.10.mlp``) share one.
    """
    found: dict[str, list[str]] = {}
    families: dict[tuple[str, str], list[tuple[str, str]]] = {}  # (number, name) of each
    for name in names:
        parts = name.split(".")
        at = next((i for i, part in enumerate(parts) if re.fullmatch("[0-9]+", part)), None)
        if at is None:
            found[re.escape(name)] = [name]
            continue
        before = "".join(f"{part}." for part in parts[:at])
        after = "".join(f".{part}" for part in parts[at + 1 :])
        families.setdefault((before, after), []).append((parts[at], name))
    for (before, after), members in families.items():
        numbers = "|".join(number for number, _ in members)
        middle = f"(?:{numbers})" if len(members) > 1 else numbers
        found[re.escape(before) + middle + re.escape(after)] = [name for _, name in members]
    return found


def quoted(value: Any) -> str:
    """``value`` as JSON on one line."""
    return json.dumps(value, allow_nan=False)


def yaml_quoted(value: Any) -> str:
    """``value`` as YAML on one line, in ASCII: JSON, but with YAML's escapes."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    return "".join(c if " " <= c <= "~" else f"\\U{ord(c):08x}" for c in text)


def comment(about: About) -> str:
    """``about`` as lines of comment in YAML."""
    lines = (f"# {yaml_quoted(key)[1:-1]}: {yaml_quoted(value)}\n" for key, value in about.items())
    return "".join(lines)


def _some(names: Sequence[str]) -> str:
    named = ", ".join(map(repr, names[:_NAMED]))
    more = len(names) - _NAMED
    return f"{named} and {more} more" if more > 0 else named
