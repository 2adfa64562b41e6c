"""A sweep's answers once more, with the whole front in view.

An allocation that was measured for one budget may be better for another than what was found for
that: a search from elsewhere, or one that had more measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from bitfront.answering import Answer
from bitfront.judging import gain
from bitfront.pool import Pool
from bitfront.study import Study
from bitfront.types import Budget, Problem, Trial


def improved(
    study: Study,
    answers: Sequence[Answer],
    problem: Callable[[Sequence[Budget]], Problem],
    measured: Sequence[Trial],
    complete: Callable[[Trial], Trial],
) -> list[Answer]:
    """``answers``, each with the best of all that was ``measured`` for any.

    Another one takes an answer's place where it is better by more than the standard error.
    problem: makes the problem of budgets, whose losses do not matter. complete: measures a trial
    on the evaluation data too.
    """
    pool = Pool(study, answers[0].judged)
    pool.add([*measured, *(answer.trial for answer in answers)])
    found = []
    for answer in answers:
        best = pool.best(problem(answer.budgets))
        own = pool[answer.trial.id]
        if gain(best.looked.sums, own.sums, best.view).real:
            trial = complete(best.looked.trial)
            table = str(trial.settings.get("table", trial.solver))
            answer = replace(
                answer, trial=trial, table=table, noise=best.noise,
                predicted=trial.predicted, bound=float("nan"),
            )  # fmt: skip
        found.append(answer)
    return found
