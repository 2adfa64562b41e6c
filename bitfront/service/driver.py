"""One claimed job: kept under its lease, told of pauses, run to its end, tried again.

A job stops at the end of a unit: wherever an action reports progress, the driver looks whether the
job is still to run, and leaves the action by ``Stopped`` where it is not. What was measured until
then is recorded, so whoever claims the job next goes on from there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from bitfront.errors import BitfrontError, ClusterError, StorageError
from bitfront.storage import Job, Store
from bitfront.storage.jobstates import RUNNING

from .actions import Host, run
from .beating import beating

EVERY = 0.25  # seconds between reports of progress to the database, at least
AGAIN = 1.0  # seconds until a unit that failed is tried again, doubled after each failure
CLUSTER = 30.0  # the same of a cluster that is away, which takes longer to come back
PATIENCE = 600.0  # seconds that a database may be out of reach
LONGEST = 15.0  # seconds between two attempts to reach it

log = logging.getLogger(__name__)

Made = TypeVar("Made")


class Stopped(Exception):
    """The job is not to run any more."""


class Held:
    """A claimed job while its driver works: its lease is renewed, and it hears what becomes of it.

    stop: set to make the driver stop at the end of a unit. unit: what was last reported, in words.
    """

    def __init__(self, store: Store, job: Job, lease: float, stop: threading.Event) -> None:
        self._store, self._job, self._lease, self._stop = store, job, lease, stop
        self._state: str | None = job.state
        self._reported = -EVERY
        self.unit = ""

    def progress(self, what: str, done: int, total: int) -> None:
        """As an action reports it. Raises ``Stopped`` where the job is not to go on."""
        stage = self.unit.rpartition(" ")[0]
        self.unit = f"{what} {done}/{total}"
        moment = time.monotonic()
        if what != stage or done >= total or moment - self._reported >= EVERY:
            self._reported = moment
            self._state = self._store.advance(self._job, what, done, total)
        if self._state != RUNNING or self._stop.is_set():
            raise Stopped(self._state or "its lease was lost")

    def renew(self) -> None:
        try:
            self._state = self._store.renew(self._job, self._lease)
        except StorageError as error:
            log.warning("job %d: the lease was not renewed: %s", self._job.id, error)


def drive(store: Store, job: Job, host: Host, lease: float, stop: threading.Event) -> str | None:
    """Run a claimed job; its state afterwards, None if another driver has it.

    store: the host's database. lease: seconds for which the job is held at a time. A unit that
    fails is tried again later, but not where the request is at fault. Raises ``StorageError`` when
    the database cannot be written to (``patiently``).
    """
    held = Held(store, job, lease, stop)
    with beating(lease / 3, held.renew):
        try:
            result = run(job.kind, job.study, dict(job.request), host, held.progress)
        except Stopped as why:
            log.info("job %d stopped: %s", job.id, why)
            return patiently(lambda: store.stopped(job))
        except Exception as error:
            text, hint, again = told(error)
            log.warning("job %d: %s", job.id, text, exc_info=again is not None)
            return patiently(lambda: store.failed(job, text, hint, held.unit, again))
        return patiently(lambda: store.succeed(job, result))


def told(error: Exception) -> tuple[str, str, float | None]:
    """An error in words, what to do about it, and after how many seconds to try again."""
    if isinstance(error, BitfrontError):
        passing = {StorageError: AGAIN, ClusterError: CLUSTER}
        return error.what, error.remedy, passing.get(type(error))
    return f"{type(error).__name__}: {error}", "see the worker's log", AGAIN


def patiently(action: Callable[[], Made]) -> Made:
    """What ``action`` gives, tried again where the database is only out of reach for a while.

    Raises ``StorageError`` after ``PATIENCE``, and for what does not pass.
    """
    began, wait = time.monotonic(), 0.25
    while True:
        try:
            return action()
        except StorageError as error:
            if not error.passing or time.monotonic() - began > PATIENCE:
                raise
            log.warning("%s; trying again", error)
        time.sleep(wait)
        wait = min(2 * wait, LONGEST)
