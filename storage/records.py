"""What the store gives back besides measurements and trials: frozen rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitfront.types import Layer


@dataclass(frozen=True)
class StudyRecord:
    """A study as recorded.

    fingerprint: field -> digest or value of all that its measurements depend on. settings: what
    it was begun with, free to differ later. created: ISO 8601, UTC.
    """

    id: int
    name: str
    created: str
    fingerprint: Mapping[str, str]
    settings: Mapping[str, Any]

    @property
    def layers(self) -> dict[str, Layer]:
        """Name -> layer, as they were when the study was begun."""
        return {fields["name"]: Layer(**fields) for fields in self.settings.get("layers", [])}


@dataclass(frozen=True)
class StudySummary:
    """A line about a study.

    metrics, costs: name -> (least, greatest) over its trials, those that are nan left out.
    """

    name: str
    created: str
    measurements: int
    trials: int
    metrics: Mapping[str, tuple[float, float]]
    costs: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Selection:
    """A request (budgets and settings, as a content key) and the trial that answers it."""

    request_key: str
    trial_id: int
    details: Mapping[str, Any]
    created: str


@dataclass(frozen=True)
class Export:
    """A trial that was written to a folder. bytes: of its tensors. audit: what was checked."""

    id: int
    trial_id: int
    format: str
    folder: str
    bytes: int
    audit: Mapping[str, Any]
    created: str
