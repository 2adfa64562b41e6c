"""Searching by scores that were imported: which import it is, and what it has no scores of.

A pair without a score is no candidate. A layer without any is refused, since nothing says how much
it would lose: it has to be pinned or kept out by whoever asks.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bitfront.errors import BitfrontWarning, InvalidInput, UnknownName
from bitfront.scheme import KEEP, Scheme
from bitfront.sensitivity import PROFILERS, Profiler
from bitfront.sensitivity.imported import Imported, labels
from bitfront.study import Study
from bitfront.types import Costs, Layer, Measurement

IMPORT = "import scores with: bitfront import FILE --study"


def chosen_profiler(study: Study, profiler: str | Profiler) -> Profiler:
    """The profiler, an import with its label.

    Raises ``UnknownName`` for a profiler or an import there is none of, and ``InvalidInput`` where
    a study has no import, or several and none is named.
    """
    chosen = PROFILERS[profiler]() if isinstance(profiler, str) else profiler
    if not isinstance(chosen, Imported):
        return chosen
    known = labels(study.store.measurements(study.record, Imported.name))
    if not known:
        raise InvalidInput(f"study {study.name!r} has no imported scores", f"{IMPORT} {study.name}")
    if chosen.label:
        if chosen.label not in known:
            raise UnknownName(f"no import {chosen.label!r}", f"choose from {', '.join(known)}")
        return chosen
    if len(known) > 1:
        raise InvalidInput(
            f"study {study.name!r} has {len(known)} imports",
            f"name one with label={known[0]} (there are {', '.join(known)})",
        )
    return Imported(known[0])


def recorded_scores(
    study: Study, profiler: Profiler, pairs: Sequence[tuple[Layer, Scheme]]
) -> dict[tuple[str, str], Measurement]:
    """What an import has, of which ``pairs`` some must be; else raises ``InvalidInput``."""
    found = study.measurements(profiler.name, profiler.settings_key)
    if not any((layer.name, str(scheme)) in found for layer, scheme in pairs):
        schemes = ", ".join(dict.fromkeys(str(scheme) for _, scheme in pairs))
        raise InvalidInput(
            f"the import has no score of any of the layers under {schemes}",
            f"give schemes that it has: {_schemes(found)}",
        )
    return found


def scored(study: Study, profiler: Profiler, costs: Costs, pins: Mapping[str, str]) -> Costs:
    """``costs`` without the pairs that an import has no score of; of other profilers as they are.

    Warns (``BitfrontWarning``) of such pairs, but for those that pins bar. Raises ``InvalidInput``
    for layers without any score that may take something else than ``keep``.
    """
    if profiler.measures:
        return costs
    found = study.measurements(profiler.name, profiler.settings_key)
    schemes = [s for s in costs.schemes if s != KEEP]
    possible = [
        (n, s)
        for n in costs.layers
        for s in schemes
        if (n, s) not in costs.reasons and pins.get(n, s) == s
    ]
    lacking = [pair for pair in possible if pair not in found]
    label = getattr(profiler, "label", profiler.name)
    having = {layer for layer, scheme in found if scheme in schemes}
    without = [n for n in dict.fromkeys(n for n, _ in possible) if n not in having]
    if without:
        more = f" (and {len(without) - 1} more)" if len(without) > 1 else ""
        raise InvalidInput(
            f"import {label!r} has no score of layer {without[0]!r}{more} under "
            f"{', '.join(schemes) or KEEP}",
            f"pin it to keep, exclude it, or give the schemes that it has ({_schemes(found)})",
        )
    if not lacking:
        return costs
    layer, scheme = lacking[0]
    warnings.warn(
        f"import {label!r} has no score of {len(lacking)} of {len(possible)} pairs, like {layer!r} "
        f"under {scheme}: they are no candidates",
        BitfrontWarning,
        stacklevel=3,
    )
    return _barred(costs, lacking, f"import {label!r} has no score of it")


def _barred(costs: Costs, pairs: Iterable[tuple[str, str]], why: str) -> Costs:
    barred = dict.fromkeys(pairs, why)
    mask = np.array([[(n, s) in barred for s in costs.schemes] for n in costs.layers])
    tables = {name: np.where(mask, np.nan, table) for name, table in costs.tables.items()}
    return replace(costs, tables=tables, reasons={**costs.reasons, **barred})


def _schemes(found: Iterable[tuple[str, str]]) -> str:
    return ", ".join(sorted({scheme for _, scheme in found}))
