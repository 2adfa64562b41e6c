"""The tables. What was measured is written once and never changed. Checkpoints are deleted, and
artifacts that nothing refers to. A trial may get further metrics and vectors, as it is measured on
further data. A job changes as it runs; its events tell how. A worker's row goes when it ends.
Tallies change with what they count. Figures are indexed by study, so that the first of a study's
many are found without the others.

    study ─┬─ measurement ─┬─ measurement_value    one per metric
           │               └─ measurement_vector   per-sample arrays, as .npy bytes
           ├─ measurement_tally, trial_tally       how many there are
           ├─ checkpoint                           of a long pass, as .npz bytes
           └─ trial ─┬─ trial_layer                the allocation, in the model's order
                     ├─ trial_cost                 one per resource
                     ├─ trial_metric               one per metric
                     ├─ trial_vector               per-sample arrays, as .npy bytes
                     ├─ selection                  a request that this trial answers
                     └─ export
    job ─── job_event
    worker                                         one per worker that lives, or was lost
    timing                                         a kernel on a target, of no study
    artifact ◀── measurement_vector, checkpoint, trial_vector: where the bytes are in a file

A table here and its migration are compared by a test.
"""

from __future__ import annotations

import math
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

TOO_LARGE = 1 << 31  # for a column of integers


