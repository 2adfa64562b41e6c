"""The grammar of schemes: what a layer may become, in one canonical spelling.

    scheme     = float | block | integer
    float      = "keep" | "bf16" | "fp16" | "fp8" [ "a8" [ "s" ] ] | "nvfp4" [ "a4" ]
               | "mxfp4" [ "a4" ] | "mxfp8" [ "a8" ]
    block      = "q8_0" | "q6_k" | "q5_k" | "q5_0" | "q5_1" | "q4_k" | "q4_0" | "q4_1" | "q3_k"
               | "q2_k"
    integer    = "w" bits [ "g" size ] [ "z" ] [ activation ] [ cache ] [ "+" quantizer ]
    activation = "a" bits [ "s" [ "z" ] [ "o" ] | "g" ] [ "b" ]
    cache      = "kv" bits
    quantizer  = "rtn" | "gptq" [ ":act" ]

``w4g128`` is 4-bit symmetric weights in groups of 128 along the input dimension; without ``g``
one scale per output channel. ``z`` adds zero points (asymmetric). ``a8`` quantizes the layer's
input to 8-bit integers, dynamically per token; ``a8s`` statically per tensor, with a range from
calibration; ``a8sz`` the same with a zero point (asymmetric); ``o``, as in ``a8so`` and ``a8szo``,
rounds the layer's output too, on such a grid of its own, as integer convolutions do; ``a8g``
dynamically in the groups of the weights, as blocked kernels do (``w4g32a8g``).
``b`` leaves the first token of a text as it is (BOS-aware, MixDQ, arXiv:2405.17873).
``kv8`` quantizes what attention caches: the outputs of key and value projections, to 8-bit
integers, dynamically per token and head; a query projection, which may have to share their scheme,
has none.
Floats round inputs to their own format: ``fp8a8`` scales each token, ``fp8a8s`` all of them by one
number from calibration, ``nvfp4a4`` groups of 16 and all of them by such a number, ``mxfp4a4`` and
``mxfp8a8`` groups of 32.
``q4_k`` and its like are GGUF's block types, under their names there in lower case: 32 or 256
weights with their scales, as llama.cpp reads them.
``+gptq`` names the quantizer, ``:act`` orders its columns by activation; the default ``rtn`` (round
to nearest) is not spelled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bitfront.errors import SchemeError

KEEP = "keep"  # spelling of the scheme that leaves a layer as it is
WEIGHT_BITS = (2, 3, 4, 5, 6, 7, 8)
ACTIVATION_BITS = (4, 6, 8)
CACHE_BITS = (4, 6, 8)
FLOAT_BITS = {"bf16": 16, "fp16": 16, "fp8": 8, "mxfp8": 8, "mxfp4": 4, "nvfp4": 4}
FLOAT_GROUPS = {"mxfp8": 32, "mxfp4": 32, "nvfp4": 16}
FLOAT_STATIC = {"fp8": (False, True), "mxfp8": (False,), "mxfp4": (False,), "nvfp4": (True,)}
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
    r"(?:a(?P<act>\d{1,9})(?P<steps>[sg])?(?P<offset>z)?(?P<out>o)?(?P<bos>b)?)?(?:kv(?P<cache>\d{1,9}))?"
    r"(?:\+(?P<quantizer>[a-z:]+))?"
)
_HELP = (
    "spell it like w4, w4g128, w4g32z, w8a8, w8a8s, w8a8szo, w4g32a8g, w8a8sb, w4kv8, w3g64+gptq, "
    "bf16, fp16, fp8, fp8a8, nvfp4a4, q4_k or keep"
)


@dataclass(frozen=True, slots=True)
class Activation:
    """Format of a layer's input: ``bits`` wide, dynamic per token or static.

    ``bos``: token 0 of an input (N, T, K) stays in full precision, and has no say in a static step.
    ``group``: how many inputs of a token share a step, None for all; of integers dynamic only.
    ``symmetric``: without a zero point; one with it is static. ``output``: the layer's output,
    bias included, is rounded to a static grid of the same kind; static only.
    ``format``: ``"int"``, or a float, whose bits and group follow; static means a number from
    calibration, which for ``nvfp4`` scales the groups' dynamic steps.
    """

    bits: int
    static: bool = False
    bos: bool = False
    group: int | None = None
    symmetric: bool = True
    output: bool = False
    format: str = "int"

    def __post_init__(self) -> None:
        if self.format != "int":
            known = FLOAT_STATIC.get(self.format, ())
            fixed = (FLOAT_BITS.get(self.format), FLOAT_GROUPS.get(self.format), False)
            if self.static not in known or (self.bits, self.group, self.bos) != fixed:
                raise SchemeError(f"activations in {self.format} with options", _HELP)
            return
        if self.bits not in ACTIVATION_BITS:
            raise SchemeError(
                f"activations of {self.bits} bits", f"use one of {_words(ACTIVATION_BITS)}"
            )
        if self.static and self.group is not None:
            raise SchemeError("static activations in groups", "use a8s or a8g")
        if not self.static and not self.symmetric:
            raise SchemeError(
                "a zero point of activations whose range is not static", "spell it like w8a8sz"
            )
        if not self.static and self.output:
            raise SchemeError(
                "outputs rounded where the range of inputs is not static", "spell it like w8a8so"
            )
        if self.output and self.bos:
            raise SchemeError(
                "outputs rounded where a first token stays as it is", "use o or b, not both"
            )

    def __str__(self) -> str:
        grouped = "g" if self.format == "int" else ""
        steps = grouped if self.group is not None else "s" if self.static else ""
        flags = f"{'' if self.symmetric else 'z'}{'o' if self.output else ''}"
        return f"a{self.bits}{steps}{flags}{'b' if self.bos else ''}"


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
            if self.activation is not None and self.activation.output:
                self._check_output()
            if self.activation is not None and self.activation.format != "int":
                raise SchemeError("float activations of integer weights", "spell it like fp8a8")
            if self.quantizer not in QUANTIZERS:
                raise SchemeError(
                    f"quantizer {self.quantizer!r}", f"use one of {_words(QUANTIZERS)}"
                )
        elif self != _named(self.format, self.activation):
            raise SchemeError(f"{self.format} with options of integer schemes", _HELP)

    def _check_output(self) -> None:
        if self.cache is not None:
            raise SchemeError(
                "a cache of an output that is rounded already", "use o or kv, not both"
            )
        if self.group is not None:
            raise SchemeError(
                "rounded outputs of weights in groups",
                "biases are rounded with one scale a row: spell it like w8a8so",
            )

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """The scheme that ``text`` spells. Raises ``SchemeError`` for anything else."""
        word = text.strip().lower()
        if word in _WORDS:
            return _named(*_WORDS[word])
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
                    symmetric=match["offset"] is None,
                    output=match["out"] is not None,
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
            return f"{self.format}{self.activation or ''}"
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


def _words_of_formats() -> Iterator[tuple[str, Activation | None]]:
    """The format of the weights and the activations of every scheme but the integer ones."""
    for name in (KEEP, *_NAMED_BITS):
        yield name, None
        for static in FLOAT_STATIC.get(name, ()):
            group = FLOAT_GROUPS.get(name)
            yield name, Activation(FLOAT_BITS[name], static, group=group, format=name)


_WORDS = {f"{name}{inputs or ''}": (name, inputs) for name, inputs in _words_of_formats()}


def _named(name: str, activation: Activation | None) -> Scheme:
    scheme = object.__new__(Scheme)
    values = {
        "format": name, "bits": _NAMED_BITS.get(name, 0), "group": _NAMED_GROUPS.get(name),
        "symmetric": True, "activation": activation, "quantizer": "rtn", "cache": None,
    }  # fmt: skip
    if name != KEEP and name not in _NAMED_BITS:
        raise SchemeError(f"unknown scheme {name!r}", _HELP)
    if activation is not None and activation.format != name:
        raise SchemeError(f"{name} with activations of another format", _HELP)
    for field, value in values.items():
        object.__setattr__(scheme, field, value)
    return scheme


def _words(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
