"""A worker: claims jobs one after another and drives them."""

from __future__ import annotations

import os
import socket
import threading
import uuid

from bitfront.executors import Wanted
from bitfront.storage import Store

from .actions import Host
from .driver import drive, patiently
from .policy import Policy
from .presence import present

LEASE = 30.0  # seconds
POLL = 1.0  # seconds between two looks for a job


class Worker:
    """Claims jobs of one database until it is stopped. Several of them may share a database.

    db: where it is, as of ``Store.open``. name: of this worker in histories; by default host,
    process and a random part. lease: seconds after which the job of a worker that died is claimed
    by another. executor: that does a job's units; by default the worker's process. policy: what
    jobs may load; anything without one. Raises ``InvalidInput`` for an executor that cannot be
    made.
    """

    def __init__(
        self,
        db: str | None,
        name: str | None = None,
        lease: float = LEASE,
        executor: Wanted | None = None,
        policy: Policy | None = None,
    ) -> None:
        executor = executor or Wanted()
        executor.made()  # what cannot be made is refused before a job is claimed
        self.host, self.lease = Host(db, executor, policy), lease
        self.name = name or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._stop = threading.Event()

    def stop(self) -> None:
        """Stop when the unit that is measured now has ended; its job is queued again."""
        self._stop.set()

    def run(self, *, idle: bool = True, poll: float = POLL) -> int:
        """Drive jobs until ``stop``; how many were driven.

        idle: wait for further jobs when there are none, and do not end. poll: seconds between two
        looks. Raises ``StorageError`` when the database cannot be opened, or stays out of reach.
        """
        driven = 0
        with (
            Store.open(self.host.db) as store,
            present(store, self.name, self.lease),
        ):
            while not self._stop.is_set():
                job = patiently(lambda: store.claim(self.name, self.lease))
                if job is not None:
                    drive(store, job, self.host, self.lease, self._stop)
                    driven += 1
                    if store.folder is not None:
                        patiently(store.collect)  # what the job's passes left
                elif idle:
                    self._stop.wait(poll)
                else:
                    break
        return driven
