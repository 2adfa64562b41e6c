"""AutoRound's AutoScheme: a ``scheme_NN_KEY.json`` for each scheme, in its cache folder.

``layer_scores`` has ``[bits of the layer, loss]`` of each layer (auto-round 0.16.1,
``auto_scheme/delta_loss.py``). The loss is Σ |∂L/∂W · (W − Q(W))| over weights, and the same of the
inputs where these are quantized, added up over calibration batches: a first-order change of the
training loss with every term taken as harm. No nats, and on no scale with KL.

A loss of exactly 0 is a layer that AutoRound left at 16 bits, or that no gradient reached: no
score.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from bitfront.errors import InvalidInput
from bitfront.scheme import KEEP, Activation, Scheme

from .base import IMPORTERS, Asked, Importer, Score, Scores, activation, integer, number, shown
from .source import Source

_FORM = "give a JSON file that AutoScheme wrote, with scheme and layer_scores"
_OF_SCHEME = ("scheme", "need_weight_grad")  # differ between the schemes of one run
_ROW, _TENSOR = -1, 0  # as group sizes
FULL_BITS = 16
_FLOATS = {"mx_fp 4 32": "mxfp4", "nv_fp 4 16": "nvfp4", "fp 8 -1": "fp8"}  # type, bits, group


@IMPORTERS.register("autoround")
class AutoRound(Importer):
    """Scores of one scheme."""

    name = "autoround"

    def recognises(self, source: Source) -> bool:
        return source.looks_like_json and (
            isinstance(source.json, dict) and "layer_scores" in source.json
        )

    def read(self, source: Source, asked: Asked) -> Scores:
        data = source.json
        if not isinstance(data, dict):
            raise InvalidInput(f"it has {shown(data)}", _FORM)
        given, scored = data.get("scheme"), data.get("layer_scores")
        if not isinstance(given, dict) or not isinstance(scored, dict):
            raise InvalidInput("it has no object of scheme, or of layer_scores", _FORM)
        of = data.get("version", 1), data.get("score_granularity", "per_op")
        if of != (1, "per_op"):
            raise InvalidInput(
                f"it is of version {shown(of[0])}, {shown(of[1])}",
                "give one of version 1, per_op, as AutoRound 0.16 writes",
            )
        scheme, found = scheme_of(given), []
        unscored: Counter[str] = Counter()
        for layer, pair in scored.items():
            if not isinstance(pair, list) or len(pair) != 2:
                raise InvalidInput(f"the score of {layer!r} is {shown(pair)}", "give [bits, loss]")
            number(pair[0], f"the bits of {layer!r}", least=0)
            loss = number(pair[1], f"the loss of {layer!r}", least=0)
            if loss == 0:
                unscored["left at 16 bits, or without a gradient"] += 1
            elif scheme != Scheme.parse(KEEP):
                found.append(Score((layer,), scheme, loss))
        config = data.get("cache_config")
        run = dict(config) if isinstance(config, dict) else {}
        for name in _OF_SCHEME:
            run.pop(name, None)
        return Scores(
            "delta-loss", "first-order change of the training loss, magnitudes added up",
            tuple(found), run=json.dumps(run, sort_keys=True), unscored=unscored,
        )  # fmt: skip


def scheme_of(given: Mapping[str, Any]) -> Scheme | str:
    """The scheme that AutoRound's fields spell; in words where Bitfront has none."""
    bits, group, kind = given.get("bits"), given.get("group_size"), given.get("data_type", "int")
    if bits == FULL_BITS:
        return Scheme.parse(KEEP)
    acts = given.get("act_bits") or FULL_BITS
    words = f"{kind} of {bits} bits, group {shown(group)}, activations of {acts} bits"
    if given.get("super_bits") is not None or given.get("rotation_config"):
        return f"{words}, with blocks of blocks or a rotation"
    if acts != FULL_BITS and kind != "int":
        return words
    if type(bits) is not int or type(group) is not int:
        return words
    if kind != "int":
        spelled = _FLOATS.get(f"{kind} {bits} {group}")
        return words if spelled is None else Scheme.parse(spelled)
    if group == _TENSOR or group < _ROW:
        return words
    inputs = None
    if acts != FULL_BITS:
        inputs = _inputs(given, acts)
        if inputs is None:
            return f"{words} ({'dynamic' if given.get('act_dynamic') else 'static'})"
    symmetric = given.get("sym") is not False
    per = None if group == _ROW else group
    found = integer(bits, group=per, symmetric=symmetric, activation=inputs)
    return words if found is None else found


def _inputs(given: Mapping[str, Any], bits: Any) -> Activation | None:
    """Symmetric integers, one step for a token or for all inputs; else None."""
    static = given.get("act_dynamic") is False
    plain = given.get("act_data_type") in (None, "int") and given.get("act_sym") is not False
    if not plain or given.get("act_group_size") != (_TENSOR if static else _ROW):
        return None
    return activation(bits, static)
