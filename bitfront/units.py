"""The units of long work: small, without a database, the same wherever they are done.

A unit says what is to be measured, and ``do`` measures it on a workbench: in this process, or in
another one that has a workbench of the same task. Results are plain values and numpy arrays. What
a unit gives does not depend on which others were done before it, or where.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bitfront.heldout import CALIBRATION, PARTIAL
from bitfront.pruning import Hopeless, begun, recorded, watched
from bitfront.quant.surgery import Lazily, applied
from bitfront.scheme import KEEP
from bitfront.sensitivity import NoCheckpoints, Profiler
from bitfront.sensitivity.base import Pair
from bitfront.sensitivity.taps import evaluating
from bitfront.tasks.evaluation import Evaluator, Measured, increases
from bitfront.types import Estimate, Measurement, Scheme
from bitfront.workbench import Workbench

Arrays = dict[str, NDArray[Any]]


class Unit(Protocol):
    """What an executor does."""

    def do(self, bench: Workbench) -> Any:
        """The result. Raises what measuring raises."""


@dataclass(frozen=True)
class Pairs:
    """Some pairs of a profiler that measures each by itself. used: as of ``Subject``."""

    profiler: Profiler
    pairs: tuple[Pair, ...]
    used: range | None

    def do(self, bench: Workbench) -> list[Measurement]:
        subject = bench.subject_of(self.used)
        parts = self.profiler.measure(subject, self.pairs, NoCheckpoints())
        return [m for part in parts for m in part]


@dataclass(frozen=True)
class Step:
    """One batch of a profiler's pass over the calibration data: what its checkpoint holds."""

    profiler: Profiler
    pairs: tuple[Pair, ...]
    used: range | None
    index: int

    def do(self, bench: Workbench) -> Arrays:
        subject = bench.subject_of(self.used)
        alone = _Alone(self.index, len(subject.batches))
        try:
            for _ in self.profiler.measure(subject, self.pairs, alone):
                break
        except _Saved as saved:
            return saved.arrays
        raise AssertionError(f"{self.profiler.name} made no checkpoint of batch {self.index}")


class _Saved(BaseException):  # no profiler may take it for an error of the model
    """The batch that was wanted is done; the rest of the pass is not needed."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        super().__init__()
        self.arrays = dict(arrays)


class _Alone:
    """Checkpoints of a pass of which all batches but one are done."""

    def __init__(self, index: int, batches: int) -> None:
        self._others = {i: Arrays() for i in range(batches) if i != index}

    def load(self) -> dict[int, Arrays]:
        return self._others

    def save(self, index: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        del index
        raise _Saved(arrays)


@dataclass(frozen=True, eq=False)
class Seen:
    """What was measured of an allocation: metrics and arrays under the names of a trial's."""

    metrics: dict[str, Estimate]
    vectors: dict[str, NDArray[np.float32]]
    seconds: float


@dataclass(frozen=True, eq=False)
class Look:
    """An allocation, built and measured on some of the data.

    schemes: layer -> scheme. wanted: ``CALIBRATION``, ``HELD_BACK``, or empty for the evaluation
    data, in that order. wholes, hopeless: as of ``measuring.measure``. part: arrays of what was
    measured of it on some of the calibration batches before (``pruning.recorded``).
    """

    schemes: Mapping[str, str]
    wanted: tuple[str, ...]
    wholes: Collection[str] = ()
    hopeless: Hopeless | None = None
    part: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def do(self, bench: Workbench) -> Seen:
        changed = {name: Scheme.parse(s) for name, s in self.schemes.items() if s != KEEP}
        judges = {prefix: bench.judge_of(prefix, self.wholes) for prefix in self.wanted}
        began = time.perf_counter()
        bench.builder.prepare(changed.items())
        layers = Lazily(changed, lambda name: bench.builder.quantized(name, changed[name]))
        metrics: dict[str, Estimate] = {}
        vectors: dict[str, NDArray[np.float32]] = {}
        with evaluating(bench.task.model), torch.no_grad(), applied(bench.task.model, layers):
            for prefix, judge in judges.items():
                measured, given_up = self._measured(prefix, judge, bool(changed))
                named = PARTIAL if given_up else prefix
                of_task = measured.estimates().items()
                metrics |= {named + n: e for n, e in of_task if n in bench.task.metrics}
                if given_up:
                    vectors = recorded(measured)
                    break
                if prefix:
                    kept = "" if prefix == CALIBRATION else prefix
                    added = contributions(measured, judge.baseline).items()
                    vectors |= {kept + name: values for name, values in added}
        return Seen(metrics, vectors, time.perf_counter() - began)

    def _measured(self, prefix: str, judge: Evaluator, changed: bool) -> tuple[Measured, bool]:
        """And whether it was given up."""
        if not changed:
            return judge.baseline, False
        if prefix == CALIBRATION and (self.hopeless or self.part) and not self.wholes:
            return watched(judge, self.hopeless, begun(self.part, judge))
        return judge.measure(), False


def contributions(measured: Measured, baseline: Measured) -> dict[str, NDArray[np.float32]]:
    """Metric -> (N,) what each sample adds to its worsening, which is their mean."""
    return {
        name: (values * (len(values) / measured.counts[name].sum())).astype(np.float32)
        for name, values in increases(measured, baseline).items()
    }
