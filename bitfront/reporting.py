"""A study's report: what is recorded of its layers and trials, as one page; without the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitfront.files import write_text
from bitfront.heldout import Sides, parted, warnings
from bitfront.queries import Front, check_metric, front_of
from bitfront.rebuilding import Rebuilt, rebuilt
from bitfront.reportpage import render
from bitfront.reportparts import ByPart, by_part
from bitfront.sensitivity import PROFILERS
from bitfront.sensitivity.perturb import Perturb
from bitfront.storage import Store, StudyRecord
from bitfront.types import Estimate, Layer, Measurement, Trial

COST = "bytes"  # of the front


@dataclass(frozen=True, eq=False)
class Report:
    """What a report shows.

    metric: of the front, and of what was measured one at a time; unit: its own. tables: every
    profiler's. measured: (layer, scheme) -> worsening measured one at a time. front: of ``bytes``
    and the metric; None without trials that have both. sides: number of each of the front's best
    trials -> the metric of it on each kind of data. parts: metrics of parts of the data, by
    profiler. missing: what is not recorded, in words.
    """

    study: StudyRecord
    metric: str
    unit: str
    layers: Mapping[str, Layer]
    tables: tuple[Rebuilt, ...]
    measured: Mapping[tuple[str, str], Estimate]
    front: Front | None
    sides: Mapping[int, Sides]
    parts: tuple[ByPart, ...]
    missing: tuple[str, ...]

    @property
    def parted(self) -> dict[str, list[int]]:
        """Kind of data -> the front's trials that are worse there than on calibration data."""
        return parted(self.sides)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What follows where they part, in words."""
        return warnings(self.sides, self.metric)

    @property
    def best(self) -> list[Trial]:
        """The front's non-dominated trials, by rising cost."""
        return [] if self.front is None else [self.front.trials[i] for i in self.front.best]


def report(
    study: str, path: str | Path, *, metric: str = "kl", db: str | Path | None = None
) -> Report:
    """Write a page about ``study`` to ``path``: one HTML file, there whole or not at all.

    It has the sensitivities of every profiler, each role's share of them, those by part of the data
    (timesteps, domains), how far profilers agree, and the front with predicted and measured loss,
    and with the loss on calibration data, on calibration data held back and on evaluation data,
    side by side. What the study lacks is said in its place. Raises ``UnknownName`` for a study, and
    for a ``metric`` that the study does not measure, ``StorageError`` and ``OSError``.
    """
    found = gathered(study, metric, db)
    write_text(path, render(found))
    return found


def gathered(study: str, metric: str, db: str | Path | None) -> Report:
    """What the report of ``study`` shows. Raises as ``report``, but for ``OSError``."""
    with Store.open(db) as store:
        record = store.study(study)
        metrics = record.settings.get("metrics", {})
        check_metric(record, metric)
        measurements = list(_profiled(store, record))
        trials = store.trials(record)
    layers = record.layers
    tables = rebuilt(measurements, list(layers), metric, metrics)
    front = _front(record, trials, metric)
    return Report(
        study=record,
        metric=metric,
        unit=metrics.get(metric, {}).get("unit", ""),
        layers=layers,
        tables=tuple(tables),
        measured=_measured(measurements, metric),
        front=front,
        sides=front.sides(metric) if front else {},
        parts=tuple(by_part(measurements, list(layers), metrics)),
        missing=tuple(_missing(study, metric, tables, trials, front)),
    )


def _profiled(store: Store, record: StudyRecord) -> Iterator[Measurement]:
    """Measurements of the registered profilers, with the arrays that their tables rest on."""
    for name in PROFILERS:
        yield from store.measurements(record, name, vectors=True)


def _measured(measurements: Sequence[Measurement], metric: str) -> dict[tuple[str, str], Estimate]:
    key = Perturb.name, Perturb().settings_key
    return {
        (m.layer, m.scheme): m.values[metric]
        for m in measurements
        if (m.profiler, m.settings) == key and metric in m.values
    }


def _front(record: StudyRecord, trials: Sequence[Trial], metric: str) -> Front | None:
    usable = [
        t
        for t in trials
        if math.isfinite(t.costs.get(COST, math.nan))
        and metric in t.metrics
        and math.isfinite(t.metrics[metric].value)
    ]
    return front_of(record, usable, (COST,), (metric,)) if usable else None


def _missing(
    study: str,
    metric: str,
    tables: Sequence[Rebuilt],
    trials: Sequence[Trial],
    front: Front | None,
) -> Iterator[str]:
    if not tables:
        yield f"no sensitivities are recorded: bitfront profile {study} measures them"
    if not trials:
        yield f"no trials are recorded: bitfront search {study} measures them"
    elif front is None:
        yield f"none of the {len(trials)} trials has {COST} and evaluation {metric}"
