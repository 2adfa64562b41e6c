"""What the store gives back besides measurements and trials: frozen rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
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
class AllocationRow:
    """A trial's allocation. layers, schemes: in the model's order. container: as the trial's
    settings say, if they do."""

    id: int
    container: str | None
    layers: tuple[str, ...]
    schemes: tuple[str, ...]


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


@dataclass(frozen=True)
class Artifact:
    """A file of the artifact folder. hash: the SHA-256 of its bytes, in hex."""

    hash: str
    bytes: int
    media_type: str
    created: str
    path: Path


@dataclass(frozen=True)
class Collected:
    """What collecting removed: how many files of how many bytes together."""

    files: int
    bytes: int


@dataclass(frozen=True)
class JobProgress:
    """How far a job is within its present stage: ``done`` of ``total``, of what ``stage`` names.

    seconds: since ``since`` of them were done, when the stage began or was taken up again.
    """

    stage: str
    done: int
    total: int
    since: int
    seconds: float

    @property
    def rate(self) -> float | None:
        """Units a second; None while that is not known."""
        return (self.done - self.since) / self.seconds if self.seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Until the stage ends at that rate; None while that is not known."""
        return (self.total - self.done) / self.rate if self.rate else None


@dataclass(frozen=True)
class Job:
    """One long action on a study, as recorded. Times are ISO 8601, UTC.

    kind: profile, search, measure, export or report. request: its arguments. state: of
    ``jobstates``. attempt: how often it was claimed. worker: the driver that holds its lease, until
    ``lease_until`` by the database's clock (seconds since 1970). failures: how often in a row the
    same unit failed. error: the last one: ``text``, ``hint``, ``unit``. result: of one that
    succeeded.
    """

    id: int
    key: str
    kind: str
    study: str
    request: Mapping[str, Any]
    state: str
    attempt: int
    worker: str | None
    lease_until: float | None
    failures: int
    progress: JobProgress | None
    error: Mapping[str, Any] | None
    result: Mapping[str, Any] | None
    created: str
    updated: str


@dataclass(frozen=True)
class JobEvent:
    """A row of a job's history. number: from 1, in order."""

    number: int
    kind: str
    created: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerRecord:
    """A worker as it was last seen.

    host: its machine. version: of its Bitfront. started, seen: ISO 8601, UTC. job: the one that it
    holds. state: ``idle``, ``busy``, or ``lost`` where it was not seen for the length of its lease.
    """

    name: str
    host: str
    version: str
    started: str
    seen: str
    job: int | None
    state: str
