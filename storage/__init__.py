"""What was measured, kept in a database: studies, measurements, trials, selections, exports, jobs,
workers. Large arrays are in files beside it.

``Store`` loads on first use, so that fronts and records need no SQLAlchemy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .fronts import front, knee
from .hypervolume import hypervolume
from .records import (
    AllocationRow,
    Artifact,
    Collected,
    Export,
    Job,
    JobEvent,
    JobProgress,
    Selection,
    StudyRecord,
    StudySummary,
    WorkerRecord,
)

if TYPE_CHECKING:
    from .store import Store

__all__ = [
    "AllocationRow",
    "Artifact",
    "Collected",
    "Export",
    "Job",
    "JobEvent",
    "JobProgress",
    "Selection",
    "Store",
    "StudyRecord",
    "StudySummary",
    "WorkerRecord",
    "front",
    "hypervolume",
    "knee",
]


def __getattr__(name: str) -> Any:
    if name == "Store":
        from .store import Store

        return Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
