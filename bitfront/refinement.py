"""Refinement around incumbents: expand at the quantized model, correct by what is measured, go on.

Each round expands KL around the best allocation so far (``sensitivity.around``). What was measured
near it corrects that expansion (``search.surrogate``), and under what is then believed the best
moves and trust-region optima, and those of a few draws, are measured on the calibration data
(``search.proposals``). Every third round begins at the best allocation that is unlike the
incumbent, so that a search does not end in the first valley. It ends when the measurements are
spent, nothing new is proposed, or ``PATIENCE`` rounds gained nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitfront.pool import Looked, Pool, ratio
from bitfront.recording import record
from bitfront.scheme import KEEP
from bitfront.search import proposals
from bitfront.sensitivity.around import Around
from bitfront.study import Progress, Study
from bitfront.types import Problem, Scheme, Sensitivities, Trial

BATCH = 8  # measured in a round
PATIENCE = 6  # rounds
ELSEWHERE = 3  # every so many rounds begin at another incumbent
UNLIKE = 4  # one of so many layers differ in an unlike one
CLOSE = 1.5  # times the incumbent's loss, up to which an unlike one is worth it


@dataclass(frozen=True, eq=False)
class Refined:
    """measured: how many allocations were. evaluations: passes over the calibration data, forward
    and backward, that it took."""

    measured: int
    evaluations: int


def refined(
    study: Study,
    pool: Pool,
    problem: Callable[[Sensitivities], Problem],
    template: Problem,
    measure: Callable[[Mapping[str, str], float], Trial],
    allowance: int,
    progress: Progress,
    enough: Callable[[], bool] = lambda: False,
) -> Refined:
    """Adds to ``pool`` what moves from the best of it lead to, by at most ``allowance`` trials.

    problem: makes the problem of a table. template: what layers may take, within which limits; the
    pool holds an allocation within them. measure: builds an allocation and measures it on the
    calibration data; its second argument is the loss that was expected of it. enough: asked before
    each round, whether to stop.
    """
    measured = expansions = idle = 0
    locals_: dict[int, Problem] = {}
    inside = pool.within(template)
    for round_ in range(allowance):
        left = min(BATCH, allowance - measured)
        if left <= 0 or idle == PATIENCE or enough():
            break
        view = pool.view(inside)
        best = min(inside, key=lambda at: (at.value(view), at.trial.id))
        base = _unlike(inside, best, view) if round_ % ELSEWHERE == ELSEWHERE - 1 else best
        if base.trial.id not in locals_:
            around = Around(at=tuple(base.trial.schemes.items()))
            locals_[base.trial.id] = _local(study, around, base, problem, template, progress)
            expansions += around.passes
        local = locals_[base.trial.id]
        seen = {
            tuple(at.trial.schemes[name] for name in local.layers): ratio(at, base, view)
            for at in pool.possible(template)
        }
        at = [base.trial.schemes[name] for name in local.layers]
        found = proposals(local, at, seen, left, np.random.default_rng(round_))
        if not found and base is best:
            break
        for proposal in found:
            progress("refining", measured, allowance)
            expected = max(proposal.expected * base.value(pool.metric), 0.0)
            pool.add([measure({**base.trial.schemes, **proposal.allocation.schemes}, expected)])
            measured += 1
        inside = pool.within(template)
        after = min(at.value(view) for at in inside)
        idle = 0 if after < best.value(view) else idle + 1
    progress("refining", allowance, allowance)
    return Refined(measured, expansions + measured)


def _unlike(inside: Sequence[Looked], best: Looked, view: str) -> Looked:
    """The best that differs from ``best`` in many layers and is not far worse, else ``best``."""
    least = len(best.trial.schemes) / UNLIKE

    def differs(at: Looked) -> int:
        return sum(at.trial.schemes[name] != s for name, s in best.trial.schemes.items())

    others = [at for at in inside if differs(at) >= least and ratio(at, best, view) <= CLOSE]
    return min(others, key=lambda at: (at.value(view), at.trial.id), default=best)


def _local(
    study: Study,
    around: Around,
    base: Looked,
    problem: Callable[[Sensitivities], Problem],
    template: Problem,
    progress: Progress,
) -> Problem:
    """The problem whose loss is the expected change of KL by each move, over the KL there is."""
    change = problem(_expanded(study, around, template, progress))
    now = max(base.value("kl"), float(np.finfo(np.float32).tiny))
    return replace(change, loss=np.where(change.allowed, change.loss / now, 0.0))


def _expanded(study: Study, around: Around, template: Problem, progress: Progress) -> Sensitivities:
    """The local table: every allowed change that is not recorded yet is measured."""
    layers = {layer.name: layer for layer in study.task.layers}
    now = dict(around.at)
    pairs = [
        (layers[name], Scheme.parse(scheme))
        for name, row in zip(template.layers, template.allowed, strict=True)
        for scheme, allowed in zip(template.schemes, row, strict=True)
        if allowed and scheme != now.get(name, KEEP)
    ]
    recorded = study.measurements(around.name, around.settings_key)
    missing = [(la, s) for la, s in pairs if (la.name, str(s)) not in recorded]
    for m in record(study, around, missing, progress):
        recorded[m.layer, m.scheme] = m
    tables = around.tables(recorded.values(), template.layers, template.schemes)
    return tables["change"]
