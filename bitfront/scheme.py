"""The grammar of schemes: what a layer may become, in one canonical spelling.

    scheme     = float | block | integer
    float      = "keep" | "bf16" | "fp16" | "fp8" | "mxfp4" | "nvfp4"
    block      = "q8_0" | "q6_k" | "q5_k" | "q5_0" | "q5_1" | "q4_k" | "q4_0" | "q4_1" | "q3_k"
               | "q2_k"
    integer    = "w" bits [ "g" size ] [ "z" ] [ activation ] [ cache ] [ "+" quantizer ]
    activation = "a" bits [ "s" | "g" ] [ "b" ]
    cache      = "kv" bits
    quantizer  = "rtn" | "gptq" [ ":act" ]

``w4g128`` is 4-bit symmetric weights in groups of 128 along the input dimension; without ``g``
one scale per output channel. ``z`` adds zero points (asymmetric). ``a8`` quantizes the layer's
input to 8-bit integers, dynamically per token; ``a8s`` statically per tensor, with a range from
calibration; ``a8g`` dynamically in the groups of the weights, as blocked kernels do (``w4g32a8g``).
``b`` leaves the first token of a text as it is (BOS-aware, MixDQ, arXiv:2405.17873).
``kv8`` quantizes what attention caches: the outputs of key and value projections, to 8-bit
integers, dynamically per token and head; a query projection, which may have to share their scheme,
has none.
``q4_k`` and its like are GGUF's block types, under their names there in lower case: 32 or 256
weights with their scales, as llama.cpp reads them.
``+gptq`` names the quantizer, ``:act`` orders its columns by activation; the default ``rtn`` (round
to nearest) is not spelled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bitfront.errors import SchemeError

KEEP = "keep"  # spelling of the scheme that leaves a layer as it is
WEIGHT_BITS = (2, 3, 4, 5, 6, 7, 8)
ACTIVATION_BITS = (4, 6, 8)
CACHE_BITS = (4, 6, 8)
FLOAT_BITS = {"bf16": 16, "fp16": 16, "fp8": 8, "mxfp4": 4, "nvfp4": 4}
FLOAT_GROUPS = {"mxfp4": 32, "nvfp4": 16}
BLOCK_BITS = {
    "q8_0": 8, "q6_k": 6, "q5_k": 5, "q5_0": 5, "q5_1": 5, "q4_k": 4, "q4_0": 4, "q4_1": 4,
    "q3_k": 3, "q2_k": 2,
}  # fmt: skip
BLOCK_GROUPS = {name: 256 if name.endswith("_k") else 32 for name in BLOCK_BITS}
QUANTIZERS = ("rtn", "gptq", "gptq:act")

_NAMED_BITS = FLOAT_BITS | BLOCK_BITS
_NAMED_GROUPS = FLOAT_GROUPS | BLOCK_GROUPS
_INTEGER = re.compile(
    r"w(?P<bits>\d{1,9})(?:g(?P<group>\d{1,9}))?(?P<zero>z)?"
    r"(?:a(?P<act>\d{1,9})(?P<steps>[sg])?(?P<bos>b)?)?(?:kv(?P<cache>\d{1,9}))?"
    r"(?:\+(?P<quantizer>[a-z:]+))?"
)
_HELP = (
    "spell it like w4, w4g128, w4g32z, w8a8, w8a8s, w4g32a8g, w8a8sb, w4kv8, w3g64+gptq, bf16, "
    "fp16, fp8, q4_k or keep"
)


@dataclass(frozen=True, slots=True)
class Activation:
    """Integer format of a layer's input: ``bits`` wide, symmetric, dynamic per token or static.

    ``bos``: token 0 of an input (N, T, K) stays in full precision, and has no say in a static step.
    ``group``: how many inputs of a token share a step, None for all; dynamic only.
    """

    bits: int
    static: bool = False
    bos: bool = False
    group: int | None = None

    def __post_init__(self) -> None:
        if self.bits not in ACTIVATION_BITS:
            raise SchemeError(
                f"activations of {self.bits} bits", f"use one of {_words(ACTIVATION_BITS)}"
            )
        if self.static and self.group is not None:
            raise SchemeError("static activations in groups", "use a8s or a8g")

    def __str__(self) -> str:
        steps = "s" if self.static else "" if self.group is None else "g"
        return f"a{self.bits}{steps}{'b' if self.bos else ''}"


@dataclass(frozen=True, slots=True)
class Scheme:
    """Weight format, bits, group size, activation and cache format, quantizer of one layer.

    ``format`` is ``"int"``, ``"keep"`` or one of the floats and block types; ``bits`` is the
    nominal width of one stored weight (0 for ``keep``, whose width is the model's own); ``group``
    the number of weights that share a scale along the input dimension, ``None`` for a whole row (of
    block types the size of a block, parts of which may have scales too). ``cache`` is the width of
    what attention caches of its output, ``None`` for the model's own. Equal schemes have equal
    spellings: ``Scheme.parse(str(s)) == s``.
    """

    format: str
    bits: int = 0
    group: int | None = None
    symmetric: bool = True
    activation: Activation | None = None
    quantizer: str = "rtn"
    cache: int | None = None

    def __post_init__(self) -> None:
        if self.format == "int":
            if self.bits not in WEIGHT_BITS:
                raise SchemeError(
                    f"integer weights of {self.bits} bits", f"use one of {_words(WEIGHT_BITS)}"
                )
            if self.group is not None and self.group < 1:
                raise SchemeError(f"group size {self.group}", "use a positive group size")
            if self.cache is not None and self.cache not in CACHE_BITS:
                raise SchemeError(
                    f"a cache of {self.cache} bits", f"use one of {_words(CACHE_BITS)}"
                )
            if self.activation is not None and self.activation.group not in (None, self.group):
                raise SchemeError(
                    "activations in other groups than the weights", "spell it like w4g32a8g"
                )
            if self.quantizer not in QUANTIZERS:
                raise SchemeError(
                    f"quantizer {self.quantizer!r}", f"use one of {_words(QUANTIZERS)}"
                )
        elif self != _named(self.format):
            raise SchemeError(f"{self.format} with options of integer schemes", _HELP)

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """The scheme that ``text`` spells. Raises ``SchemeError`` for anything else."""
        word = text.strip().lower()
        if word == KEEP or word in _NAMED_BITS:
            return _named(word)
        match = _INTEGER.fullmatch(word)
        if match is None:
            raise SchemeError(f"unknown scheme {text!r}", _HELP)
        group = int(match["group"]) if match["group"] else None
        if match["steps"] == "g" and group is None:
            raise SchemeError(
                f"scheme {text!r}: activations in groups, and weights in none",
                "spell it like w4g32a8g",
            )
        try:
            return cls(
                format="int",
                bits=int(match["bits"]),
                group=group,
                symmetric=match["zero"] is None,
                activation=Activation(
                    int(match["act"]),
                    static=match["steps"] == "s",
                    bos=match["bos"] is not None,
                    group=group if match["steps"] == "g" else None,
                )
                if match["act"]
                else None,
                quantizer=match["quantizer"] or "rtn",
                cache=int(match["cache"]) if match["cache"] else None,
            )
        except SchemeError as error:
            raise SchemeError(f"scheme {text!r}: {error.what}", error.remedy) from None

    def __str__(self) -> str:
        if self.format != "int":
            return self.format
        group = "" if self.group is None else f"g{self.group}"
        zero = "" if self.symmetric else "z"
        quantizer = "" if self.quantizer == "rtn" else f"+{self.quantizer}"
        cache = "" if self.cache is None else f"kv{self.cache}"
        return f"w{self.bits}{group}{zero}{self.activation or ''}{cache}{quantizer}"


def parse_schemes(texts: str | Iterable[str | Scheme]) -> tuple[Scheme, ...]:
    """Schemes from ``"w4 w8,keep"`` or from a sequence, without repeats, in the order given."""
    words = re.split(r"[\s,]+", texts.strip()) if isinstance(texts, str) else list(texts)
    schemes = [w if isinstance(w, Scheme) else Scheme.parse(w) for w in words if w]
    if not schemes:
        raise SchemeError("no schemes were given", _HELP)
    return tuple(dict.fromkeys(schemes))


def _named(name: str) -> Scheme:
    scheme = object.__new__(Scheme)
    values = {
        "format": name, "bits": _NAMED_BITS.get(name, 0), "group": _NAMED_GROUPS.get(name),
        "symmetric": True, "activation": None, "quantizer": "rtn", "cache": None,
    }  # fmt: skip
    if name != KEEP and name not in _NAMED_BITS:
        raise SchemeError(f"unknown scheme {name!r}", _HELP)
    for field, value in values.items():
        object.__setattr__(scheme, field, value)
    return scheme


def _words(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
