"""Which scheme a recipe of ModelOpt's stands for.

A recipe is a list of entries, each a pattern of quantizers' names and what these become. They are
applied in order to the quantizers of one module, whose names then are ``weight_quantizer``,
``input_quantizer`` and ``output_quantizer`` (ModelOpt 0.47.0, ``QuantRecipeHparam`` calls
``set_quantizer_by_cfg`` on the module itself, so patterns with a path before them match nothing).
An entry with a ``cfg`` replaces all that came before, one without only turns on or off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from bitfront.scheme import KEEP, Activation, Scheme

from .base import activation, integer

PLAIN = (None, "max", "mse")  # how scales are chosen, the weights staying as they are
_ROWS = (0, [0])  # axes of a scale for each output channel
# bits, block, bits of its scale
_FLOATS = {"[2, 1] 16 [4, 3]": "nvfp4", "[2, 1] 32 [8, 0]": "mxfp4"}

Quantizer = Mapping[str, Any]


def scheme_of(recipe: Mapping[str, Any]) -> Scheme | str:
    """The scheme of a recipe's configuration; in words where Bitfront has none."""
    weight, given, output = (
        _quantizer(recipe["quant_cfg"], f"{part}_quantizer")
        for part in ("weight", "input", "output")
    )
    if weight is None and given is None and output is None:
        return Scheme.parse(KEEP)
    algorithm = recipe.get("algorithm")
    name = algorithm.get("method") if isinstance(algorithm, Mapping) else algorithm
    words = f"weights {_words(weight)}, inputs {_words(given)}"
    if output is not None:
        return f"{words}, outputs {_words(output)}"
    if name not in PLAIN:
        return f"{words}, by {name}"
    inputs = None if given is None else _inputs(given)
    if weight is None or (given is not None and inputs is None) or "sequence" in weight:
        return words
    return _weights(weight, inputs) or words


def _quantizer(entries: Any, name: str) -> Quantizer | None:
    """What the entries make of the quantizer called ``name``; None where it is turned off."""
    now: dict[str, Any] = {}
    on = True  # as a quantizer is made
    for entry in entries:
        if not isinstance(entry, Mapping) or not fnmatchcase(
            name, str(entry.get("quantizer_name"))
        ):
            continue
        cfg, enabled = entry.get("cfg"), entry.get("enable", True)
        if entry.get("parent_class"):
            if not enabled:
                continue  # of norms and activations, as the presets have it
            cfg = [cfg]  # of one class of modules: nothing that a layer alone says
        if cfg is not None:
            now = dict(cfg) if isinstance(cfg, Mapping) else {"sequence": cfg}
        on = bool(enabled)
    return now if on else None


def _weights(given: Quantizer, inputs: Activation | None) -> Scheme | None:
    bits, blocks = _bits(given), _blocks(given)
    if given.get("unsigned") or given.get("bias") or given.get("rotate"):
        return None
    if isinstance(bits, tuple):
        if inputs is not None:
            return None
        if blocks is None:
            per_row = bits == (4, 3) and given.get("axis") in _ROWS
            return Scheme.parse("fp8") if per_row else None
        given_scale = blocks.get("scale_bits")
        scale = given_scale if isinstance(given_scale, list | tuple) else ()
        spelled = _FLOATS.get(f"{list(bits)} {_last(blocks)} {list(scale)}")
        return None if spelled is None else Scheme.parse(spelled)
    if blocks is None:
        return integer(bits, activation=inputs) if given.get("axis") in _ROWS else None
    if blocks.get("scale_bits") is not None or type(_last(blocks)) is not int:
        return None
    return integer(bits, group=_last(blocks), activation=inputs)


def _inputs(given: Quantizer) -> Activation | None:
    """Symmetric integers with one step for all inputs, or for each token; else None."""
    bits, blocks, dynamic = _bits(given), _blocks(given), given.get("type") == "dynamic"
    if isinstance(bits, tuple) or given.get("unsigned") or given.get("bias") or given.get("rotate"):
        return None
    if blocks is not None:  # a block of no size is a whole row: a token
        if blocks != {"-1": None, "type": "dynamic"}:
            return None
    elif dynamic or given.get("axis") is not None:
        return None
    return activation(bits, static=blocks is None)


def _bits(given: Quantizer) -> Any:
    """Its ``num_bits``: an int, or (exponent, mantissa)."""
    bits = given.get("num_bits", 8)
    return tuple(bits) if isinstance(bits, list | tuple) else bits


def _blocks(given: Quantizer) -> Mapping[str, Any] | None:
    blocks = given.get("block_sizes")
    return {str(k): v for k, v in blocks.items()} if isinstance(blocks, Mapping) else None


def _last(blocks: Mapping[str, Any]) -> Any:
    """Size of blocks along the inputs, if only these are cut into blocks."""
    axes = [k for k in blocks if k not in ("type", "scale_bits", "scale_block_sizes")]
    return blocks["-1"] if axes == ["-1"] else None


def _words(given: Quantizer | None) -> str:
    if given is None:
        return "full"
    if "sequence" in given:
        return "in several steps"
    bits, axis, blocks = _bits(given), given.get("axis"), _blocks(given)
    kind = f"E{bits[0]}M{bits[1]}" if isinstance(bits, tuple) and len(bits) == 2 else f"int{bits}"
    if blocks is not None:
        return f"{kind} in blocks {json.dumps(blocks)}"
    return f"{kind} per {'tensor' if axis is None else f'axis {axis}'}"
