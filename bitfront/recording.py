"""Running a profiler so that nothing measured is lost: each unit is committed when it is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from bitfront.sensitivity import Profiler
from bitfront.study import Progress, Study
from bitfront.types import Layer, Measurement, Scheme, content_key


class StoredCheckpoints:
    """Finished batches of one pass, in the study's database."""

    def __init__(self, study: Study, key: str, progress: Progress, what: str) -> None:
        self._study, self._key, self._progress, self._what = study, key, progress, what
        self._done = 0

    def load(self) -> dict[int, dict[str, NDArray[Any]]]:
        found = self._study.store.checkpoints(self._study.record, self._key)
        self._done = len(found)
        return found

    def save(self, index: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._study.store.add_checkpoint(self._study.record, self._key, index, arrays)
        self._done += 1
        self._progress(self._what, self._done, len(self._study.task.calibration))


def record(
    study: Study,
    profiler: Profiler,
    pairs: Sequence[tuple[Layer, Scheme]],
    progress: Progress,
) -> list[Measurement]:
    """Measure and record ``pairs``; a pass that was interrupted goes on after its last batch."""
    if not pairs:
        return []
    named = [[layer.name, str(scheme)] for layer, scheme in pairs]
    key = content_key([profiler.settings_key, named])
    what = f"profiling ({profiler.name})"
    progress(what, 0, len(study.task.calibration) if profiler.one_pass else len(pairs))
    found: list[Measurement] = []
    for part in profiler.measure(
        study.subject, pairs, StoredCheckpoints(study, key, progress, what)
    ):
        if profiler.one_pass:
            study.store.finish_pass(study.record, key, part)
        else:
            study.store.add_measurements(study.record, part)
            progress(what, len(found) + len(part), len(pairs))
        found += part
    return found
