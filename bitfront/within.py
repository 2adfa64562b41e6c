"""Limits on trials that are at hand: which of them a front is asked of.

limit = budget                 as of a search: 700MB, 40%, >=3bpw, 12ms@cpu (``bitfront.budget``)
      | name "<=" number       a cost or metric of at most this, as recorded: kl<=0.1
      | name ">=" number       of at least this: top1>=0.7

A budget on a class of layers, like attention:3bpw, is on what is counted of each layer, like bits;
of what was given from outside, like seconds, trials have the model's total only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from bitfront.budget import Budget
from bitfront.errors import BudgetError, InvalidInput, UnknownName
from bitfront.limits import rows
from bitfront.scheme import KEEP
from bitfront.storage import StudyRecord
from bitfront.types import Trial

_SIGNED = re.compile(r"([^<>=]*:)?\s*[<>]=\s*[\d.]+\s*[A-Za-z%]")  # a budget: no name but a unit

ROUNDING = 1e-12
"""Share of a budget's limit by which a total may exceed it, as searches grant by rounding too."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A cost or metric that is at most ``amount``, or at least."""

    name: str
    sign: str  # <= or >=
    amount: float

    @classmethod
    def parse(cls, text: str) -> Bound:
        """The bound that ``text`` spells. Raises ``InvalidInput`` for anything else."""
        match = re.fullmatch(r"\s*([^<>=]*[^<>=\s])\s*(<=|>=)\s*(\S+)\s*", text)
        try:
            amount = float(match[3]) if match else math.nan
        except ValueError:
            amount = math.nan
        if match is None or math.isnan(amount):
            raise InvalidInput(
                f"cannot read limit {text!r}",
                "write a name, <= or >= and a number, like kl<=0.1, or a budget, like 700MB",
            )
        return cls(match[1], match[2], amount)

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{float(self.amount)!r}".removesuffix(".0")

    def holds(self, trial: Trial) -> bool:
        """Whether it holds of ``trial``; not where the figure is unknown."""
        value = _value(trial, self.name)
        return value <= self.amount if self.sign == "<=" else value >= self.amount


def meeting(record: StudyRecord, trials: Sequence[Trial], limits: Sequence[str]) -> list[Trial]:
    """The ``trials`` of a study within all ``limits``; one that lacks what is limited is not.

    Shares of the full model need the trial that keeps every layer among ``trials``, averages
    the number of weights in a trial's settings. Raises ``InvalidInput`` for what cannot be read and
    where no trial is left, ``UnknownName`` for a cost or metric that no trial has, and
    ``BudgetError`` where no trial tells what a budget is a share or an average of.
    """
    left = those_within(record, trials, limits)
    if not left:
        raise InvalidInput(
            f"none of {len(trials)} trials is within {' and '.join(limits)}",
            "loosen a limit, or search for more trials",
        )
    return left


def looks_at_layers(text: str) -> bool:
    """Whether a limit may need the schemes of trials' layers: all but plain bounds on figures."""
    return ":" in text or not re.search("[<>=]", text) or _SIGNED.match(text) is not None


def those_within(
    record: StudyRecord, trials: Sequence[Trial], limits: Sequence[str]
) -> list[Trial]:
    """``meeting``, of which none may be left."""
    tests = [_test(record, trials, text) for text in limits]
    return [trial for trial in trials if all(test(trial) for test in tests)]


def _value(trial: Trial, name: str) -> float:
    if name in trial.costs:
        return trial.costs[name]
    return trial.metrics[name].value if name in trial.metrics else math.nan


def _test(record: StudyRecord, trials: Sequence[Trial], text: str) -> Callable[[Trial], bool]:
    if not re.search("[<>=]", text) or _SIGNED.match(text):
        budget = Budget.parse(text)
        return _in_class(record, trials, budget) if budget.layers else _afforded(trials, budget)
    bound = Bound.parse(text)
    there = {name for trial in trials for name in (*trial.costs, *trial.metrics)}
    if bound.name in there:
        return bound.holds
    layers, _, name = (part.strip() for part in bound.name.partition(":"))
    if layers and name in there:
        budget = Budget(bound.amount, "", bound.sign, layers, name=name)
        return _in_class(record, trials, budget)
    known = ", ".join(sorted(there)) or "none"
    raise UnknownName(f"no trial has the cost or metric {bound.name!r}", f"there are {known}")


def _in_class(
    record: StudyRecord, trials: Sequence[Trial], budget: Budget
) -> Callable[[Trial], bool]:
    from bitfront.trialcosts import recorded_costs

    known = list(recorded_costs(record, trials))
    if not known:
        raise BudgetError(
            f"budget {str(budget)!r} is on a class of layers, and the study does not say what its "
            "trials' layers are",
            "limit the whole model",
        )
    met: dict[int, bool] = {}  # number of a trial that has layers of the class
    refused: list[BudgetError] = []
    for costs, some in known:
        if budget.whole not in costs.tables:
            raise BudgetError(
                f"budget {str(budget)!r} limits {budget.whole} of a class of layers, of which "
                "trials have the model's total only",
                f"limit the whole model, or of the class one of {', '.join(costs.tables)}",
            )
        try:
            found = rows([budget], costs)
        except BudgetError as error:
            refused.append(error)
            continue
        counted = replace(costs, tables=found.costs)
        (limit,) = (found.floors if budget.floor else found.limits).values()
        for trial in some:
            met[trial.id] = _keeps(budget, counted.total(trial.schemes)[budget.resource], limit)
    if refused and not met:
        raise refused[0]
    return lambda trial: met.get(trial.id, False)


def _keeps(budget: Budget, value: float, limit: float) -> bool:
    """Whether a total is within a budget; not where one of the two is nan."""
    if budget.floor:
        return value >= limit * (1 - ROUNDING)
    return value <= limit * (1 + ROUNDING)


def _afforded(trials: Sequence[Trial], budget: Budget) -> Callable[[Trial], bool]:
    if not any(budget.resource in trial.costs for trial in trials):
        known = ", ".join(sorted({name for trial in trials for name in trial.costs}))
        raise BudgetError(
            f"budget {str(budget)!r} limits {budget.resource}, which no trial has",
            f"choose a budget on one of {known}" if known else "measure some first",
        )
    whole = next((t.costs for t in reversed(trials) if set(t.schemes.values()) == {KEEP}), {})
    if all(math.isnan(_limit(budget, trial, whole)) for trial in trials):
        raise BudgetError(
            f"budget {str(budget)!r}: no trial tells what it is a part of",
            f"limit the total, like '{budget.resource}<=NUMBER'",
        )

    def holds(trial: Trial) -> bool:
        return _keeps(budget, _value(trial, budget.resource), _limit(budget, trial, whole))

    return holds


def _limit(budget: Budget, trial: Trial, whole: Mapping[str, float]) -> float:
    """The limit on ``trial``'s total; nan where what it is a share or average of is unknown."""
    full = {budget.resource: whole.get(budget.resource, math.nan)}
    return budget.limit(full, trial.settings.get("weights", math.nan))
