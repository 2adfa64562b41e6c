"""Questions to a database that need no model: studies, their trials, their Pareto fronts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import InvalidInput, UnknownName
from bitfront.heldout import Sides, bare, sides
from bitfront.ranking import inside_noise
from bitfront.storage import Store, StudyRecord, StudySummary
from bitfront.storage import front as non_dominated
from bitfront.storage import knee as knee_of
from bitfront.storage.firsts import first_values
from bitfront.storage.pages import some_trials
from bitfront.trialcolumns import OfStudy, OfTrials, TrialColumns
from bitfront.types import Estimate, Layer, Trial
from bitfront.within import those_within


@dataclass(frozen=True, eq=False)
class Front:
    """Trials of a study that have the asked figures within the asked limits, and which of them no
    other dominates: all of them, or those alone (``front_in``).

    costs, metrics: the objectives. points: (trials, costs and metrics), as measured. senses:
    ``min`` or ``max`` of each objective. best: indices of the non-dominated ``trials``, by rising
    first objective. within: the limits, as they were spelled. knee: which of ``best``, if
    any, is the knee of a front of two objectives (``storage.knee``).
    """

    study: StudyRecord
    costs: tuple[str, ...]
    metrics: tuple[str, ...]
    senses: tuple[str, ...]
    points: np.ndarray
    trials: tuple[Trial, ...]
    best: tuple[int, ...]
    within: tuple[str, ...] = ()
    knee: int | None = None

    @property
    def knee_id(self) -> int | None:
        """Number of the trial at the knee."""
        return None if self.knee is None else self.trials[self.knee].id

    def listed(self, everything: bool = False) -> list[int]:
        """Indices of the non-dominated trials; everything: of all, by rising objectives."""
        if not everything:
            return list(self.best)
        return sorted(range(len(self.trials)), key=lambda i: tuple(self.points[i]))

    def sides(self, metric: str) -> dict[int, Sides]:
        """Number of each non-dominated trial -> ``metric`` of it on each kind of data."""
        better = better_of(self.study.settings, metric)
        found = (self.trials[i] for i in self.best)
        return {trial.id: sides(trial, metric, better) for trial in found}


def studies(db: str | Path | None = None) -> list[StudySummary]:
    """All studies of a database, oldest first."""
    with Store.open(db) as store:
        return store.studies()


def front(
    study: str,
    costs: Sequence[str] = ("bytes",),
    metrics: Sequence[str] = ("kl",),
    db: str | Path | None = None,
    *,
    within: Sequence[str] = (),
) -> Front:
    """The Pareto front of a study's trials under the chosen costs and metrics.

    Only trials within all of ``within`` are looked at: budgets, like ``700MB``, and bounds on costs
    and metrics, like ``kl<=0.1`` (``bitfront.within``). Raises ``UnknownName`` for a study, and for
    a cost or metric that no trial has, and ``InvalidInput`` when the study has no trials yet, or
    none within the limits, and for a limit that cannot be read.
    """
    with Store.open(db) as store:
        record = store.study(study)
        trials = store.trials(record)
    return front_of(record, trials, costs, metrics, within)


def front_of(
    record: StudyRecord,
    trials: Sequence[Trial],
    costs: Sequence[str],
    metrics: Sequence[str],
    within: Sequence[str] = (),
) -> Front:
    """``front`` of trials that are at hand."""

    def given(places: NDArray[np.int64]) -> list[Trial]:
        return [trials[i] for i in places.tolist()]

    return _front(OfTrials(record, trials), costs, metrics, within, True, given)


def front_in(
    store: Store,
    study: str,
    objectives: Sequence[str],
    within: Sequence[str] = (),
    everything: bool = False,
) -> Front:
    """``front`` in a database that is open, of objectives that are costs where trials have these.

    Its trials are those on the front; everything: those that they dominate too.
    """
    columns = OfStudy(store, store.study(study))
    distinct = tuple(dict.fromkeys(objectives))
    costs = [name for name in distinct if name in columns.costs]
    metrics = [name for name in distinct if name not in columns.costs]

    def read(places: NDArray[np.int64]) -> list[Trial]:
        ids = columns.ids[places].tolist()
        return some_trials(store, ids) if everything else store.held_trials(columns.record, ids)

    return _front(columns, costs, metrics, within, everything, read)


def _front(
    columns: TrialColumns,
    costs: Sequence[str],
    metrics: Sequence[str],
    limits: Sequence[str],
    everything: bool,
    trials: Callable[[NDArray[np.int64]], list[Trial]],
) -> Front:
    """The front of trials of which there are columns. trials: those at these places."""
    record = columns.record
    if not len(columns.ids):
        raise InvalidInput(f"study {record.name!r} has no trials yet", "run a search first")
    if not costs and not metrics:
        raise InvalidInput("a front without objectives", "name at least one cost or metric")
    _require("cost", costs, columns.costs)
    _require("metric", metrics, columns.metrics)
    left = those_within(columns, limits)
    if not left.any():
        raise InvalidInput(
            f"none of {len(left)} trials is within {' and '.join(limits)}",
            "loosen a limit, or search for more trials",
        )
    figures = columns.figures(costs, metrics)
    known = np.flatnonzero(left & ~np.isnan(figures).any(axis=0))
    if not len(known):
        raise InvalidInput("no trial has all of these figures", "ask for fewer")
    points = np.stack([figure[known] for figure in figures], axis=1)
    senses = ["min"] * len(costs) + [_sense(record.settings, name) for name in metrics]
    best = non_dominated(points, senses)
    best = best[np.lexsort(points[best].T[::-1])]
    if not everything:
        known, points, best = known[best], points[best], np.arange(len(best))
    return Front(
        study=record,
        costs=tuple(costs),
        metrics=tuple(metrics),
        senses=tuple(senses),
        points=points,
        trials=tuple(trials(known)),
        best=tuple(best.tolist()),
        within=tuple(limits),
        knee=knee_of(points, senses) if points.shape[1] == 2 else None,
    )


@dataclass(frozen=True, eq=False)
class LayerLine:
    """One layer of a trial: what it became, what it costs, what was measured of it.

    bytes, full_bytes: as the study's container stores it, and in full precision; nan where the
    study does not say what the layer is. measured: one-at-a-time worsening of the metric, if
    known; estimated: the profiler's. inside_noise: whether another layer's estimate under the same
    scheme, next to this one in rank, is within their joint standard error (``ranking``).
    """

    name: str
    scheme: str
    layer: Layer | None
    bytes: float
    full_bytes: float
    measured: Estimate | None
    estimated: Estimate | None
    inside_noise: bool


@dataclass(frozen=True, eq=False)
class Shown:
    """A trial with its layers. sides: every metric of it on each kind of data."""

    study: StudyRecord
    trial: Trial
    metric: str
    lines: tuple[LayerLine, ...]
    sides: Mapping[str, Sides]


def show(study: str, trial: int, metric: str = "kl", db: str | Path | None = None) -> Shown:
    """Everything that is recorded of a trial. Raises ``UnknownName``."""
    with Store.open(db) as store:
        return show_in(store, study, trial, metric)


def check_metric(study: StudyRecord, metric: str) -> None:
    """Raises ``UnknownName`` for a metric that the study's task does not have."""
    known = study.settings.get("metrics", {})
    if known and metric not in known:
        raise UnknownName(f"no metric {metric!r} in {study.name!r}", f"it has {', '.join(known)}")


