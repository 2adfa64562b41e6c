"""A worker's row in the database, for as long as it works."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from bitfront import __version__
from bitfront.errors import StorageError
from bitfront.storage import Store
from bitfront.storage.engine import now

from .beating import beating

log = logging.getLogger(__name__)


@contextmanager
def present(store: Store, name: str, lease: float) -> Iterator[None]:
    """Within the block the database is told several times in ``lease`` seconds that the worker
    ``name`` lives. What it cannot be told is logged: jobs are not held by this."""
    host, started = socket.gethostname(), now()

    def tell() -> None:
        try:
            store.worker_seen(name, host, __version__, started, lease)
        except StorageError as reason:
            log.warning("worker %s may be listed as lost: %s", name, reason)

    def leave() -> None:
        try:
            store.worker_ended(name)
        except StorageError as reason:
            log.warning("worker %s is still listed: %s", name, reason)

    tell()
    try:
        with beating(lease / 3, tell):
            yield
    finally:
        leave()
