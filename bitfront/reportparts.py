"""Sensitivities by part of the data: where, in timesteps or domains, a scheme hurts.

A study's settings say which metrics are one metric of different parts (``of``, ``part``); profilers
that measure every metric record them side by side.

L  layers      C  schemes      P  parts
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitfront.page import markup, numbers
from bitfront.rebuilding import by_width, recorded_sets
from bitfront.reportfigures import color_ticks
from bitfront.sensitivity import assemble
from bitfront.types import Measurement, Sensitivities


@dataclass(frozen=True, eq=False)
class ByPart:
    """One metric's worsening in each part of the data, as one profiler recorded it.

    name: of the profiler's table, as in ``Rebuilt``. metric: that of all parts together; unit: of
    its worsening. tables: (L, C) of each part, in order.
    """

    name: str
    metric: str
    unit: str
    tables: tuple[Sensitivities, ...]


def by_part(
    measurements: Sequence[Measurement],
    layers: Sequence[str],
    metrics: Mapping[str, Mapping[str, Any]],
) -> list[ByPart]:
    """Every metric of at least two parts that was recorded, for each profiler that did.

    layers: in the model's order; others that were measured follow. metrics: of the study's
    settings. Empty for studies whose settings do not say what is part of what.
    """
    families = _families(metrics)
    names = list(dict.fromkeys([*layers, *(m.layer for m in measurements)]))
    found = []
    for name, recorded in recorded_sets(measurements):
        values = {value for m in recorded for value in m.values}
        schemes, profiler = by_width(recorded), recorded[0].profiler
        for metric, parts in families.items():
            if values.issuperset(parts):
                tables = tuple(
                    assemble(recorded, names, schemes, part, metric=part, profiler=profiler)
                    for part in parts
                )
                found.append(ByPart(name, metric, metrics[parts[0]]["worsening_unit"], tables))
    return found


def _families(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Metric -> the names of its parts, in order, where there are two or more."""
    parts: dict[str, dict[int, str]] = defaultdict(dict)
    for name, known in metrics.items():
        if "part" in known:
            parts[known["of"]][known["part"]] = name
    return {of: [names[i] for i in sorted(names)] for of, names in parts.items() if len(names) > 1}


def document(given: ByPart, names: Sequence[str]) -> dict[str, Any]:
    """What the page's script is given; rows in the order of ``names``.

    values, stderr: by scheme, (L, P). colors: by scheme, of its own values.
    """
    first = given.tables[0]
    at = [first.layers.index(name) for name in names]
    values, stderr = (
        np.stack([getattr(t, what)[at] for t in given.tables], axis=-1)
        for what in ("values", "stderr")
    )
    return {
        "name": f"{given.metric} ({given.name})",
        "metric": given.metric,
        "unit": given.unit,
        "parts": [markup(t.metric) for t in given.tables],
        "schemes": list(first.schemes),
        "values": [numbers(values[:, j]) for j, _ in enumerate(first.schemes)],
        "stderr": [numbers(stderr[:, j]) for j, _ in enumerate(first.schemes)],
        "colors": [color_ticks(values[:, j]) for j, _ in enumerate(first.schemes)],
    }
