"""Limits on a study's trials: which of them a front is asked of.

limit = budget                 as of a search: 700MB, 40%, >=3bpw, 12ms@cpu (``bitfront.budget``)
      | name "<=" number       a cost or metric of at most this, as recorded: kl<=0.1
      | name ">=" number       of at least this: top1>=0.7

A budget on a class of layers, like attention:3bpw, is on what is counted of each layer, like bits;
of what was given from outside, like seconds, trials have the model's total only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitfront.budget import Budget
from bitfront.errors import BudgetError, InvalidInput, UnknownName
from bitfront.limits import rows
from bitfront.types import Float, Trial

if TYPE_CHECKING:
    from bitfront.trialcolumns import TrialColumns

_SIGNED = re.compile(r"([^<>=]*:)?\s*[<>]=\s*[\d.]+\s*[A-Za-z%]")  # a budget: no name but a unit

Mask = NDArray[np.bool_]  # (n,)

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
        known = {name: estimate.value for name, estimate in trial.metrics.items()}
        return bool(self.met(np.array((known | dict(trial.costs)).get(self.name, math.nan))))

    def met(self, values: Float) -> Mask:
        """Which of ``values`` are so; not a nan."""
        return np.asarray(values <= self.amount if self.sign == "<=" else values >= self.amount)


def figure(columns: TrialColumns, name: str) -> Float:
    """The cost, or else the metric, of this name."""
    if name not in columns.costs:
        return columns.metric(name)
    found = columns.cost(name)
    if name not in columns.metrics:
        return found
    return np.where(np.isnan(found), columns.metric(name), found)


def those_within(columns: TrialColumns, limits: Sequence[str]) -> Mask:
    """Which trials are within all ``limits``; one that lacks what is limited is not.

    Shares of the full model need the trial that keeps every layer, averages the number of weights
    in a trial's settings. Raises ``InvalidInput`` for what cannot be read, ``UnknownName`` for a
    cost or metric that no trial has, and ``BudgetError`` where no trial tells what a budget is a
    share or an average of.
    """
    left = np.ones(len(columns.ids), np.bool_)
    for text in limits:
        left &= _meets(columns, text)
    return left


def _meets(columns: TrialColumns, text: str) -> Mask:
    if not re.search("[<>=]", text) or _SIGNED.match(text):
        budget = Budget.parse(text)
        return _in_class(columns, budget) if budget.layers else _afforded(columns, budget)
    bound = Bound.parse(text)
    there = {*columns.costs, *columns.metrics}
    if bound.name in there:
        return bound.met(figure(columns, bound.name))
    layers, _, name = (part.strip() for part in bound.name.partition(":"))
    if layers and name in there:
        return _in_class(columns, Budget(bound.amount, "", bound.sign, layers, name=name))
    known = ", ".join(sorted(there)) or "none"
    raise UnknownName(f"no trial has the cost or metric {bound.name!r}", f"there are {known}")


def _in_class(columns: TrialColumns, budget: Budget) -> Mask:
    from bitfront.trialcosts import recorded_costs

    known = list(recorded_costs(columns.record, columns.allocations()))
    if not known:
        raise BudgetError(
            f"budget {str(budget)!r} is on a class of layers, and the study does not say what its "
            "trials' layers are",
            "limit the whole model",
        )
    met = np.zeros(len(columns.ids), np.bool_)
    refused: list[BudgetError] = []  # of trials without layers of the class
    for alike in known:
        if budget.whole not in alike.costs.tables:
            raise BudgetError(
                f"budget {str(budget)!r} limits {budget.whole} of a class of layers, of which "
                "trials have the model's total only",
                f"limit the whole model, or of the class one of {', '.join(alike.costs.tables)}",
            )
        try:
            found = rows([budget], alike.costs)
        except BudgetError as error:
            refused.append(error)
            continue
        (limit,) = (found.floors if budget.floor else found.limits).values()
        totals = np.zeros(len(alike.ids))
        for of_layer, chosen in zip(found.costs[budget.resource], alike.choices.T, strict=True):
            totals += of_layer[chosen]
        met |= np.isin(columns.ids, alike.ids[_keeps(budget, totals, limit)])
    if len(refused) == len(known):
        raise refused[0]
    return met


def _keeps(budget: Budget, totals: Float, limit: Float | float) -> Mask:
    """Which totals are within a budget; not where one of the two is nan."""
    if budget.floor:
        return np.asarray(totals >= limit * (1 - ROUNDING))
    return np.asarray(totals <= limit * (1 + ROUNDING))


def _afforded(columns: TrialColumns, budget: Budget) -> Mask:
    if budget.resource not in columns.costs:
        known = ", ".join(sorted(columns.costs))
        raise BudgetError(
            f"budget {str(budget)!r} limits {budget.resource}, which no trial has",
            f"choose a budget on one of {known}" if known else "measure some first",
        )
    full = {budget.resource: columns.whole(budget.resource)}
    counts, which = np.unique(columns.weights(), return_inverse=True)
    limit = np.array([budget.limit(full, count) for count in counts.tolist()])[which]
    if np.isnan(limit).all():
        raise BudgetError(
            f"budget {str(budget)!r}: no trial tells what it is a part of",
            f"limit the total, like '{budget.resource}<=NUMBER'",
        )
    return _keeps(budget, columns.cost(budget.resource), limit)
