"""A sweep's answers once more, with the whole front in view.

An allocation that was measured for one budget may be better for another than what was found for
that, or lead to what is: a search from elsewhere, or one that had more measurements. So a sweep
goes through its points in passes. The first answers each one with ``first_share`` of its
measurements, knowing what earlier points measured. Later ones go on, at each point, from the best
of all that was measured for any. They end when one moved nothing on the front by more than its
standard error, or the measurements are spent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from bitfront.answering import Answer, Point
from bitfront.judging import gain
from bitfront.pool import Pool
from bitfront.refinement import BATCH
from bitfront.study import Progress
from bitfront.types import Budget, Problem

AGAIN = 4  # a later pass has one of so many measurements of a point, or a batch

Posed = Callable[[Sequence[Budget]], Problem]
"""Makes the problem of budgets, whose losses do not matter."""


def first_share(explore: int, points: int) -> int:
    """How many of the ``explore`` measurements of a point the first pass has."""
    return explore if points == 1 else (explore + 1) // 2


def passed(
    pool: Pool,
    points: Sequence[Point],
    answers: Sequence[Answer],
    problem: Posed,
    explore: int,
    progress: Progress,
) -> list[Answer]:
    """``answers`` of the first pass, after all later ones.

    pool: all that was measured for any point; what is measured is added. explore: measurements of
    each point, those of the first pass counted in.
    """
    now = improved(pool, answers, problem)
    left = explore - first_share(explore, len(points))
    moved = True
    while left > 0 and moved:
        share = min(left, max(BATCH, explore // AGAIN))
        left -= share
        further = [
            point.further(answer, share, pool, progress)
            for point, answer in zip(points, now, strict=True)
        ]
        before, now = now, improved(pool, further, problem)
        moved = any(_better(pool, new, old, problem) for new, old in zip(now, before, strict=True))
    return now


def improved(pool: Pool, answers: Sequence[Answer], problem: Posed) -> list[Answer]:
    """``answers``, each with the best of ``pool`` where that is better by more than the standard
    error. What the answers were chosen among is added to it."""
    pool.add(answer.trial for answer in answers)
    found = []
    for answer in answers:
        best = pool.best(problem(answer.budgets))
        own = pool[answer.trial.id]
        if gain(best.looked.sums, own.sums, best.view).real:
            trial = best.looked.trial
            answer = replace(
                answer, trial=trial, table=str(trial.settings.get("table", trial.solver)),
                noise=best.noise, predicted=trial.predicted, bound=float("nan"),
            )  # fmt: skip
        found.append(answer)
    return found


def _better(pool: Pool, new: Answer, old: Answer, problem: Posed) -> bool:
    """Whether an answer is better than before by more than the standard error."""
    view = pool.best(problem(new.budgets)).view
    return gain(pool[new.trial.id].sums, pool[old.trial.id].sums, view).real
