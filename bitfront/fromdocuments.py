"""Values from the documents that a service gives of them, for those who print them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bitfront.heldout import bare, sides

if TYPE_CHECKING:
    from bitfront.queries import Front, Shown
    from bitfront.storage import StudyRecord
    from bitfront.types import Estimate, Trial

Document = Mapping[str, Any]


def trial_of(document: Document) -> Trial:
    """The trial of a ``trial_document``; without schemes where it has none."""
    from bitfront.types import Trial

    return Trial(
        schemes=document.get("schemes", {}),
        solver=document["solver"],
        predicted=known(document["predicted"]),
        bound=known(document["bound"]),
        costs={name: known(value) for name, value in document["costs"].items()},
        metrics={name: _estimate(fields) for name, fields in document["metrics"].items()},
        seconds=known(document["seconds"]),
        settings=document["settings"],
        id=document["id"],
        created=document["created"],
    )


def study_of(document: Document) -> StudyRecord:
    """The study of the service's document of one."""
    from bitfront.storage import StudyRecord

    settings = {**document["settings"], "layers": document["layers"]}
    return StudyRecord(0, document["name"], document["created"], document["fingerprint"], settings)


def front_from(
    document: Document, study: StudyRecord, costs: Sequence[str], metrics: Sequence[str]
) -> Front:
    """The front of a service's document that has dominated trials too."""
    import numpy as np

    from bitfront.queries import Front

    trials = tuple(map(trial_of, document["trials"]))
    best = tuple(i for i, fields in enumerate(document["trials"]) if fields["on_front"])
    ids = [trial.id for trial in trials]
    knee = document["knee"]
    return Front(
        study=study, costs=tuple(costs), metrics=tuple(metrics), senses=tuple(document["senses"]),
        points=np.array(document["points"], dtype=np.float64), trials=trials, best=best,
        within=tuple(document["within"]), knee=None if knee is None else ids.index(knee),
    )  # fmt: skip


def shown_from(document: Document, study: StudyRecord, metric: str) -> Shown:
    """The trial of a ``shown_document``, with its layers."""
    from bitfront.queries import LayerLine, Shown, better_of

    trial, layers = trial_of(document), study.layers
    lines = tuple(
        LayerLine(
            name, line["scheme"], layers.get(name), known(line["bytes"]),
            known(line["full_bytes"]), _of(line, "measured"), _of(line, "estimated"),
            line["inside_noise"],
        )
        for name, line in document["layers"].items()
    )  # fmt: skip
    names = dict.fromkeys(map(bare, trial.metrics))
    both = {name: sides(trial, name, better_of(study.settings, name)) for name in names}
    return Shown(study, trial, metric, lines, both)


def _of(line: Document, name: str) -> Estimate | None:
    if line[name] is None and line[f"{name}_stderr"] is None:
        return None
    from bitfront.types import Estimate

    return Estimate(known(line[name]), known(line[f"{name}_stderr"]), 0)


def _estimate(fields: Document) -> Estimate:
    from bitfront.types import Estimate

    return Estimate(known(fields["value"]), known(fields["stderr"]), fields["samples"])


def known(value: float | None) -> float:
    """A number, nan where it is not known."""
    return math.nan if value is None else value
