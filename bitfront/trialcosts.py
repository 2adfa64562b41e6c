"""What the layers of recorded trials cost, counted again from what their study says of layers.

A trial has totals of the whole model only. Its layers, their classes and the container they are
stored in are recorded, so what they cost is known without the model; what was given from outside
(``costfile``) is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bitfront.quant.costs import cost_tables
from bitfront.quant.exporters import EXPORTERS
from bitfront.scheme import Scheme
from bitfront.storage import StudyRecord
from bitfront.types import Costs, Trial


def recorded_costs(
    record: StudyRecord, trials: Sequence[Trial]
) -> Iterator[tuple[Costs, list[Trial]]]:
    """Trials of the same layers in the same container, with what these cost under their schemes.

    Only what is counted of each layer: of what is no allocated layer the fixed parts know nothing.
    A trial of layers that the study does not know is left out.
    """
    known = record.layers
    alike: dict[tuple[str, tuple[str, ...]], list[Trial]] = {}
    for trial in trials:
        container = trial.settings.get("container") or record.settings.get("container")
        if container is not None and known.keys() >= trial.schemes.keys():
            alike.setdefault((container, tuple(trial.schemes)), []).append(trial)
    for (container, names), some in alike.items():
        schemes = sorted({scheme for trial in some for scheme in trial.schemes.values()})
        exporter = EXPORTERS[container]
        costs = cost_tables(
            [known[name] for name in names],
            [Scheme.parse(scheme) for scheme in schemes],
            exporter.stored,
            0,
            kept=[layer for name, layer in known.items() if name not in names],
            reason=exporter.reason,
        )
        yield replace(costs, classes=record.settings.get("classes", {})), some
