"""Allocations, built and measured for real: trials.

What a trial has on the calibration data decides between candidates; what it has on calibration
data held back and on the evaluation data is reported. A candidate that is only looked at has no
figures on the evaluation data.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitfront.heldout import CALIBRATION, HELD_BACK, PARTIAL, evaluated
from bitfront.pruning import Hopeless, begun, gives_up, recorded, watched
from bitfront.quant.costs import RESOURCES
from bitfront.quant.surgery import Lazily, applied
from bitfront.scheme import KEEP
from bitfront.sensitivity.taps import evaluating
from bitfront.study import Study
from bitfront.tasks.evaluation import Evaluator, Measured, increases
from bitfront.types import Estimate, Scheme, Trial


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
    costs = {name: value for name, value in costs.items() if not math.isnan(value)}
    found = study.store.find_trial(study.record, schemes)
    if found is not None and (new := _new_costs(found, costs)):
        found = study.store.set_costs(study.record, found.id, new)
    wanted: dict[str, Evaluator] = {}
    vectored = {} if found is None else study.store.trial_vectors(study.record, found.id)
    held = {name for name in vectored if name.startswith(HELD_BACK)}
    part: Measured | None = None
    if not _whole(vectored, wholes):
        judge = wanted[CALIBRATION] = study.calibration_judge_of(wholes)
        part = None if wholes else begun(vectored, judge)
        if found and part and hopeless and gives_up(part, judge.baseline, hopeless):
            return found
    if study.task.held_back and not held:
        wanted[HELD_BACK] = study.held_back_judge
    if evaluation and (found is None or not evaluated(found)):
        wanted[""] = study.judge
    if found is not None and not wanted:
        return found
    began = time.perf_counter()
    changed = {name: Scheme.parse(s) for name, s in schemes.items() if s != KEEP}
    study.builder.prepare(changed.items())
    layers = Lazily(changed, lambda name: study.builder.quantized(name, changed[name]))
    metrics: dict[str, Estimate] = {}
    vectors: dict[str, NDArray[np.float32]] = {}
    with (
        evaluating(study.task.model),
        torch.no_grad(),
        applied(study.task.model, layers),
    ):
        for prefix, evaluator in wanted.items():
            given_up = False
            if not changed:
                measured = evaluator.baseline
            elif prefix == CALIBRATION and (hopeless or part) and not wholes:
                measured, given_up = watched(evaluator, hopeless, part)
            else:
                measured = evaluator.measure()
            of_task = measured.estimates().items()
            named = PARTIAL if given_up else prefix
            metrics |= {named + n: e for n, e in of_task if n in study.task.metrics}
            if given_up:
                vectors = recorded(measured)
                break
            if prefix:
                kept = "" if prefix == CALIBRATION else prefix
                added = contributions(measured, evaluator.baseline).items()
                vectors |= {kept + name: values for name, values in added}
    seconds = time.perf_counter() - began
    known = {"predicted": float("nan"), "bound": float("nan"), **known}
    trial = Trial(
        schemes=schemes, solver=solver, costs=costs, metrics=metrics, seconds=seconds, **known
    )
    return study.store.add_trial(study.record, trial, vectors=vectors)


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


def contributions(measured: Measured, baseline: Measured) -> dict[str, NDArray[np.float32]]:
    """Metric -> (N,) what each sample adds to its worsening, which is their mean."""
    return {
        name: (values * (len(values) / measured.counts[name].sum())).astype(np.float32)
        for name, values in increases(measured, baseline).items()
    }
