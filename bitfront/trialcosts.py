"""What the layers of recorded trials cost, counted again from what their study says of layers.

A trial has totals of the whole model only. Its layers, their classes and the container they are
stored in are recorded, so what they cost is known without the model; what was given from outside
(``costfile``) is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from bitfront.quant.costs import cost_tables
from bitfront.quant.stored import STORED
from bitfront.quant.suitability import Reason
from bitfront.scheme import Scheme
from bitfront.storage import AllocationRow, StudyRecord
from bitfront.types import Costs, Layer


@dataclass(frozen=True, eq=False)
class Alike:
    """Trials of the same layers in the same container, and what these cost under their schemes.

    ids (n,): the trials' numbers. choices (n, L): which of ``costs.schemes`` each layer has.
    """

    costs: Costs
    ids: NDArray[np.int64]
    choices: NDArray[np.int64]


def recorded_costs(record: StudyRecord, rows: Iterable[AllocationRow]) -> Iterator[Alike]:
    """Allocations by what they have in common.

    Only what is counted of each layer: of what is no allocated layer the fixed parts know nothing.
    A trial of layers that the study does not know is left out.
    """
    known = record.layers
    alike: dict[tuple[str, tuple[str, ...]], list[AllocationRow]] = {}
    for row in rows:
        container = row.container or record.settings.get("container")
        if container is not None:
            alike.setdefault((container, row.layers), []).append(row)
    for (container, names), some in alike.items():
        if known.keys() >= set(names):
            yield _alike(record, container, names, some)


def _alike(
    record: StudyRecord, container: str, names: Sequence[str], rows: Sequence[AllocationRow]
) -> Alike:
    known = record.layers
    schemes = sorted(set(chain.from_iterable(row.schemes for row in rows)))
    at = {scheme: i for i, scheme in enumerate(schemes)}
    every = (at[scheme] for row in rows for scheme in row.schemes)
    choices = np.fromiter(every, np.int64).reshape(len(rows), len(names))
    costs = cost_tables(
        [known[name] for name in names],
        [Scheme.parse(scheme) for scheme in schemes],
        STORED[container],
        0,
        kept=[layer for name, layer in known.items() if name not in names],
        reason=_untried(names, schemes, choices),
    )
    classes = record.settings.get("classes", {})
    ids = np.array([row.id for row in rows], np.int64)
    return Alike(replace(costs, classes=classes), ids, choices)


def _untried(names: Sequence[str], schemes: Sequence[str], choices: NDArray[np.int64]) -> Reason:
    """Of the layers ``names``, under which schemes no trial has them."""
    tried = {
        (name, Scheme.parse(schemes[c]))
        for name, column in zip(names, choices.T, strict=True)
        for c in np.unique(column)
    }

    def reason(layer: Layer, scheme: Scheme) -> str | None:
        measured = layer.name not in names or (layer.name, scheme) in tried
        return None if measured else f"no trial has it as {scheme}"

    return reason
