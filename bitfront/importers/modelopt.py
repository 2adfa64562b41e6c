"""NVIDIA ModelOpt's ``auto_quantize``: its ``checkpoint=`` file, the state it returns, or as JSON.

    state["method"]             "gradient" or "kl_div"
    state["candidate_stats"]    group -> {"formats": [recipe, ...], "scores": [float, ...],
                                          "module_names": [...], "is_fixed": bool, ...}

(ModelOpt 0.47.0, ``torch/quantization/algorithms.py``.) A score is of all modules of a group taking
the recipe together, since ModelOpt lets q/k/v and their like share one.

gradient    Σ over samples and outputs of (∂L/∂Y · ΔY)²: on no scale with KL
kl_div      Σ over all positions of KL(full ‖ model) in nats: over their number it is ``kl``

ModelOpt lowers a score to that of the next narrower recipe where it is above it. Sums of KL are of
float32, and those near 0 may be below it. Groups that it does
not score (fixed, or with one recipe) have zeros, which are left out.

The file is a pickle inside an archive. It is read with ``torch.load(weights_only=True)``, and the
names of ModelOpt's classes stand for records here that hold what is stored and do nothing. Whatever
else a file asks for is refused.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from bitfront.errors import InvalidInput
from bitfront.scheme import KEEP, Scheme

from .base import IMPORTERS, Asked, Importer, Score, Scores, number, shown
from .recipes import scheme_of
from .source import Source

_CONFIG = "modelopt.torch.quantization.config."
_NAMES = (
    "modelopt.torch.quantization.algorithms.QuantRecipe",
    *(f"{_CONFIG}{n}" for n in ("QuantizeConfig", "QuantizerCfgEntry", "QuantizerAttributeConfig")),
)
_SIGNATURE = "_config_signature"  # of a recipe: its configuration as JSON
_STATS = "candidate_stats"
_FORM = (
    "where ModelOpt is installed, write it as JSON: "
    "s = torch.load(FILE, weights_only=False); "
    "json.dump({'method': s['method'], 'candidate_stats': {n: {**c, 'formats': "
    "[f.checkpoint_signature for f in c['formats']]} for n, c in s['candidate_stats'].items()}}, "
    "open('scores.json', 'w'))"
)
METHODS = {
    "gradient": ("modelopt-gradient", "squared gradient times output change, added up"),
    "kl_div": ("kl-sum", "nats of KL, added up over positions"),
}


class _Record:
    """What a file stores of one of ModelOpt's objects: its attributes."""


@IMPORTERS.register("modelopt")
class ModelOpt(Importer):
    """Scores of groups of modules under recipes."""

    name = "modelopt"

    def recognises(self, source: Source) -> bool:
        if source.zipped:
            return True  # nothing else of these is one
        return source.looks_like_json and (
            isinstance(source.json, dict) and isinstance(source.json.get(_STATS), dict)
        )

    def read(self, source: Source, asked: Asked) -> Scores:
        state = _loaded(source) if source.zipped else source.json
        stats = state.get(_STATS) if isinstance(state, Mapping) else None
        if not isinstance(stats, Mapping):
            raise InvalidInput(f"it has no {_STATS}", "give what auto_quantize saved or returned")
        method = state.get("method")
        if not isinstance(method, str) or method not in METHODS:
            raise InvalidInput(
                f"its method is {shown(method)}", f"give one of {' or '.join(METHODS)}"
            )
        unscored: Counter[str] = Counter()
        scores: list[Score] = []
        least = -math.inf if method == "kl_div" else 0.0  # sums in float32 may fall below 0
        for group, given in stats.items():
            scores += _scores(str(group), given, least, unscored)
        metric, unit = METHODS[method]
        below = sum(score.value < 0 for score in scores)
        notes = (f"{below} scores are below zero, which KL is only by rounding",) if below else ()
        return Scores(
            metric, unit, tuple(scores), summed=method == "kl_div", last_axis=True,
            unscored=unscored, notes=notes,
        )  # fmt: skip


def _loaded(source: Source) -> Any:
    import torch

    try:
        with torch.serialization.safe_globals(_stand_ins()):
            return torch.load(source.path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever a file that is none makes torch raise)
        said = [line for line in str(error).splitlines() if "GLOBAL" in line or "ccess" in line]
        why = " ".join((said or str(error).splitlines() or [type(error).__name__])[0].split())
        raise InvalidInput(
            f"it cannot be loaded without running what is in it ({why[:120]})", _FORM
        ) from None


def _stand_ins() -> list[Any]:
    """Names of classes -> what is made for them; none of it is code of the file's."""
    records = [(type(n.rpartition(".")[2], (_Record,), {}), n) for n in _NAMES]
    plain = [(dict, "builtins.dict"), (dict, "__builtin__.dict")]  # what a defaultdict is made with
    return [*records, *plain, (_empty, "collections.defaultdict")]


def _empty(*_: object) -> dict[Any, Any]:
    """A plain dict for a ``defaultdict``, which then gets its items."""
    return {}


def _scores(group: str, given: Any, least: float, unscored: Counter[str]) -> list[Score]:
    """Those of one group of modules. least: that a score may be."""
    if not isinstance(given, Mapping):
        raise InvalidInput(f"{_STATS} of {group!r} are {shown(given)}", _FORM)
    formats, values, names = (_list(given.get(k)) for k in ("formats", "scores", "module_names"))
    if not names or not formats or not all(isinstance(name, str) for name in names):
        raise InvalidInput(f"{_STATS} of {group!r} lack formats, scores or module_names", _FORM)
    if len(formats) != len(values):
        raise InvalidInput(
            f"{group!r} has {len(formats)} formats and {len(values)} scores", "give as many"
        )
    schemes = [scheme_of(_recipe(f, group)) for f in formats]
    if given.get("is_fixed") or len(schemes) == 1:
        unscored["a single format, which ModelOpt does not score"] += 1
        return []
    figures = [number(v, f"a score of {group!r}", least) for v in values]
    keep = Scheme.parse(KEEP)
    pairs = zip(schemes, figures, strict=True)
    return [Score(tuple(names), scheme, value) for scheme, value in pairs if scheme != keep]


def _list(value: Any) -> list[Any]:
    """The items of a list or tuple; none of anything else."""
    return list(value) if isinstance(value, list | tuple) else []


def _recipe(stored: Any, group: str) -> Mapping[str, Any]:
    """A recipe's configuration, from what a file stores of it."""
    text = getattr(stored, _SIGNATURE, None) if isinstance(stored, _Record) else stored
    try:  # whatever else was stored: as JSON
        found = json.loads(text if isinstance(text, str) else json.dumps(text, default=repr))
    except (TypeError, ValueError, RecursionError):
        found = None
    if not isinstance(found, Mapping) or not isinstance(found.get("quant_cfg"), Iterable):
        raise InvalidInput(f"a format of {group!r} is {shown(text)}", _FORM)
    return found
