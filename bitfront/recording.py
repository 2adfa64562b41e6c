"""Running a profiler so that nothing measured is lost: each unit is committed when it is known.

What was measured on a part of the calibration data is recorded under another name than what was
measured on all of it (``of_part``), so that nobody takes the one for the other. The batches of a
pass are the same in both: a pass over a part leaves its checkpoints to whoever passes over more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from bitfront.sensitivity import Profiler
from bitfront.study import Progress, Study
from bitfront.types import Layer, Measurement, Scheme, content_key
from bitfront.units import Pairs, Step


class StoredCheckpoints:
    """Finished batches of one pass, in the study's database."""

    def __init__(self, study: Study, key: str, progress: Progress, what: str, batches: int) -> None:
        self._study, self._key, self._progress, self._what = study, key, progress, what
        self._batches = batches  # of the pass
        self._found: dict[int, dict[str, NDArray[Any]]] | None = None

    def load(self) -> dict[int, dict[str, NDArray[Any]]]:
        """What is recorded, read once, with what was saved since."""
        if self._found is None:
            self._found = self._study.store.checkpoints(self._study.record, self._key)
        return self._found

    def save(self, index: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._study.store.add_checkpoint(self._study.record, self._key, index, arrays)
        found = self.load()
        found[index] = dict(arrays)
        self._progress(self._what, len(found), self._batches)


Pair = tuple[str, str]  # layer, scheme


def of_part(profiler: Profiler, used: range | None) -> str:
    """The name under which measurements on some of the calibration batches are recorded.

    ``fisher/0-8`` for batches 0 to 7; the profiler's own for all of them (None).
    """
    return profiler.name if used is None else f"{profiler.name}/{used.start}-{used.stop}"


def complete(
    study: Study,
    profiler: Profiler,
    pairs: Sequence[tuple[Layer, Scheme]],
    progress: Progress,
    used: range | None = None,
) -> dict[Pair, Measurement]:
    """What is recorded of the profiler, with its vectors, once missing ``pairs`` are measured.

    used: on these of the calibration batches; None for all.
    """
    name = of_part(profiler, used)
    found = study.measurements(name, profiler.settings_key, vectors=True)
    missing = [(la, s) for la, s in pairs if (la.name, str(s)) not in found]
    for m in record(study, profiler, missing, progress, used):
        found[m.layer, m.scheme] = m
    return found


def record(
    study: Study,
    profiler: Profiler,
    pairs: Sequence[tuple[Layer, Scheme]],
    progress: Progress,
    used: range | None = None,
) -> list[Measurement]:
    """Measure and record ``pairs``; a pass that was interrupted goes on after its last batch.

    used: the calibration batches to measure on (``of_part``); None for all. Those of a profiler
    that is one pass begin with the first.
    """
    if not pairs:
        return []
    named = [[layer.name, str(scheme)] for layer, scheme in pairs]
    key = content_key([profiler.settings_key, named])
    what = f"profiling ({profiler.name})"
    subject = study.subject_of(used)
    batches = len(subject.batches)
    progress(what, 0, batches if profiler.one_pass else len(pairs))
    found: list[Measurement] = []
    checkpoints = StoredCheckpoints(study, key, progress, what, batches)
    if study.executor.workers > 1:
        if not profiler.one_pass:
            return _side_by_side(study, profiler, pairs, progress, used, what)
        _steps(study, profiler, pairs, used, checkpoints)
    for part in profiler.measure(subject, pairs, checkpoints):
        renamed = [replace(m, profiler=of_part(profiler, used)) for m in part]
        if profiler.one_pass and used is None:
            study.store.finish_pass(study.record, key, renamed)
        else:
            study.store.add_measurements(study.record, renamed)
        found += renamed
        if not profiler.one_pass:
            progress(what, len(found), len(pairs))
    return found


def _steps(
    study: Study,
    profiler: Profiler,
    pairs: Sequence[tuple[Layer, Scheme]],
    used: range | None,
    checkpoints: StoredCheckpoints,
) -> None:
    """Have the batches of a pass done that are not yet."""
    done = checkpoints.load()
    batches = len(study.subject_of(used).batches)
    steps = [Step(profiler, tuple(pairs), used, i) for i in range(batches) if i not in done]
    for place, arrays in study.executor.map(study, steps):
        checkpoints.save(steps[place].index, arrays)


def _side_by_side(
    study: Study,
    profiler: Profiler,
    pairs: Sequence[tuple[Layer, Scheme]],
    progress: Progress,
    used: range | None,
    what: str,
) -> list[Measurement]:
    """Have pairs measured, a unit being those of one layer; recorded as they become known."""
    by_layer: dict[str, list[tuple[Layer, Scheme]]] = defaultdict(list)
    for layer, scheme in pairs:
        by_layer[layer.name].append((layer, scheme))
    units = [Pairs(profiler, tuple(some), used) for some in by_layer.values()]
    found: list[Measurement] = []
    for _, part in study.executor.map(study, units):
        renamed = [replace(m, profiler=of_part(profiler, used)) for m in part]
        study.store.add_measurements(study.record, renamed)
        found += renamed
        progress(what, len(found), len(pairs))
    return found
