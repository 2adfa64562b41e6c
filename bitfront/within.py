"""Limits on trials that are at hand: which of them a front is asked of.

limit = budget                 as of a search: 700MB, 40%, >=3bpw, 12ms@cpu (``bitfront.budget``)
      | name "<=" number       a cost or metric of at most this, as recorded: kl<=0.1
      | name ">=" number       of at least this: top1>=0.7
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bitfront.budget import Budget
from bitfront.errors import BudgetError, InvalidInput, UnknownName
from bitfront.scheme import KEEP
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


def meeting(trials: Sequence[Trial], limits: Sequence[str]) -> list[Trial]:
    """The ``trials`` within all ``limits``; a trial that lacks what is limited is not.

    Shares of the full model need the trial that keeps every layer among ``trials``, averages
    the number of weights in a trial's settings. Raises ``InvalidInput`` for what cannot be read and
    where no trial is left, ``UnknownName`` for a cost or metric that no trial has, and
    ``BudgetError`` where no trial tells what a budget is a share or an average of.
    """
    tests = [
        _bounded(trials, text)
        if re.search("[<>=]", text) and not _SIGNED.match(text)
        else _afforded(trials, text)
        for text in limits
    ]
    left = [trial for trial in trials if all(test(trial) for test in tests)]
    if not left:
        raise InvalidInput(
            f"none of {len(trials)} trials is within {' and '.join(limits)}",
            "loosen a limit, or search for more trials",
        )
    return left


def _value(trial: Trial, name: str) -> float:
    if name in trial.costs:
        return trial.costs[name]
    return trial.metrics[name].value if name in trial.metrics else math.nan


def _bounded(trials: Sequence[Trial], text: str) -> Callable[[Trial], bool]:
    bound = Bound.parse(text)
    there = {name for trial in trials for name in (*trial.costs, *trial.metrics)}
    if bound.name not in there:
        known = ", ".join(sorted(there)) or "none"
        raise UnknownName(f"no trial has the cost or metric {bound.name!r}", f"there are {known}")
    return bound.holds


def _afforded(trials: Sequence[Trial], text: str) -> Callable[[Trial], bool]:
    budget = Budget.parse(text)
    if budget.layers:
        raise BudgetError(
            f"budget {str(budget)!r} is on a class of layers, which trials have no totals of",
            "search within it, or limit the whole model",
        )
    if not any(budget.resource in trial.costs for trial in trials):
        known = ", ".join(sorted({name for trial in trials for name in trial.costs})) or "none"
        raise BudgetError(
            f"budget {str(budget)!r} limits {budget.resource}, which no trial has",
            f"choose a budget on one of {known}",
        )
    whole = next((t.costs for t in reversed(trials) if set(t.schemes.values()) == {KEEP}), {})
    if all(math.isnan(_limit(budget, trial, whole)) for trial in trials):
        raise BudgetError(
            f"budget {str(budget)!r}: no trial tells what it is a part of",
            f"limit the total, like '{budget.resource}<=NUMBER'",
        )

    def holds(trial: Trial) -> bool:
        limit = _limit(budget, trial, whole)
        value = _value(trial, budget.resource)
        if budget.floor:
            return value >= limit * (1 - ROUNDING)
        return value <= limit * (1 + ROUNDING)

    return holds


def _limit(budget: Budget, trial: Trial, whole: Mapping[str, float]) -> float:
    """The limit on ``trial``'s total; nan where what it is a share or average of is unknown."""
    full = {budget.resource: whole.get(budget.resource, math.nan)}
    return budget.limit(full, trial.settings.get("weights", math.nan))
