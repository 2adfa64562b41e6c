"""The outer search for how a budget is split between classes of layers, by measured candidates.

Of a table whose classes have objectives of their own, the rates between these are a convention. So
factors on them are tried (``search.shares``): each gives an allocation, which is built and measured
on the calibration data, and the best split is kept if it is better than the table's own by more
than its standard error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from bitfront.judging import Contributions, gain, view_of
from bitfront.search import allocate, factors, weighted
from bitfront.study import Progress, Study
from bitfront.types import Allocation, Costs, Problem, Sensitivities, Trial

SHARES = 16  # measurements of each point's outer search
ASKED = 3  # proposals for each measurement, at most: many factors give the same allocation


@dataclass(frozen=True, eq=False)
class Shared:
    """allocation: the best split's. factors: class -> factor on its objective that gave it.

    measured: how many allocations were.
    """

    allocation: Allocation
    factors: Mapping[str, float]
    measured: int


def shared(
    study: Study,
    table: Sensitivities,
    problem: Callable[[Sensitivities], Problem],
    solver: str,
    metric: str,
    measure: Callable[[Allocation, Mapping[str, float]], Trial],
    allowance: int,
    progress: Progress,
) -> Shared:
    """The best of at most ``allowance`` measured splits; the first is the table's own.

    problem: makes the problem of a table. metric: of the task, judged on the calibration data.
    measure: builds an allocation that factors gave and measures it there.
    """
    classes = list(dict.fromkeys(table.classes))
    proposals = factors(classes)
    factor: Mapping[str, float] = next(proposals)
    tried: dict[tuple[str, ...], tuple[Allocation, Mapping[str, float], Contributions]] = {}
    for _ in range(ASKED * allowance if len(classes) > 1 else 1):
        found = allocate(problem(weighted(table, factor)), solver)
        if found.choice not in tried:
            if len(tried) == allowance:
                break
            progress("splitting the budget", len(tried), allowance)
            sums = study.store.trial_vectors(study.record, measure(found, factor).id)
            tried[found.choice] = found, factor, sums
        factor = proposals.send(float(tried[found.choice][2][metric].mean()))
    progress("splitting the budget", allowance, allowance)
    every = list(tried.values())
    best, factor, _ = every[_best([sums for _, _, sums in every], metric)]
    loss, bound = problem(table).objective(best.schemes), every[0][0].bound  # by the table itself
    optimal = best is every[0][0] and best.optimal
    best = replace(best, loss=loss, bound=bound, gap=loss - bound, optimal=optimal)
    return Shared(best, factor, len(tried))


def shares_of(
    costs: Costs, resource: str, table: Sensitivities, allocation: Allocation
) -> dict[str, float]:
    """Class -> the share of its layers in the allocated total of ``resource``."""
    of = dict(zip(table.layers, table.classes, strict=True))
    spent: dict[str, float] = dict.fromkeys(table.classes, 0.0)
    cost = costs.tables[resource]
    for i, (layer, scheme) in enumerate(allocation.schemes.items()):
        spent[of[layer]] += float(cost[i, costs.schemes.index(scheme)])
    total = sum(spent.values())
    return {cls: value / total for cls, value in spent.items()}


def _best(sums: list[Contributions], metric: str) -> int:
    """The index of the best, the first unless another one's gain over it is real."""
    view = view_of(sums, metric)
    gains = [gain(found, sums[0], view) for found in sums]
    best = max(range(len(sums)), key=lambda i: gains[i].value)
    return best if gains[best].real else 0
