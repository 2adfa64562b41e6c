"""Profiling on a growing part of the calibration data, until the allocations settle.

    part n    the first n batches: as few as hold ``FIRST_BATCHES`` or ``FIRST_SAMPLES``, then twice
              as many, and so on to all of them
    settled   when draws of the part's own samples would have changed no more than ``until`` of the
              allocation, at every budget (``instability``)
    still     when the part before gave the same allocations, but for ``until`` of each

It ends before all data are used when the allocations are settled and still. A pass goes on from the
batches of the part before. Where all data are used and it is not settled, a profiler that draws
something itself may do so more finely, ``FINER`` times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitfront.errors import InvalidInput
from bitfront.instability import Instability, instability, settled, still
from bitfront.pipeline import Choices, cost, measurable, selected, warn_of_tail
from bitfront.problems import feasible, points
from bitfront.recording import Pair, complete, of_part
from bitfront.search import require_additive
from bitfront.sensitivity import PROFILERS, Profiler
from bitfront.sensitivity.bootstrap import replicas
from bitfront.study import Progress, Study, silent
from bitfront.targeting import targeted
from bitfront.types import Budget, Layer, Measurement, Scheme, Sensitivities

UNTIL = 0.05
REPLICAS = 50
FIRST_BATCHES, FIRST_SAMPLES = 4, 32  # of the first part: whichever comes first
FINER = 2

Pairs = Sequence[tuple[Layer, Scheme]]


@dataclass(frozen=True, eq=False)
class Step:
    """A table, and how much the allocations rest on luck.

    batches, samples: of the part that it is of. profiler: with the settings it was made with.
    errors: what the bootstrap drew: ``samples`` (batches of profilers that record no more), or
    normal ``errors`` of known size; ``unknown`` where there is nothing to go by.
    """

    batches: int
    samples: int
    profiler: Profiler
    errors: str
    points: tuple[Instability, ...]


@dataclass(frozen=True, eq=False)
class Settled:
    """What profiling came to. tables: as ``profile`` gives them, of the last of ``steps``.

    batches: how many there are in all; a part's measurements are recorded apart.
    """

    tables: dict[str, Sensitivities]
    until: float
    steps: tuple[Step, ...]
    batches: int

    @property
    def last(self) -> Step:
        """The step that the tables are of."""
        return self.steps[-1]

    @property
    def reached(self) -> bool:
        """Whether draws change at most ``until`` of the allocation, at every budget."""
        return settled(self.last.points, self.until)


def check_additive(solver: str) -> None:
    """Refuse one that needs interactions (``InvalidInput``): draws of tables have none."""
    require_additive(
        solver,
        "on draws of tables, which have no interactions",
        "settle with another, like ilp, then search",
    )


def check_measures(profiler: Profiler) -> None:
    """Refuse one that only has what is recorded (``InvalidInput``)."""
    if not profiler.measures:
        raise InvalidInput(
            f"settling {profiler.name} scores, of which no more can be measured",
            "profile with another profiler, or without a share to settle at",
        )


def profile_until(
    study: Study,
    schemes: str | Iterable[str | Scheme],
    budgets: Sequence[str | Budget],
    profiler: str | Profiler = "fisher",
    *,
    until: float = UNTIL,
    solver: str = "ilp",
    choices: Choices | None = None,
    progress: Progress = silent,
) -> Settled:
    """Profile on as much of the calibration data as the allocations within ``budgets`` need.

    until: the share of the weights whose scheme may change under the bootstrap (``instability``).
    solver, choices: as in ``search``; layers that ``choices`` keeps out are not profiled. The same
    call goes on where it was stopped, and repeats nothing. Numbers on all data are those of
    ``profile``, which uses them; it goes on with a pass that was stopped early.

    It ends also where all data are used: see ``Settled.reached``. Before anything is profiled,
    raises ``Infeasible`` for a point that cannot be met and ``InvalidInput`` for ``until``, for
    imported scores and for a solver that needs interactions; then what ``profile`` does, and what
    the solver does.
    """
    if not 0 <= until < 1:
        raise InvalidInput(f"until {until}", "give a share of the weights from 0 to 1, like 0.05")
    check_additive(solver)
    chosen = PROFILERS[profiler]() if isinstance(profiler, str) else profiler
    check_measures(chosen)
    wanted, choices = targeted(study, schemes, choices or Choices(), progress)
    sweep, selection = points(budgets), selected(study, choices)
    costs = cost(study, wanted, choices, budgets)
    for point in sweep:
        feasible(costs, point, groups=selection.groups, pins=selection.pins, solver=solver)
    measured, pairs = measurable(study, wanted, selection.layers)
    names = list(selection.names), [str(s) for s in measured]
    steps: list[Step] = []
    for batches, used, found in _growing(study, chosen, pairs, progress):
        tables = used.tables(found.values(), *names)
        name, table = next(iter(tables.items()))
        rng = np.random.default_rng(0)
        draws, errors = replicas(used, found.values(), name, table, REPLICAS, rng)
        of_points: list[Instability] = []
        for i, point in enumerate(sweep):
            grown = steps and steps[-1].batches < batches
            before = steps[-1].points[i] if grown else None
            of_points.append(instability(table, draws, costs, selection, point, solver, before))
            progress("allocating under the bootstrap", i + 1, len(sweep))
        samples = sum(batch.samples for batch in study.subject.part(range(batches)).batches)
        steps.append(Step(batches, samples, used, errors, tuple(of_points)))
        whole = batches == len(study.task.calibration)
        if settled(of_points, until) and (whole or still(of_points, until)):
            break
    warn_of_tail(table)
    return Settled(tables, until, tuple(steps), len(study.task.calibration))


def _growing(
    study: Study, profiler: Profiler, pairs: Pairs, progress: Progress
) -> Iterator[tuple[int, Profiler, Mapping[Pair, Measurement]]]:
    """Number of batches, profiler, and what it measured on them, until the data and all else end.

    Where all data were used before, only those parts come first that were too.
    """
    every, (begin, end) = len(study.task.calibration), (0, _first(study))
    whole = _missing(study, profiler, pairs)
    parts: list[dict[Pair, Measurement]] = []
    while end < every:
        used = range(0 if profiler.one_pass else begin, end)
        if not whole and _missing(study, profiler, pairs, used):
            break
        parts.append(complete(study, profiler, pairs, progress, used))
        yield end, profiler, parts[-1] if profiler.one_pass else _joined(profiler, parts)
        begin, end = end, 2 * end
    if whole and parts and not profiler.one_pass:
        parts.append(complete(study, profiler, whole, progress, range(begin, every)))
        study.store.add_measurements(study.record, _joined(profiler, parts).values())
    yield every, profiler, complete(study, profiler, pairs, progress)
    for _ in range(FINER):
        finer = profiler.finer()
        if finer is None:
            return
        profiler = finer
        yield every, profiler, complete(study, profiler, pairs, progress)


def _missing(study: Study, profiler: Profiler, pairs: Pairs, used: range | None = None) -> Pairs:
    """Those of ``pairs`` that are not recorded on these batches."""
    found = study.measurements(of_part(profiler, used), profiler.settings_key)
    return [(la, s) for la, s in pairs if (la.name, str(s)) not in found]


def _joined(
    profiler: Profiler, parts: Sequence[Mapping[Pair, Measurement]]
) -> dict[Pair, Measurement]:
    """One measurement of each pair that all ``parts`` have, under the profiler's own name."""
    return {
        pair: replace(profiler.joined([part[pair] for part in parts]), profiler=profiler.name)
        for pair in parts[-1]
        if all(pair in part for part in parts)
    }


def _first(study: Study) -> int:
    """How many batches the first part has."""
    samples = 0
    for index, batch in enumerate(study.subject.batches, 1):
        samples += batch.samples
        if index == FIRST_BATCHES or samples >= FIRST_SAMPLES:
            return index
    return len(study.subject.batches)
