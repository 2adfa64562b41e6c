"""Refinement around incumbents: expand at the quantized model, correct by what is measured, go on.

Each round expands KL around the best allocation so far (``sensitivity.around``). What was measured
near it corrects that expansion (``search.surrogate``), and under what is then believed the best
moves and trust-region optima, and those of many draws, are proposed (``search.proposals``). Who
proposes promises too much: what is measured on the calibration data are those of which the least
loss is expected by all that was measured (``recalibration``). Every third round begins at the best
allocation that is unlike the incumbent, so that a search does not end in the first valley. When
``PATIENCE`` rounds gained nothing the valley is left: from then on the incumbent is the best unlike
all that were left. It ends when the measurements are spent, or no valley is worth it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitfront.judging import View
from bitfront.pool import Looked, Pool, ratio
from bitfront.recording import record
from bitfront.scheme import KEEP
from bitfront.search import proposals
from bitfront.sensitivity.around import Around
from bitfront.study import Progress, Study
from bitfront.types import Problem, Scheme, Sensitivities, Trial

BATCH = 8  # measured in a round
WIDE = 4  # proposed for each that is measured
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
    measure: Callable[[Sequence[Mapping[str, str]], Progress], list[Trial]],
    expected: Callable[[Mapping[str, str]], float],
    allowance: int,
    progress: Progress,
    enough: Callable[[], bool] = lambda: False,
) -> Refined:
    """Adds to ``pool`` what moves from the best of it lead to, by at most ``allowance`` trials.

    problem: makes the problem of a table. template: what layers may take, within which limits; the
    pool holds an allocation within them. measure: builds allocations and measures them on the
    calibration data. expected: its loss there, by what was measured of any (``recalibration``).
    enough: asked before each round, whether to stop.
    """
    measured = expansions = idle = 0
    locals_: dict[int, Problem] = {}
    left: list[Looked] = []  # the best of each valley that was left
    inside = pool.within(template)
    for round_ in range(allowance):
        count = min(BATCH, allowance - measured)
        view = pool.view(inside)
        best = _unlike(inside, left, view)
        if count <= 0 or best is None or enough():
            break
        elsewhere = round_ % ELSEWHERE == ELSEWHERE - 1
        base = (_unlike(inside, [*left, best], view) if elsewhere else None) or best
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
        found = [
            {**base.trial.schemes, **proposal.schemes}
            for proposal in proposals(local, at, seen, WIDE * count, np.random.default_rng(round_))
        ]
        chosen = sorted(found, key=expected)[:count]
        pool.add(measure(chosen, _counting(progress, measured, allowance)))
        measured += len(chosen)
        inside = pool.within(template)
        after = _unlike(inside, left, view)
        idle = 0 if after and after.value(view) < best.value(view) else idle + 1
        if idle == PATIENCE or (not found and base is best):
            left.append(best)
            idle = 0
    progress("refining", allowance, allowance)
    return Refined(measured, expansions + measured)


def _counting(progress: Progress, measured: int, allowance: int) -> Progress:
    """The progress of a round, as that of all."""

    def show(what: str, done: int, total: int) -> None:
        del what, total
        progress("refining", measured + done, allowance)

    return show


def _unlike(inside: Sequence[Looked], others: Sequence[Looked], view: View) -> Looked | None:
    """The best that differs from each of ``others`` in many layers and is not far worse than the
    best of all; None where there is none."""

    def order(at: Looked) -> tuple[float, str]:
        return at.value(view), at.trial.key

    def differs(at: Looked, other: Looked) -> bool:
        changed = sum(at.trial.schemes[name] != s for name, s in other.trial.schemes.items())
        return changed >= len(other.trial.schemes) / UNLIKE

    first = min(inside, key=order)
    apart = [at for at in inside if all(differs(at, other) for other in others)]
    close = [at for at in apart if ratio(at, first, view) <= CLOSE]
    return min(close, key=order, default=None)


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
