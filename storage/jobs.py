"""Jobs: submitted once, claimed by one driver at a time, and what became of them.

A driver holds a job under a lease, which it renews; when it dies the lease runs out, and another
claims the job. Each claim has a number, ``attempt``: what a driver says under an older one is not
heard, so a driver that lost its lease without knowing does no harm. A job that was paused or
cancelled keeps its lease until its driver has stopped, or that runs out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, func, insert, or_, select, update

from bitfront.errors import UnknownName
from bitfront.types import content_key

from .arrays import plain
from .engine import Database, clock, now
from .jobstates import MOVES, QUEUED, RUNNING, moved
from .models import TOO_LARGE, JobEventRow, JobRow
from .records import Job, JobEvent, JobProgress

LIMIT = 5  # failures in a row of one unit, after which the job fails


class Jobs(Database):
    """Submitting, claiming, watching and moving jobs. Every move is an event of its history."""

    def submit(self, kind: str, study: str, request: Mapping[str, Any]) -> tuple[Job, bool]:
        """The job of this request, and whether it is new: the same request is the same job."""
        fields = plain(request, "a job's request")
        key = content_key({"kind": kind, "study": study, "request": fields})
        moment = now()
        row = {
            "key": key, "kind": kind, "study": study, "request": fields, "state": QUEUED,
            "attempt": 0, "failures": 0, "done": 0, "total": 0, "since": 0,
            "created": moment, "updated": moment,
        }  # fmt: skip
        with self.writing() as connection:
            added = connection.execute(self.insert(JobRow).returning(JobRow.id), row)
            new = added.scalar_one_or_none()
            if new is not None:
                _note(connection, new, "submitted")
            one = select(JobRow.__table__).where(JobRow.key == key)
            return _job(connection.execute(one).one()), new is not None

    def job(self, id: int) -> Job:
        """Raises ``UnknownName``."""
        with self.reading() as connection:
            return _job(_row(connection, id))

    def jobs(
        self,
        states: Collection[str] = (),
        study: str | None = None,
        kind: str | None = None,
        limit: int | None = None,
        before: int | None = None,
    ) -> list[Job]:
        """Jobs, newest first: those in one of ``states`` (all if empty), of a study, of a kind.

        At most ``limit``, those with an id below ``before``.
        """
        query = select(JobRow.__table__)
        if states:
            query = query.where(JobRow.state.in_(sorted(states)))
        if study is not None:
            query = query.where(JobRow.study == study)
        if kind is not None:
            query = query.where(JobRow.kind == kind)
        if before is not None:
            query = query.where(JobRow.id < before)
        with self.reading() as connection:
            rows = connection.execute(query.order_by(JobRow.id.desc()).limit(limit))
            return [_job(row) for row in rows]

    def events(self, id: int, after: int = 0) -> list[JobEvent]:
        """The history of a job, oldest first, those with a number above ``after``.

        Raises ``UnknownName``.
        """
        E = JobEventRow
        query = select(E.number, E.kind, E.created, E.details).where(E.job_id == id)
        with self.reading() as connection:
            _row(connection, id)
            rows = connection.execute(query.where(E.number > after).order_by(E.number))
            return [JobEvent(*row) for row in rows]

    def claim(self, worker: str, lease: float) -> Job | None:
        """The oldest job that waits, or whose driver died, now held by ``worker``.

        lease: seconds until it may be claimed by others, unless renewed. A job whose drivers died
        ``LIMIT`` times in a row at the same place fails instead.
        """
        while True:
            with self.writing() as connection:
                moment = clock(connection)
                row = connection.execute(_claimable(moment)).first()
                if row is None:
                    return None
                values = self._claimed(connection, row, worker, moment + lease)
                changed = update(JobRow).where(JobRow.id == row.id).values(**values, updated=now())
                connection.execute(changed)
                if values["state"] == RUNNING:
                    return _job(_row(connection, row.id))

    def _claimed(
        self, connection: Connection, row: Any, worker: str, until: float
    ) -> dict[str, Any]:
        """What a claim changes of a job."""
        lost: dict[str, Any] = {}
        if row.state == RUNNING:
            unit = _place(row)
            lost = _failure(row, f"worker {row.worker} was lost", "see its log", unit)
            _note(connection, row.id, "lost", worker=row.worker, unit=unit)
            if lost["failures"] >= LIMIT:
                _note(connection, row.id, "failed", **lost["error"])
                return {**lost, "state": moved(row.id, row.state, "fail"), **_FREE}
        _note(connection, row.id, "claimed", worker=worker, attempt=row.attempt + 1)
        return {
            **lost, "state": moved(row.id, row.state, "claim"), "attempt": row.attempt + 1,
            "worker": worker, "lease_until": until, "not_before": None,
        }  # fmt: skip

    def renew(self, job: Job, lease: float) -> str | None:
        """Hold a claimed job ``lease`` seconds from now; its state. None if the lease was lost."""
        return self._under(job, lambda connection, row: {"lease_until": clock(connection) + lease})

    def advance(self, job: Job, stage: str, done: int, total: int) -> str | None:
        """Note how far a claimed job is; its state. None if the lease was lost."""

        def change(connection: Connection, row: Any) -> dict[str, Any]:
            moment = clock(connection)
            values = {"done": done, "total": total, "progressed": moment}
            if row.stage == stage and row.total == total and row.done <= done:
                return values
            if row.stage != stage:
                _note(connection, row.id, "stage", stage=stage)
            return {**values, "stage": stage, "since": done, "stage_began": moment}

        return self._under(job, change)

    def succeed(self, job: Job, result: Mapping[str, Any]) -> str | None:
        """A claimed job came to its end; its state. None if the lease was lost.

        One that was cancelled stays so.
        """
        fields = plain(result, "a job's result")

        def change(connection: Connection, row: Any) -> dict[str, Any]:
            if row.state not in MOVES["succeed"]:
                return dict(_FREE)
            _note(connection, row.id, "succeeded")
            after = moved(row.id, row.state, "succeed")
            return {**_FREE, "state": after, "result": fields, "error": None, "failures": 0}

        return self._under(job, change)

    def stopped(self, job: Job) -> str | None:
        """The driver of a job that is not to run any more has ended; its state.

        One that still runs is queued again. None if the lease was lost.
        """

        def change(connection: Connection, row: Any) -> dict[str, Any]:
            _note(connection, row.id, "stopped", worker=row.worker)
            if row.state != RUNNING:
                return dict(_FREE)
            return {**_FREE, "state": moved(row.id, row.state, "retry")}

        return self._under(job, change)

    def failed(
        self, job: Job, text: str, hint: str = "", unit: str = "", again: float | None = None
    ) -> str | None:
        """A unit of a claimed job failed; the job's state. None if the lease was lost.

        text, hint: of the error. again: seconds until it may be tried again, twice as many after
        each failure of the same unit, and not after ``LIMIT`` of them; None for never.
        """

        def change(connection: Connection, row: Any) -> dict[str, Any]:
            failure = _failure(row, text, hint, unit)
            if row.state != RUNNING:
                return {**failure, **_FREE}
            if again is None or failure["failures"] >= LIMIT:
                _note(connection, row.id, "failed", **failure["error"])
                return {**failure, **_FREE, "state": moved(row.id, row.state, "fail")}
            wait = again * 2.0 ** (failure["failures"] - 1)
            _note(connection, row.id, "retry", **failure["error"], seconds=wait)
            return {
                **failure, **_FREE, "state": moved(row.id, row.state, "retry"),
                "not_before": clock(connection) + wait,
            }  # fmt: skip

        return self._under(job, change)

    def move(self, id: int, name: str) -> Job:
        """Pause, resume or cancel a job. Raises ``UnknownName`` and ``IllegalMove``."""
        with self.writing() as connection:
            row = _row(connection, id, lock=True)
            values: dict[str, Any] = {"state": moved(id, row.state, name), "updated": now()}
            if name == "resume":
                values |= {"failures": 0, "not_before": None}
            connection.execute(update(JobRow).where(JobRow.id == id).values(**values))
            _note(connection, id, {"cancel": "cancelled"}.get(name, f"{name}d"))
            return _job(_row(connection, id))

    def _under(self, job: Job, change: Any) -> str | None:
        """Change a claimed job, if ``job`` is of its last claim; the state after it."""
        with self.writing() as connection:
            row = _row(connection, job.id, lock=True)
            if row.attempt != job.attempt or row.worker != job.worker:
                return None
            values = {**change(connection, row), "updated": now()}
            connection.execute(update(JobRow).where(JobRow.id == job.id).values(**values))
            return str(values.get("state", row.state))


_FREE: Mapping[str, Any] = {"worker": None, "lease_until": None}


def _claimable(moment: float) -> Any:
    free = or_(JobRow.lease_until.is_(None), JobRow.lease_until < moment)
    due = or_(JobRow.not_before.is_(None), JobRow.not_before <= moment)
    query = select(JobRow.__table__).where(JobRow.state.in_([QUEUED, RUNNING]), free, due)
    return query.order_by(JobRow.id).limit(1).with_for_update(skip_locked=True)


def _row(connection: Connection, id: int, lock: bool = False) -> Any:
    query = select(JobRow.__table__).where(JobRow.id == (id if 0 < id < TOO_LARGE else 0))
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise UnknownName(f"no job {id}", "see 'bitfront jobs list'")
    return row


def _note(connection: Connection, id: int, kind: str, **details: Any) -> None:
    last = select(func.max(JobEventRow.number)).where(JobEventRow.job_id == id)
    row = {
        "job_id": id, "number": (connection.scalar(last) or 0) + 1, "kind": kind, "created": now(),
        "details": details,
    }  # fmt: skip
    connection.execute(insert(JobEventRow), row)


def _failure(row: Any, text: str, hint: str, unit: str) -> dict[str, Any]:
    """What one more failure changes. Failures in a row are those of one unit."""
    before = row.failures if row.error and row.error.get("unit") == unit else 0
    return {"failures": before + 1, "error": {"text": text, "hint": hint, "unit": unit}}


def _place(row: Any) -> str:
    """Where a job was when it was last heard of."""
    return f"{row.stage} {row.done}/{row.total}" if row.stage else ""


def _job(row: Any) -> Job:
    fields = row._mapping
    progress = None
    if row.stage is not None:
        seconds = row.progressed - row.stage_began
        progress = JobProgress(row.stage, row.done, row.total, row.since, seconds)
    names = Job.__dataclass_fields__.keys() - {"progress"}
    return Job(**{name: fields[name] for name in names}, progress=progress)