def show_in(store: Store, study: str, trial: int, metric: str = "kl") -> Shown:
    """``show`` of a database that is open; a metric that the study does not have is refused."""
    record = store.study(study)
    found = store.trial(record, trial)
    check_metric(record, metric)
    schemes = set(found.schemes.values())
    measured = first_values(store, record, "perturb", metric, schemes)
    estimated = first_values(store, record, *_source(found.settings), schemes)
    doubtful = _doubtful(estimated)
    layers = record.layers
    container = found.settings.get("container") or record.settings.get("container")
    lines = []
    for name, scheme in found.schemes.items():
        layer = layers.get(name)
        lines.append(
            LayerLine(
                name,
                scheme,
                layer,
                _bytes(layer, scheme, container),
                _bytes(layer, "keep", container),
                measured.get((name, scheme)),
                estimated.get((name, scheme)),
                (name, scheme) in doubtful,
            )
        )
    names = dict.fromkeys(map(bare, found.metrics))
    both = {name: sides(found, name, better_of(record.settings, name)) for name in names}
    return Shown(record, found, metric, tuple(lines), both)


def _bytes(layer: Layer | None, scheme: str, container: str | None) -> float:
    if layer is None or container is None:
        return float("nan")
    from bitfront.quant.costs import layer_costs
    from bitfront.quant.stored import STORED
    from bitfront.types import Scheme

    return layer_costs(layer, Scheme.parse(scheme), STORED[container])["bytes"]


def _doubtful(estimated: Mapping[tuple[str, str], Estimate]) -> set[tuple[str, str]]:
    """(layer, scheme) of every estimate whose rank among the layers is inside the noise."""
    columns: dict[str, dict[str, Estimate]] = defaultdict(dict)
    for (layer, scheme), estimate in estimated.items():
        columns[scheme][layer] = estimate
    return {
        (layer, scheme)
        for scheme, column in columns.items()
        for layer, marked in zip(
            column,
            inside_noise([e.value for e in column.values()], [e.stderr for e in column.values()]),
            strict=True,
        )
        if marked
    }


def _source(settings: Mapping[str, Any]) -> tuple[str, str]:
    """Profiler and table that a trial was chosen by."""
    return str(settings.get("profiler", "")), str(settings.get("estimates", ""))


def _sense(settings: Mapping[str, Any], metric: str) -> str:
    return "max" if better_of(settings, metric) == "higher" else "min"


def better_of(settings: Mapping[str, Any], metric: str) -> str:
    """Which way a recorded metric is, on whatever data: ``lower`` or ``higher``."""
    known = settings.get("metrics", {}).get(bare(metric), {})
    return "higher" if known.get("better") == "higher" else "lower"


def require_figures(trials: Sequence[Trial], costs: Sequence[str], metrics: Sequence[str]) -> None:
    """Raises ``UnknownName`` for the first cost or metric that none of the trials has."""
    _require("cost", costs, {name for t in trials for name in t.costs})
    _require("metric", metrics, {name for t in trials for name in t.metrics})


def _require(kind: str, asked: Iterable[str], there: Collection[str]) -> None:
    for name in asked:
        if name not in there:
            known = ", ".join(sorted(there)) or "none"
            raise UnknownName(f"no trial has the {kind} {name!r}", f"there are {known}")
