"""The tables that profilers made, from what the database recorded of them, without the model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bitfront.scheme import Scheme
from bitfront.sensitivity import PROFILERS, Profiler
from bitfront.types import Measurement, Sensitivities


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """A table under the name that a report gives it.

    name: the profiler; with ``#`` and the beginning of their key for settings other than its
    defaults; and which of its tables it is, where there are several.
    """

    name: str
    table: Sensitivities


def rebuilt(
    measurements: Iterable[Measurement],
    layers: Sequence[str],
    metric: str,
    metrics: Mapping[str, object],
) -> list[Rebuilt]:
    """Tables of all registered profilers, one set for each of their recorded settings.

    Measurements of what is not a registered profiler (expansions around quantized models) are left
    out. layers: in the model's order; others that were measured follow. metric: the one that is
    asked for; of profilers that have a table of it, tables of the study's other ``metrics`` are
    left out. The best table of each set comes first, sets in the order they were recorded in,
    schemes from the narrowest to the widest.
    """
    found = []
    for set_name, recorded in recorded_sets(measurements):
        names = list(dict.fromkeys([*layers, *(m.layer for m in recorded)]))
        tables = _tables(PROFILERS[recorded[0].profiler], recorded, names)
        if any(table.metric == metric for table in tables.values()):
            tables = {
                n: t for n, t in tables.items() if t.metric == metric or t.metric not in metrics
            }
        for name, table in tables.items():
            found.append(Rebuilt(set_name if len(tables) == 1 else f"{set_name}: {name}", table))
    return found


def recorded_sets(measurements: Iterable[Measurement]) -> Iterator[tuple[str, list[Measurement]]]:
    """Measurements of registered profilers by profiler and settings, each set with its name."""
    sets: dict[tuple[str, str], list[Measurement]] = defaultdict(list)
    for m in measurements:
        if m.profiler in PROFILERS:
            sets[m.profiler, m.settings].append(m)
    for (profiler, settings), recorded in sets.items():
        yield PROFILERS[profiler].title(settings, recorded), recorded


def by_width(recorded: Iterable[Measurement]) -> list[str]:
    """The schemes of measurements, from the narrowest to the widest."""
    return sorted(dict.fromkeys(m.scheme for m in recorded), key=_width)


def _tables(
    kind: type[Profiler], recorded: Sequence[Measurement], layers: Sequence[str]
) -> dict[str, Sensitivities]:
    """Those of one set that have a value at all."""
    tables = kind.reader(recorded).tables(recorded, layers, by_width(recorded))
    return {name: t for name, t in tables.items() if np.isfinite(t.values).any()}


def _width(scheme: str) -> int:
    return Scheme.parse(scheme).bits or 0
