"""A worker's row in the database, for as long as it works."""

from __future__ import annotations

import logging
import socket
import threading
from types import TracebackType

from bitfront import __version__
from bitfront.errors import StorageError
from bitfront.storage import Store
from bitfront.storage.engine import now

log = logging.getLogger(__name__)


class Presence:
    """While it is entered, the database is told several times within ``lease`` that the worker
    ``name`` lives. What it cannot be told is logged: jobs are not held by this."""

    def __init__(self, store: Store, name: str, lease: float) -> None:
        self._store, self._name, self._lease = store, name, lease
        self._started = now()
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Presence:
        self._tell()
        self._beating.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._beating.join()
        try:
            self._store.worker_ended(self._name)
        except StorageError as reason:
            log.warning("worker %s is still listed: %s", self._name, reason)

    def _beat(self) -> None:
        while not self._ended.wait(self._lease / 3):
            self._tell()

    def _tell(self) -> None:
        host = socket.gethostname()
        try:
            self._store.worker_seen(self._name, host, __version__, self._started, self._lease)
        except StorageError as reason:
            log.warning("worker %s may be listed as lost: %s", self._name, reason)