class Real(TypeDecorator[float]):
    """A float64 whose nan is NULL, so that SQL compares and sorts it the same everywhere."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        return None if value is None or math.isnan(value) else float(value)

    def process_result_value(self, value: float | None, dialect: Dialect) -> float:
        return math.nan if value is None else float(value)


class Table(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(referred_table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 (read by SQLAlchemy when a table is declared)
        str: Text,
        float: Real,
        bytes: LargeBinary,
        dict[str, Any]: JSON,
    }


class IdentityRow(Table):
    """One row: what tells this database from all others, in a folder that several share."""

    __tablename__ = "identity"

    key: Mapped[str] = mapped_column(primary_key=True)


class ArtifactRow(Table):
    """A file. Of the columns ``data`` and ``artifact`` of other tables, one is NULL."""

    __tablename__ = "artifact"

    hash: Mapped[str] = mapped_column(primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str]
    created: Mapped[str]


class StudyRow(Table):
    __tablename__ = "study"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created: Mapped[str]
    fingerprint: Mapped[dict[str, Any]]
    settings: Mapped[dict[str, Any]]


class MeasurementRow(Table):
    __tablename__ = "measurement"
    __table_args__ = (
        UniqueConstraint("study_id", "profiler", "settings", "layer", "scheme"),
        Index(None, "study_id", "id", unique=True),  # what its values refer to
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    profiler: Mapped[str]
    settings: Mapped[str]
    layer: Mapped[str]
    scheme: Mapped[str]
    seconds: Mapped[float] = mapped_column(nullable=True)


class MeasurementValueRow(Table):
    __tablename__ = "measurement_value"
    __table_args__ = (
        ForeignKeyConstraint(
            ["study_id", "measurement_id"], ["measurement.study_id", "measurement.id"]
        ),
        Index(None, "study_id", "metric", "value", "measurement_id"),
    )

    measurement_id: Mapped[int] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    study_id: Mapped[int]
    value: Mapped[float] = mapped_column(nullable=True)
    stderr: Mapped[float] = mapped_column(nullable=True)
    samples: Mapped[int] = mapped_column(BigInteger)


class MeasurementVectorRow(Table):
    __tablename__ = "measurement_vector"

    measurement_id: Mapped[int] = mapped_column(ForeignKey("measurement.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[bytes | None]
    artifact: Mapped[str | None] = mapped_column(ForeignKey("artifact.hash"), index=True)


class MeasurementTallyRow(Table):
    __tablename__ = "measurement_tally"

    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), primary_key=True)
    profiler: Mapped[str] = mapped_column(primary_key=True)
    measurements: Mapped[int] = mapped_column(BigInteger)


class CheckpointRow(Table):
    __tablename__ = "checkpoint"

    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), primary_key=True)
    pass_key: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[bytes | None]
    artifact: Mapped[str | None] = mapped_column(ForeignKey("artifact.hash"), index=True)


class TrialRow(Table):
    __tablename__ = "trial"
    __table_args__ = (
        UniqueConstraint("study_id", "key", "measured_by"),
        UniqueConstraint("study_id", "id"),  # what figures, selections and exports refer to
        Index(None, "study_id", "revision"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    key: Mapped[str]
    measured_by: Mapped[str]
    created: Mapped[str]
    solver: Mapped[str]
    predicted: Mapped[float] = mapped_column(nullable=True)
    bound: Mapped[float] = mapped_column(nullable=True)
    seconds: Mapped[float] = mapped_column(nullable=True)
    settings: Mapped[dict[str, Any]]
    quantized: Mapped[int] = mapped_column(server_default="0")  # layers that are not kept
    revision: Mapped[int] = mapped_column(BigInteger, server_default="0")


class TrialTallyRow(Table):
    """revision: goes up with every change, and is then that of the trial which changed."""

    __tablename__ = "trial_tally"

    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), primary_key=True)
    trials: Mapped[int] = mapped_column(BigInteger)
    revision: Mapped[int] = mapped_column(BigInteger)


class TrialLayerRow(Table):
    __tablename__ = "trial_layer"

    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    layer: Mapped[str]
    scheme: Mapped[str]


class TrialCostRow(Table):
    __tablename__ = "trial_cost"
    __table_args__ = (
        ForeignKeyConstraint(["study_id", "trial_id"], ["trial.study_id", "trial.id"]),
        Index(None, "study_id", "resource", "value", "trial_id"),
    )

    trial_id: Mapped[int] = mapped_column(primary_key=True)
    resource: Mapped[str] = mapped_column(primary_key=True)
    study_id: Mapped[int]
    value: Mapped[float] = mapped_column(nullable=True)


class TrialMetricRow(Table):
    __tablename__ = "trial_metric"
    __table_args__ = (
        ForeignKeyConstraint(["study_id", "trial_id"], ["trial.study_id", "trial.id"]),
        Index(None, "study_id", "metric", "value", "trial_id"),
    )

    trial_id: Mapped[int] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    study_id: Mapped[int]
    value: Mapped[float] = mapped_column(nullable=True)
    stderr: Mapped[float] = mapped_column(nullable=True)
    samples: Mapped[int] = mapped_column(BigInteger)


class TrialVectorRow(Table):
    __tablename__ = "trial_vector"

    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[bytes | None]
    artifact: Mapped[str | None] = mapped_column(ForeignKey("artifact.hash"), index=True)


class SelectionRow(Table):
    __tablename__ = "selection"
    __table_args__ = (
        ForeignKeyConstraint(["study_id", "trial_id"], ["trial.study_id", "trial.id"]),
    )

    study_id: Mapped[int] = mapped_column(primary_key=True)
    request_key: Mapped[str] = mapped_column(primary_key=True)
    trial_id: Mapped[int]
    details: Mapped[dict[str, Any]]
    created: Mapped[str]


class ExportRow(Table):
    __tablename__ = "export"
    __table_args__ = (
        ForeignKeyConstraint(["study_id", "trial_id"], ["trial.study_id", "trial.id"]),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(index=True)
    trial_id: Mapped[int]
    format: Mapped[str]
    folder: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    audit: Mapped[dict[str, Any]]
    created: Mapped[str]


class JobRow(Table):
    __tablename__ = "job"
    __table_args__ = (Index(None, "state", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    study: Mapped[str] = mapped_column(index=True)
    request: Mapped[dict[str, Any]]
    state: Mapped[str]
    attempt: Mapped[int]
    worker: Mapped[str | None] = mapped_column(index=True)
    lease_until: Mapped[float | None] = mapped_column(Double)
    not_before: Mapped[float | None] = mapped_column(Double)
    failures: Mapped[int]
    stage: Mapped[str | None]
    done: Mapped[int] = mapped_column(BigInteger)
    total: Mapped[int] = mapped_column(BigInteger)
    since: Mapped[int] = mapped_column(BigInteger)
    stage_began: Mapped[float | None] = mapped_column(Double)
    progressed: Mapped[float | None] = mapped_column(Double)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created: Mapped[str]
    updated: Mapped[str]


class JobEventRow(Table):
    __tablename__ = "job_event"

    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    created: Mapped[str]
    details: Mapped[dict[str, Any]]


class WorkerRow(Table):
    """A worker while it lives. seen: when, by the database's clock (seconds since 1970). lease:
    seconds after that in which it is to be seen again."""

    __tablename__ = "worker"

    name: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    version: Mapped[str]
    started: Mapped[str]
    seen: Mapped[float] = mapped_column(Double)
    lease: Mapped[float] = mapped_column(Double)


class TimingRow(Table):
    """A kernel, or a whole model, on a target; seconds of one run."""

    __tablename__ = "timing"
    __table_args__ = (
        UniqueConstraint("target", "runtime", "device", "threads", "kernel", "scheme"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    target: Mapped[str]
    runtime: Mapped[str]
    device: Mapped[str]
    threads: Mapped[int]
    kernel: Mapped[str]
    scheme: Mapped[str]
    seconds: Mapped[float] = mapped_column(Double)
    spread: Mapped[float] = mapped_column(Double)
    repeats: Mapped[int] = mapped_column(BigInteger)
    created: Mapped[str]
