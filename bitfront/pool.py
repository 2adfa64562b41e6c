"""What was measured so far, whichever budget it was measured for.

An allocation that was measured for one budget may be the best that fits another one, or a start for
it. Which of several is better is decided on the calibration data, by what the
metric is believed to be on other data (``judging``). Where a gain is within its standard error,
candidates are near-equal: then the data held back has a say, and the mean over all samples,
calibration and held back, decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bitfront.heldout import HELD_BACK
from bitfront.judging import Contributions, View, gain, view_of
from bitfront.search import fitting
from bitfront.study import Study
from bitfront.types import Problem, Trial

NEAR = 8  # candidates among which near-equal ones are looked for


@dataclass(frozen=True, eq=False)
class Looked:
    """A measured allocation. sums: what each calibration sample adds to each view; with the prefix
    ``held-back/`` each sample held back."""

    trial: Trial
    sums: Contributions

    def value(self, view: str | View) -> float:
        """The mean over calibration samples."""
        return float(_view(view).of(self.sums).mean())

    def overall(self, view: str | View) -> float:
        """The mean over all samples, those held back too."""
        view = _view(view)
        parts = [view.of(self.sums)]
        if HELD_BACK + view.metric in self.sums:
            parts.append(view.of(self.sums, HELD_BACK))
        return float(np.concatenate(parts).mean())


@dataclass(frozen=True, eq=False)
class Chosen:
    """The best of a pool for some limits.

    view: that it was chosen under. noise: whether its gain over some other one is
    within the standard error of that.
    """

    looked: Looked
    view: View
    noise: bool


class Pool:
    """Measured allocations of one study, judged by ``metric``."""

    def __init__(self, study: Study, metric: str) -> None:
        self._study, self.metric = study, metric
        self._looked: dict[int, Looked] = {}
        self._loaded = self._looked

    def beside(self) -> Pool:
        """An empty pool that does not load again what this one has loaded, then or later."""
        other = Pool(self._study, self.metric)
        other._loaded = self._loaded
        return other

    def add(self, trials: Iterable[Trial]) -> None:
        """Take in measured allocations; those not measured in full on calibration data are not."""
        for trial in trials:
            if trial.id in self._looked:
                continue
            known = self._loaded.get(trial.id)
            sums = (
                known.sums
                if known
                else self._study.store.trial_vectors(self._study.record, trial.id)
            )
            if self.metric in sums:
                self._looked[trial.id] = Looked(trial, sums)

    def __getitem__(self, trial: int) -> Looked:
        return self._looked[trial]

    def ids(self) -> list[int]:
        """Numbers of the trials, in the order in which they came in."""
        return list(self._looked)

    def possible(self, problem: Problem) -> list[Looked]:
        """Those that ``problem`` allows, within its limits or not."""
        return self._fitting(problem, limits=False)

    def within(self, problem: Problem) -> list[Looked]:
        """Those that are an answer to ``problem``."""
        return self._fitting(problem, limits=True)

    def _fitting(self, problem: Problem, limits: bool) -> list[Looked]:
        every = list(self._looked.values())
        found = fitting(problem, [at.trial.schemes for at in every], limits)
        return [at for at, fits in zip(every, found, strict=True) if fits]

    def best(self, problem: Problem) -> Chosen:
        """The best within the limits, of which there must be one."""
        return self.judged(self.within(problem))

    def judged(self, candidates: Sequence[Looked]) -> Chosen:
        """The best of ``candidates``."""
        view = self.view(candidates)
        ranked = sorted(candidates, key=lambda at: (at.value(view), at.trial.key))
        first = ranked[0]
        equal = [at for at in ranked[:NEAR] if not gain(first.sums, at.sums, view).real]
        best = min(equal, key=lambda at: (at.overall(view), at.trial.key))
        return Chosen(best, view, len(equal) > 1)

    def view(self, candidates: Sequence[Looked]) -> View:
        """What tells ``candidates`` apart best."""
        return view_of([at.sums for at in candidates], self.metric)


def _view(view: str | View) -> View:
    return View(view) if isinstance(view, str) else view


def ratio(looked: Looked, over: Looked, view: View) -> float:
    """The loss of ``looked`` over that of another one, as a positive number whatever their signs.

    Of a metric that is not positive: the exponential of the difference, in units of the latter.
    """
    value, base = looked.value(view), over.value(view)
    if value > 0 and base > 0:
        return value / base
    unit = max(abs(base), float(view.of(over.sums).std()), np.finfo(np.float64).tiny)
    return math.exp(min(max((value - base) / unit, -50.0), 50.0))
