"""Allocations, built and measured for real: trials.

What a trial has on the calibration data decides between candidates; what it has on calibration
data held back and on the evaluation data is reported. A candidate that is only looked at has no
figures on the evaluation data.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bitfront.heldout import CALIBRATION, HELD_BACK, PARTIAL, evaluated
from bitfront.pruning import Hopeless, begun, gives_up
from bitfront.quant.costs import RESOURCES
from bitfront.study import Progress, Study, silent
from bitfront.types import Trial
from bitfront.units import Look, Seen

WHAT = "measuring allocations"


@dataclass(frozen=True, eq=False)
class Asked:
    """An allocation that is to be measured: the arguments of ``measure``."""

    schemes: Mapping[str, str]
    solver: str
    costs: Mapping[str, float]
    evaluation: bool = True
    wholes: Collection[str] = ()
    hopeless: Hopeless | None = None
    known: Mapping[str, Any] = field(default_factory=dict)


def measure(
    study: Study,
    schemes: Mapping[str, str],
    solver: str,
    costs: Mapping[str, float],
    *,
    evaluation: bool = True,
    wholes: Collection[str] = (),
    hopeless: Hopeless | None = None,
    **known: Any,
) -> Trial:
    """Build an allocation and measure it on all calibration and the evaluation data, each once.

    schemes: layer -> scheme. Metrics on calibration data are recorded as ``calibration/NAME`` and
    those on data held back as ``held-back/NAME``, both with what each sample adds
    (``contributions``, the latter under that name too).
    costs: a trial that is there already gets those that it lacks, and new figures of those that
    were given from outside (``costfile``); nan are left out.
    evaluation: False leaves out the evaluation data, which a later call makes good. wholes: metrics
    of wholes that are measured on the calibration data too. known: further fields of the ``Trial``.

    hopeless: what gives up on it after a part of the calibration data (``pruning``). Then nothing
    else is measured, and its metrics on that part are recorded as ``partial/NAME``; the same call
    again finds them. A call that does not give up on it goes on from there. Not looked at with
    ``wholes``, of which there are no parts.
    """
    return measured(study, [Asked(schemes, solver, costs, evaluation, wholes, hopeless, known)])[0]


def measured(
    study: Study,
    asked: Sequence[Asked],
    progress: Progress = silent,
) -> list[Trial]:
    """``measure`` of several allocations, which the study's executor may do side by side.

    Each is recorded as soon as it is known. The numbers of trials are in no order.
    """
    trials: dict[int, Trial] = {}
    missing: dict[int, Look] = {}
    for index, one in enumerate(asked):
        found = _planned(study, one)
        if isinstance(found, Look):
            missing[index] = found
        else:
            trials[index] = found
    progress(WHAT, len(trials), len(asked))
    places = list(missing)
    for place, seen in study.executor.map(study, list(missing.values())):
        index = places[place]
        trials[index] = _recorded(study, asked[index], seen)
        progress(WHAT, len(trials), len(asked))
    return [trials[index] for index in range(len(asked))]


def _planned(study: Study, asked: Asked) -> Trial | Look:
    """The trial, if all that is wanted was measured; else what is left to be."""
    costs = _known(asked.costs)
    found = study.store.find_trial(study.record, asked.schemes)
    if found is not None and (new := _new_costs(found, costs)):
        found = study.store.set_costs(study.record, found.id, new)
    wanted: list[str] = []
    vectored = {} if found is None else study.store.trial_vectors(study.record, found.id)
    part: dict[str, Any] = {}
    if not _whole(vectored, asked.wholes):
        wanted.append(CALIBRATION)
        if not asked.wholes and any(name.startswith(PARTIAL) for name in vectored):
            judge = study.judge_of(CALIBRATION, ())
            measured = begun(vectored, judge)
            if measured is not None:
                if found and asked.hopeless and gives_up(measured, judge.baseline, asked.hopeless):
                    return found
                part = {n: values for n, values in vectored.items() if n.startswith(PARTIAL)}
    if study.task.held_back and not any(name.startswith(HELD_BACK) for name in vectored):
        wanted.append(HELD_BACK)
    if asked.evaluation and (found is None or not evaluated(found)):
        wanted.append("")
    if found is not None and not wanted:
        return found
    return Look(asked.schemes, tuple(wanted), tuple(asked.wholes), asked.hopeless, part)


def _recorded(study: Study, asked: Asked, seen: Seen) -> Trial:
    known = {"predicted": float("nan"), "bound": float("nan"), **asked.known}
    trial = Trial(
        schemes=asked.schemes, solver=asked.solver, costs=_known(asked.costs),
        metrics=seen.metrics, seconds=seen.seconds, **known,
    )  # fmt: skip
    return study.store.add_trial(study.record, trial, vectors=seen.vectors)


def _known(costs: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in costs.items() if not math.isnan(value)}


def _new_costs(trial: Trial, costs: Mapping[str, float]) -> dict[str, float]:
    return {
        name: value
        for name, value in costs.items()
        if name not in trial.costs or (name not in RESOURCES and trial.costs[name] != value)
    }


def _whole(vectors: Collection[str], wholes: Collection[str]) -> bool:
    """Whether it was measured on all calibration data."""
    judged = {name for name in vectors if not name.startswith((PARTIAL, HELD_BACK))}
    return bool(judged) and judged >= set(wholes)
