"""exllamav2's ``measurement.json``: options of whole sublayers, each with the error of its output.

    {"measurement": {"model.layers.0.self_attn": [{"accuracy": 0.98, "total_bits": 123456,
        "q_proj": {"group_size": {"4": 128}, "bits": [4], "bits_prop": [1], "scale_bits": 4},
        "k_proj": ...}, ...]}}

An entry says how all matrices of an attention or MLP sublayer were quantized *together*, and
``accuracy`` = 1 − mean over rows of ‖x' − x‖ / ‖x‖ of the hidden states behind it, the residual
stream included (exllamav2 0.3.2, ``conversion/measure.py``). Norms do not add up; squares of errors
that know nothing of each other do. So the score is (1 − accuracy)², a relative squared error.

Most options give the most important rows of a matrix more bits than the others, or the matrices
different widths. Bitfront's layers have one width, and one score can only be shared out between
matrices that take the same scheme: all other options are left out, and counted. Weights are
quantized by GPTQ in the order of their inputs' energy: ``+gptq:act``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bitfront.errors import InvalidInput
from bitfront.scheme import Scheme

from .base import IMPORTERS, Asked, Importer, Score, Scores, integer, number, shown
from .source import Source

_FORM = "give measurement.json as exllamav2's convert.py writes it"
_FIGURES = ("accuracy", "total_bits")
EXPERTS = "block_sparse_moe"
MIXED = "several widths within a matrix"
DIFFERENT = "matrices of a sublayer in different formats"


@IMPORTERS.register("exllamav2")
class ExLlamaV2(Importer):
    """Options of sublayers."""

    name = "exllamav2"

    def recognises(self, source: Source) -> bool:
        return source.looks_like_json and (
            isinstance(source.json, dict) and isinstance(source.json.get("measurement"), dict)
        )

    def read(self, source: Source, asked: Asked) -> Scores:
        data = source.json
        if not isinstance(data, dict) or not isinstance(data.get("measurement"), dict):
            raise InvalidInput("it has no object of measurement", _FORM)
        scores = [
            _score(place, option)
            for key, options in data["measurement"].items()
            for place, option in _options(key, options)
        ]
        return Scores(
            "relative-mse", "relative squared error of the output of the layer's sublayer",
            tuple(scores),
        )  # fmt: skip


def _options(key: str, options: Any) -> Iterator[tuple[str, Any]]:
    """(path of the sublayer, option); norms and the head, which have none, are skipped."""
    if options is None:
        return
    block, _, mode = key.rpartition(".")
    if mode == "parallel_decoder":
        if not isinstance(options, dict):
            raise InvalidInput(f"the options of {key!r} are {shown(options)}", _FORM)
        parts = {f"{block}.self_attn": options.get("attn"), f"{block}.mlp": options.get("mlp")}
    else:
        parts = {key: options}
    for place, every in parts.items():
        if not isinstance(every, list):
            raise InvalidInput(f"the options of {place!r} are {shown(every)}", _FORM)
        for option in every:
            yield place, option


def _score(place: str, option: Any) -> Score:
    if not isinstance(option, dict) or "accuracy" not in option or len(option) < 2:
        raise InvalidInput(f"an option of {place!r} is {shown(option)}", _FORM)
    error = 1 - number(option["accuracy"], f"the accuracy of {place!r}", least=0, most=1)
    matrices = {name: of for name, of in option.items() if name not in _FIGURES}
    schemes = {_scheme(f"{place}.{name}", of) for name, of in matrices.items()}
    within = f"{place}.experts.*" if place.endswith(EXPERTS) else place
    names = tuple(f"{within}.{name}" for name in matrices)
    if len(schemes) > 1:
        return Score(names, MIXED if MIXED in schemes else DIFFERENT, error**2)
    return Score(names, schemes.pop(), error**2)


def _scheme(matrix: str, given: Any) -> Scheme | str:
    if not isinstance(given, Mapping) or not isinstance(given.get("bits"), list):
        raise InvalidInput(f"the format of {matrix!r} is {shown(given)}", _FORM)
    if len(given["bits"]) != 1:
        return MIXED
    (bits,), group = given["bits"], given.get("group_size")
    if isinstance(group, Mapping):
        group = group.get(str(bits))
    found = integer(bits, group=group, quantizer="gptq:act") if type(group) is int else None
    return f"{shown(bits)} bits in groups of {shown(group)}" if found is None else found
