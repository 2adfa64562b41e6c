"""Refinement around the incumbent: expand at the quantized model, measure moves, keep what helps.

Each round expands KL around the best allocation so far (``sensitivity.around``), which gives a
local problem; measures its best moves on the calibration data, those of one and two groups and the
best within a few groups, and then all that helped together. The best takes the incumbent's place if
what it gains is above the standard error of the paired differences. It ends when nothing gains, the
local problem proposes nothing new, or the measurements are spent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bitfront.judging import Contributions, gain, trusted
from bitfront.recording import record
from bitfront.scheme import KEEP
from bitfront.search import combined, near, within
from bitfront.sensitivity.around import Around
from bitfront.study import Progress, Study
from bitfront.tasks.views import views_of
from bitfront.types import Allocation, Problem, Scheme, Sensitivities, Trial

PROPOSALS = 8  # measured in a round
RADII = (4, 8)  # groups that the best local allocations may change


@dataclass(frozen=True, eq=False)
class Refined:
    """trial: the best, measured on the calibration data. measured: how many allocations were.

    evaluations: passes over the calibration data, forward and backward, that it took.
    """

    trial: Trial
    measured: int
    evaluations: int


def refined(
    study: Study,
    start: Trial,
    problem: Callable[[Sensitivities], Problem],
    template: Problem,
    metric: str,
    measure: Callable[[Mapping[str, str]], Trial],
    allowance: int,
    progress: Progress,
) -> Refined:
    """The allocation that moves from ``start`` lead to, by at most ``allowance`` measurements.

    problem: makes the problem of a table. template: what layers may take. metric: of the task,
    judged on the calibration data. measure: builds an allocation and measures it there.
    """
    incumbent, sums = start, _contributions(study, start)
    views = views_of(metric, list(sums))
    view = views[0]
    seen = {tuple(start.schemes[name] for name in template.layers)}
    expansions = 0

    def look(allocation: Allocation) -> tuple[Trial, Contributions]:
        progress("refining", len(seen) - 1, allowance)
        trial = measure({**incumbent.schemes, **allocation.schemes})
        seen.add(allocation.choice)
        return trial, _contributions(study, trial)

    while (left := allowance - len(seen) + 1) > 0:
        around = Around(at=tuple(incumbent.schemes.items()))
        local = problem(_expanded(study, around, template, progress))
        expansions += 2 + around.draws  # one forward, one backward for each order's probes
        at = [incumbent.schemes[name] for name in local.layers]
        proposals = _proposals(local, at, seen)[:left]
        if not proposals:
            break
        tried = [look(proposal) for proposal in proposals]
        view = trusted([sums, *(found for _, found in tried)], views) or view
        gains = [gain(found, sums, view) for _, found in tried]
        order = sorted(range(len(tried)), key=lambda i: -gains[i].value)
        helped = [proposals[i] for i in order if gains[i].value > 0]
        together = combined(local, at, helped)
        if together is not None and together.choice not in seen and len(tried) < left:
            tried.append(look(together))
            gains.append(gain(tried[-1][1], sums, view))
        best = max(range(len(tried)), key=lambda i: gains[i].value)
        if not gains[best].real:
            break
        incumbent, sums = tried[best]
    progress("refining", allowance, allowance)
    measured = len(seen) - 1
    return Refined(incumbent, measured, expansions + measured)


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


def _proposals(local: Problem, at: Sequence[str], seen: set[tuple[str, ...]]) -> list[Allocation]:
    """What the local problem says is better, of what was not measured yet."""
    wide = [within(local, at, radius) for radius in RADII]
    found = [a for a in wide if a.loss < 0] + near(local, at, PROPOSALS + len(seen))
    new = {a.choice: a for a in found if a.choice not in seen}
    return list(new.values())[:PROPOSALS]


def _contributions(study: Study, trial: Trial) -> Contributions:
    return study.store.trial_vectors(study.record, trial.id)
