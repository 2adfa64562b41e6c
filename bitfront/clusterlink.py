"""The connection of this process to a Ray cluster, and whether the cluster is still there.

Ray's own way of noticing that a head is gone is to end the process after 60 seconds, and connecting
to one that is gone waits without end: so the head is asked here, by a plain connection.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from bitfront.errors import ClusterError, InvalidInput

AUTO = "auto"
CURRENT = Path("/tmp/ray/ray_current_cluster")  # where a node notes its cluster (``ray.init``)
PATIENCE = 20.0  # seconds that a head may be out of reach, or no node have room
REACH = 5.0  # seconds for the head to answer


def check(address: str) -> None:
    """Raises ``InvalidInput`` where Ray is not installed, or for what is no address."""
    if importlib.util.find_spec("ray") is None:
        raise InvalidInput("Ray is not installed", "run pip install 'bitfront[ray]'")
    if address != AUTO:
        host_port(address)


def host_port(address: str) -> tuple[str, int]:
    """Raises ``InvalidInput`` for what is not HOST:PORT."""
    host, _, port = address.rpartition(":")
    if "//" in address or not host or not port.isdecimal():
        raise InvalidInput(
            f"Ray address {address!r}", "give HOST:PORT of the head, like 10.0.0.1:6379, or auto"
        )
    return host.strip("[]"), int(port)


class Link:
    """A connection: this process's, where there is one; else one that ``close`` ends.

    demand: what a unit needs of a node. Raises ``ClusterError`` where there is no cluster.
    """

    def __init__(self, address: str, demand: Mapping[str, float]) -> None:
        import ray

        self._demand = demand
        self._own = not ray.is_initialized()
        if self._own:
            _connect(address)
        context = ray.get_runtime_context()
        self._head, self._node = context.gcs_address, context.get_node_id()
        self._room, self._well = 0, float("-inf")

    def room(self) -> int:
        """How many units there is room for, at least one, as far as is known.

        Raises ``ClusterError`` where there has been no room, or no cluster, for ``PATIENCE``.
        """
        try:
            room, why = self._counted(), "no node has room for it"
        except ClusterError as error:
            room, why = 0, error.what
        if room:
            self._room, self._well = room, time.monotonic()
        elif time.monotonic() - self._well > PATIENCE:
            needed = ", ".join(f"{amount:g} {name}" for name, amount in self._demand.items())
            raise ClusterError(
                f"nothing does a unit of {needed}: {why}", "see 'ray status', or ask for less"
            )
        return self._room

    def close(self) -> None:
        """End what was begun."""
        import ray

        if self._own:
            ray.shutdown()

    def _counted(self) -> int:
        import ray

        _reach(self._head)
        alive = [node for node in ray.nodes() if node["Alive"]]
        if all(node["NodeID"] != self._node for node in alive):
            raise ClusterError("the node of this machine is gone", "start it again")
        return sum(
            min(int(node["Resources"].get(n, 0) // needed) for n, needed in self._demand.items())
            for node in alive
        )


def _connect(address: str) -> None:
    import ray

    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS") or AUTO
    if address == AUTO and CURRENT.is_file():
        address = CURRENT.read_text().strip()
    if address != AUTO:
        _reach(address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        words = " ".join(str(error).split())
        raise ClusterError(
            f"no connection to a Ray cluster ({address}): {words}", "see 'ray status'"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray's would end a worker in the middle of a unit


def _reach(address: str) -> None:
    """Raises ``ClusterError`` where nothing listens at ``address``."""
    try:
        socket.create_connection(host_port(address), REACH).close()
    except OSError as error:
        raise ClusterError(
            f"no head of a Ray cluster at {address}: {error.strerror or error}",
            "start one with 'ray start --head'",
        ) from error
