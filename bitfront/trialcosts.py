"""What the layers of recorded trials cost, counted again from what their study says of layers.

A trial has totals of the whole model only. Its layers, their classes and the container they are
stored in are recorded, so what they cost is known without the model; what was given from outside
(``costfile``) is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bitfront.quant.costs import cost_tables
from bitfront.quant.stored import STORED
from bitfront.quant.suitability import Reason
from bitfront.scheme import Scheme
from bitfront.storage import StudyRecord
from bitfront.types import Costs, Layer, Trial


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
        costs = cost_tables(
            [known[name] for name in names],
            [Scheme.parse(scheme) for scheme in schemes],
            STORED[container],
            0,
            kept=[layer for name, layer in known.items() if name not in names],
            reason=_untried(names, some),
        )
        yield replace(costs, classes=record.settings.get("classes", {})), some


def _untried(names: Sequence[str], trials: Sequence[Trial]) -> Reason:
    """Of the layers ``names``, under which schemes none of ``trials`` has them."""
    tried = {(name, Scheme.parse(s)) for trial in trials for name, s in trial.schemes.items()}

    def reason(layer: Layer, scheme: Scheme) -> str | None:
        measured = layer.name not in names or (layer.name, scheme) in tried
        return None if measured else f"no trial has it as {scheme}"

    return reason
