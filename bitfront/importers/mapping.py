"""From a file's names and formats to a model's layers and schemes.

    e        the value of an entry, of layers 1..n together under one scheme
    w_i      weights of layer i
    v_i      e · w_i / Σ w: what layer i is given of it

With n = 1 that is the entry's own value. With more, sums over layers that take the scheme together
are the file's; how much each of them loses alone is not known, and the shares are a convention.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from bitfront.errors import InvalidInput
from bitfront.scheme import KEEP, Scheme
from bitfront.types import Estimate, Layer

from .base import Score, Scores

SUFFIXES = (
    ".quant_recipe",
    ".weight_quantizer",
    ".weight",
)  # of a layer's parts, in other programs
SHOWN = 3
MILLION = 1e6

Pair = tuple[str, str]  # layer, scheme


@dataclass(frozen=True, eq=False)
class Mapped:
    """What of a file is a model's.

    values: (layer, scheme) -> value. unknown: names that the model does not have. formats: formats
    without a scheme -> entries. barred: why a layer cannot take its scheme -> pairs. shared:
    entries of several layers, and ``untied`` those of layers that the study does not tie. prefix:
    what was left out at the beginning of every name.
    """

    values: Mapping[Pair, Estimate]
    unknown: tuple[str, ...] = ()
    formats: Mapping[str, int] = field(default_factory=dict)
    barred: Mapping[str, int] = field(default_factory=dict)
    shared: int = 0
    untied: int = 0
    prefix: str = ""


def mapped(
    scores: Scores,
    layers: Sequence[Layer],
    groups: Sequence[Sequence[str]],
    reasons: Callable[[Iterable[Scheme]], Mapping[Pair, str]],
) -> Mapped:
    """``scores`` under the names of ``layers``, each with a spelling of a scheme.

    groups: layers that the study ties. reasons: why layers cannot take some of the schemes. Raises
    ``InvalidInput`` for a pair with two values, and when nothing is left.
    """
    known = {layer.name: layer for layer in layers}
    prefix = _prefix(scores.scores, known)
    tied = [frozenset(group) for group in groups]
    schemes = {s.scheme for s in scores.scores if isinstance(s.scheme, Scheme)}
    barred = reasons(sorted(schemes, key=str))
    values: dict[Pair, Estimate] = {}
    unknown: dict[str, None] = {}
    formats: Counter[str] = Counter()
    reasons_found: Counter[str] = Counter()
    shared = untied = 0
    for score in scores.scores:
        resolved = {name: _layers(name, prefix, known) for name in score.layers}
        lacking = [name for name, found in resolved.items() if not found]
        if lacking:
            unknown.update(dict.fromkeys(lacking))
            continue
        if isinstance(score.scheme, str):
            formats[score.scheme] += 1
            continue
        if score.scheme.format == KEEP:
            continue  # no change: nothing that could be lost
        names = list(dict.fromkeys(name for found in resolved.values() for name in found))
        why = [_reason(known[n], score.scheme, barred, scores.last_axis) for n in names]
        if any(why):
            reasons_found.update(reason for reason in why if reason)
            continue
        shared += len(names) > 1
        untied += len(names) > 1 and not any(set(names) <= group for group in tied)
        for name, estimate in _shares(score, [known[n] for n in names], scores.per_million):
            _put(values, (name, str(score.scheme)), estimate)
    found = Mapped(values, tuple(unknown), formats, reasons_found, shared, untied, prefix)
    if not values:
        raise InvalidInput(*_nothing(found, scores, list(known)))
    return found


def _layers(name: str, prefix: str, known: Mapping[str, Layer]) -> list[str]:
    """The layers that a name of a file is of."""
    for spelled in _spellings(name.removeprefix(prefix)):
        if "*" in spelled:
            found = [layer for layer in known if fnmatchcase(layer, spelled)]
        else:
            found = [spelled] if spelled in known else []
        if found:
            return found
    return []


def _spellings(name: str) -> list[str]:
    """The name, and the name without a suffix of a layer's part."""
    return [name, *(name.removesuffix(end) for end in SUFFIXES if name.endswith(end))]


def _prefix(scores: Sequence[Score], known: Mapping[str, Layer]) -> str:
    """What all names begin with, where it is all that keeps each of them from being a layer's.

    Such as ``module.`` of a wrapped model: only where no name is known as it stands.
    """
    names = [name for score in scores for name in score.layers]
    if not names or any(_layers(name, "", known) for name in names):
        return ""
    words = names[0].split(".")
    for count in range(1, len(words)):
        prefix = ".".join(words[:count]) + "."
        if not all(name.startswith(prefix) for name in names):
            return ""
        if any(_layers(name, prefix, known) for name in names):
            return prefix
    return ""


def _reason(
    layer: Layer, scheme: Scheme, barred: Mapping[Pair, str], last_axis: bool
) -> str | None:
    """Why the score cannot be the layer's, if it cannot."""
    if last_axis and layer.kind.startswith("conv_transpose"):
        return "scales of a transposed convolution's inputs, where Bitfront's are of its outputs"
    if last_axis and scheme.group is not None and layer.kind.startswith("conv"):
        return "groups along a convolution's kernel, where Bitfront's are of its inputs"
    return barred.get((layer.name, str(scheme)))


def _shares(
    score: Score, layers: Sequence[Layer], per_million: bool
) -> Iterable[tuple[str, Estimate]]:
    whole = math.fsum(layer.weights for layer in layers)
    times = whole / MILLION if per_million else 1.0
    for layer in layers:
        part = times * (layer.weights / whole)
        stderr = score.stderr * part if len(layers) == 1 else math.nan
        yield layer.name, Estimate(score.value * part, stderr, score.samples)


def _put(values: dict[Pair, Estimate], pair: Pair, estimate: Estimate) -> None:
    if not math.isfinite(estimate.value):
        raise InvalidInput(
            f"the score of layer {pair[0]!r} under {pair[1]} is {estimate.value}, in all",
            "give scores that can be added up",
        )
    before = values.setdefault(pair, estimate)
    if before.value != estimate.value:
        raise InvalidInput(
            f"layer {pair[0]!r} has two scores under {pair[1]}, {before.value:.6g} and "
            f"{estimate.value:.6g}",
            "leave one of the two in the file",
        )


def _nothing(found: Mapped, scores: Scores, known: Sequence[str]) -> tuple[str, str]:
    """What to say of a file of which nothing can be used."""
    if found.unknown:
        return (
            f"the model has none of the {len(found.unknown)} layers of these scores, "
            f"like {found.unknown[0]!r}",
            f"rename them; its layers are like {known[0]!r}",
        )
    if found.formats:
        return (
            f"Bitfront has no scheme for any of its formats, like {next(iter(found.formats))!r}",
            "import scores of formats in docs/schemes.md",
        )
    if found.barred:
        return (
            f"its layers can take none of the schemes ({next(iter(found.barred))})",
            "import scores of schemes that they can take",
        )
    why = f" ({next(iter(scores.unscored))})" if scores.unscored else ""
    return f"it has no score{why}", "give a file with at least one"
