"""An executor of a Ray cluster: each unit is a task of Ray's, on whichever machine has room.

The model is put once into Ray's object store; processes of a machine read its weights from there
without a copy (``clusternode``). Ray gives units that a machine took with it to another. Results
come back as they are known, so whoever records them loses no more than what was being done.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any

from bitfront.clusterlink import AUTO, Link, check
from bitfront.clusternode import do, shipped
from bitfront.errors import ClusterError, InvalidInput
from bitfront.tasks.boundary import describe
from bitfront.tasks.numbers import require

if TYPE_CHECKING:
    from bitfront.tasks.base import Task
    from bitfront.units import Unit
    from bitfront.workbench import Workbench

RETRIES = 3  # of a unit whose machine or process died
AHEAD = 2  # units handed out for each that is done, so that none waits for this process
LOOK = 2.0  # seconds between two looks at the cluster


class Cluster:
    """Ray tasks, each with ``cpus`` cores, as many threads of arithmetic, ``gpus`` and ``memory``.

    address: HOST:PORT of the head; ``auto`` for the cluster of this machine, which must be a node
    of it. gpus: up to 1; a part of one lets units share it. memory: bytes that Ray keeps free for a
    unit. Connected when there is something to do. Raises ``InvalidInput`` for other numbers, and
    where Ray is not installed.
    """

    def __init__(
        self, address: str = AUTO, cpus: int = 1, gpus: float = 0.0, memory: int = 0
    ) -> None:
        require(1, cpus=cpus)
        require(0, memory=memory)
        if not 0 <= gpus <= 1:
            raise InvalidInput(f"gpus {gpus:g}", "give from 0 to 1: a unit runs on one device")
        check(address)
        self._address = address
        self._asked = {"num_cpus": cpus, "num_gpus": gpus, "memory": memory}
        demand = {"CPU": cpus, "GPU": gpus, "memory": memory}
        self._demand = {name: float(amount) for name, amount in demand.items() if amount}
        self._connected: Link | None = None
        self._task: Task | None = None
        self._shipped: Any = None  # Ray's reference

    @property
    def workers(self) -> int:
        """At least 2: units are for the cluster, also where it does one at a time."""
        return max(2, self._link().room())

    def map(self, bench: Workbench, units: Sequence[Unit]) -> Iterator[tuple[int, Any]]:
        """Where a unit fails, those that were handed out already are done too.

        Raises ``ClusterError`` where the cluster is lost, and ``ModelError`` for a task that no
        other process can make anew.
        """
        if not units:
            return
        import ray
        from ray.exceptions import RayError, RayTaskError

        # max_calls: Ray would end processes that used a GPU, and with them their workbench
        remote = ray.remote(max_retries=RETRIES, max_calls=0, **self._asked)(do)
        left = iter(enumerate(units))
        waiting: dict[Any, int] = {}
        failed: RayError | None = None
        try:
            room, looked = self._link().room(), monotonic()
            task = self._ship(bench.task)
            while True:
                free = 0 if failed else max(0, AHEAD * room - len(waiting))
                for index, unit in islice(left, free):
                    waiting[remote.remote(task.hex(), [task], pickle.dumps(unit))] = index
                if not waiting:
                    break
                done, _ = ray.wait(list(waiting), timeout=LOOK)
                for ref in done:
                    index = waiting.pop(ref)
                    try:
                        found = ray.get(ref)
                    except RayError as error:
                        failed = failed or error
                        continue
                    yield index, pickle.loads(found)
                if monotonic() - looked > LOOK:
                    room, looked = self._link().room(), monotonic()
        except (ClusterError, RayError) as error:
            waiting.clear()  # nobody is there to be told
            self.close()
            if isinstance(error, ClusterError):
                raise
            raise _lost("the cluster", error) from error
        finally:
            for ref in waiting:
                ray.cancel(ref)
        if isinstance(failed, RayTaskError):
            raise failed.cause from failed
        if failed is not None:
            raise _lost(f"a unit, tried {RETRIES + 1} times,", failed) from failed

    def close(self) -> None:
        """End the connection, if it was made here; units that are being done end with it."""
        self._task = self._shipped = None
        if self._connected is not None:
            self._connected.close()
            self._connected = None

    def _link(self) -> Link:
        if self._connected is None:
            self._connected = Link(self._address, self._demand)
        return self._connected

    def _ship(self, task: Task) -> Any:
        """Reference to the task in the object store."""
        import ray

        if self._task is not task:
            if task.device.type != "cpu" and not self._asked["num_gpus"]:
                raise InvalidInput(
                    f"a task on {task.device} and units without a GPU", "give each unit one"
                )
            self._shipped = ray.put(shipped(task, int(self._asked["num_cpus"])))
            self._task = task
        return self._shipped


def _lost(what: str, error: Exception) -> ClusterError:
    """Ray's words of it in one line."""
    return ClusterError(f"{what} was lost: {describe(error)}", "see Ray's logs: is memory short?")
