"""Limits on seconds, met by what whole models were measured to take.

An allocation is chosen by its predicted seconds p, and they are off by a few per cent. Where the
whole model was measured to take m, longer than a limit L, the point is answered again within
L p / m, which would take L if all predictions were as far off; so until a whole model is in time,
nothing is predicted to be, or it was tried ``ROUNDS`` times. Then models that have all layers under
one scheme are timed, which may be faster than predicted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar

from bitfront.errors import BitfrontWarning, Infeasible
from bitfront.limits import rounded
from bitfront.targets import Aimed
from bitfront.types import Budget, Costs, Trial
from bitfront.verification import Pair

ROUNDS = 3
SLACK = 0.01  # of a limit: timings of one model differ by as much


class Found(Protocol):
    """What was found within budgets: a search's answer, or the smallest that holds."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def budgets(self) -> tuple[Budget, ...]: ...
    @property
    def trial(self) -> Trial: ...
    @property
    def evaluations(self) -> int: ...
    @property
    def verified(self) -> tuple[Pair, ...]: ...


F = TypeVar("F", bound=Found)

Lateness = Callable[[Trial], float]
"""The greatest of the seconds of a trial over their limits; 0 where it is in time."""


def in_time(
    answer: F,
    aims: Iterable[Aimed],
    costs: Costs,
    tightened: Callable[[tuple[Budget, ...]], F],
    otherwise: Callable[[Lateness], F | None] = lambda _: None,
) -> F:
    """``answer``, or the first that is in time, of the same budgets.

    tightened: answers budgets that are tighter, timed too; it may raise ``Infeasible``. otherwise:
    the least late of what else there is, asked for where none of those was in time. Where nothing
    is, the least late answers, and a ``BitfrontWarning`` says how late.
    """
    timed = {aim.resource: aim.measured for aim in aims if aim.shape is not None}
    limits = {
        number: b.limit(costs.full, costs.weights)
        for number, b in enumerate(answer.budgets)
        if b.resource in timed and not b.floor
    }

    def late(trial: Trial) -> dict[int, float]:
        """Budget, by its number -> measured seconds over the limit, where they are late."""
        over = {
            i: trial.costs[timed[answer.budgets[i].resource]] / limit for i, limit in limits.items()
        }
        return {i: ratio for i, ratio in over.items() if ratio > 1 + SLACK}

    def lateness(trial: Trial) -> float:
        return max(late(trial).values(), default=0.0)

    tried, budgets = [answer], list(answer.budgets)
    while len(tried) <= ROUNDS and (over := late(tried[-1].trial)):
        trial = tried[-1].trial
        for i in over:
            asked = answer.budgets[i]
            less = trial.costs[asked.resource] / trial.costs[timed[asked.resource]]
            budgets[i] = replace(asked, amount=rounded(asked.amount * less, up=False))
        try:
            tried.append(tightened(tuple(budgets)))
        except Infeasible:
            break
    if late(tried[-1].trial) and (other := otherwise(lateness)) is not None:
        tried.append(other)
    best = min(tried, key=lambda one: lateness(one.trial))
    for i, ratio in late(best.trial).items():
        asked = answer.budgets[i]
        takes = replace(asked, amount=rounded(asked.amount * ratio, up=True))
        warnings.warn(
            f"budget {asked} is met by prediction only: trial {best.trial.id} was measured to take "
            f"{takes}; give a higher limit, or schemes that are faster",
            BitfrontWarning,
            stacklevel=3,
        )
    return _joined(answer, best, tried)


def sparing(
    find: Callable[[tuple[Budget, ...], int | None], F], allowance: int | None
) -> Callable[[tuple[Budget, ...]], F]:
    """``find`` with what is left at each call of ``allowance``, the pairs that it may verify."""

    def within(budgets: tuple[Budget, ...]) -> F:
        nonlocal allowance
        found = find(budgets, allowance)
        if allowance is not None:
            allowance = max(allowance - len(found.verified), 0)
        return found

    return within


def _joined(answer: F, best: F, tried: Sequence[F]) -> F:
    """``best`` as what all that was tried led to."""
    if len(tried) == 1:
        return answer
    return replace(
        best, budgets=answer.budgets, evaluations=sum(one.evaluations for one in tried),
        verified=tuple(pair for one in tried for pair in one.verified),
    )  # fmt: skip
