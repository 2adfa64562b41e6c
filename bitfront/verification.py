"""Solve, measure what was chosen, put it in the table, solve again: until nothing chosen is new.

The expansion behind a table is good on most pairs and far off on a few, and an optimizer finds
exactly those. So the (layer, scheme) pairs of an allocation are measured one at a time with the
real metric before it is believed, and the measured values replace the estimates.

A measured value is used only from the round on that asks for it, also when the database knows it
already. So a run that was killed goes through the same rounds again, and ends at the same
allocation as one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from bitfront.recording import record
from bitfront.scheme import KEEP
from bitfront.search import allocate
from bitfront.sensitivity.perturb import Perturb
from bitfront.study import Progress, Study
from bitfront.types import Allocation, Measurement, Problem, Scheme, Sensitivities

Pair = tuple[str, str]  # layer, scheme


@dataclass(frozen=True, eq=False)
class Verified:
    """What verifying came to.

    allocation: the last one. table: that it is the allocation of. fresh: pairs measured for it, in
    order, beyond those known before. unverified: how many of its pairs rest on an estimate (0
    unless measurements ran out).
    """

    allocation: Allocation
    table: Sensitivities
    fresh: tuple[Pair, ...]
    unverified: int


def verified(
    study: Study,
    table: Sensitivities,
    problem: Callable[[Sensitivities], Problem],
    solver: str,
    known: Collection[Pair],
    allowance: int | None,
    progress: Progress,
) -> Verified:
    """The allocation of ``table`` that rests on measured values.

    problem: makes the problem of a table. known: pairs whose measured values are used from the
    start. allowance: how many more may be measured; None for as many as it takes.
    """
    perturb = Perturb()
    layers = {layer.name: layer for layer in study.task.layers}
    recorded = study.measurements(perturb.name, perturb.settings_key)
    used = {pair: recorded[pair] for pair in known if pair in recorded}
    fresh: list[Pair] = []
    while True:  # each round measures a new pair, and pairs are finite
        now = replaced(table, used)
        allocation = allocate(problem(now), solver)
        chosen = [(n, s) for n, s in allocation.schemes.items() if s != KEEP]
        missing = [pair for pair in chosen if pair not in used]
        affordable = missing if allowance is None else missing[: allowance - len(fresh)]
        if not affordable:
            return Verified(allocation, now, tuple(fresh), len(missing))
        units = [(layers[n], Scheme.parse(s)) for n, s in affordable if (n, s) not in recorded]
        for m in record(study, perturb, units, progress):
            recorded[m.layer, m.scheme] = m
        used |= {pair: recorded[pair] for pair in affordable}
        fresh += affordable


def replaced(table: Sensitivities, measured: Mapping[Pair, Measurement]) -> Sensitivities:
    """``table`` with the measured values of its metric in place of its own."""
    values, stderr = table.values.copy(), table.stderr.copy()
    for i, layer in enumerate(table.layers):
        for j, scheme in enumerate(table.schemes):
            m = measured.get((layer, scheme))
            if m is not None and table.metric in m.values:
                values[i, j] = m.values[table.metric].value
                stderr[i, j] = m.values[table.metric].stderr
    return replace(table, values=values, stderr=stderr)
