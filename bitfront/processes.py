"""An executor of processes on this machine, which share the model's weights.

Each process makes the task anew from its recipe. Its weights are then maps of one file that the
first study wrote: pages that no process changes are in memory once. A layer that is quantized for
a measurement takes pages of its own, in the process that quantizes it.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from bitfront.tasks.numbers import require

if TYPE_CHECKING:
    from bitfront.tasks.base import Task
    from bitfront.units import Unit
    from bitfront.workbench import Workbench

WEIGHTS = "weights.safetensors"


class Processes:
    """``workers`` processes, started when the first units are there.

    threads: of each one's arithmetic (default: this process's number, shared out). Raises
    ``InvalidInput`` for fewer than one of either.
    """

    def __init__(self, workers: int, threads: int | None = None) -> None:
        require(1, workers=workers, threads=threads)
        self._workers = workers
        self._threads = threads or max(1, torch.get_num_threads() // workers)
        self._folder: TemporaryDirectory[str] | None = None
        self._pool: ProcessPoolExecutor | None = None

    @property
    def workers(self) -> int:
        return self._workers

    def map(self, bench: Workbench, units: Sequence[Unit]) -> Iterator[tuple[int, Any]]:
        """Raises ``ModelError`` for a task that no other process can make anew."""
        if not units:
            return
        pool = self._started(bench.task)
        waiting: dict[Future[Any], int] = {pool.submit(_do, u): i for i, u in enumerate(units)}
        failed: BaseException | None = None
        try:
            for future in as_completed(waiting):
                if future.cancelled():
                    continue
                error = future.exception()
                if error is None:
                    yield waiting[future], future.result()
                elif failed is None:
                    failed = error
                    for other in waiting:
                        other.cancel()
        finally:
            for other in waiting:
                other.cancel()
        if isinstance(failed, BrokenProcessPool):
            self.close()
            raise RuntimeError("a process that measured was killed: is memory short?") from failed
        if failed is not None:
            raise failed

    def close(self) -> None:
        """Wait for the units that are being done, and end the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _started(self, task: Task) -> ProcessPoolExecutor:
        if self._pool is None:
            recipe = task.recipe()
            self._folder = TemporaryDirectory(prefix="bitfront-")
            path = Path(self._folder.name, WEIGHTS)
            shared = path if _shared(task, path) else None
            self._pool = ProcessPoolExecutor(
                self._workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start,
                initargs=(recipe, shared, self._threads),
            )
        return self._pool


def _shared(task: Task, path: Path) -> bool:
    """Write the model's weights for all processes; whether that is of use: only on a CPU."""
    from safetensors.torch import save_file

    tensors = task.tensors()
    if any(t.device.type != "cpu" for t in tensors.values()):
        return False
    save_file({name: t.detach().contiguous() for name, t in tensors.items()}, path)
    return True


_bench: Workbench | None = None  # of a process of the pool


def _start(recipe: Mapping[str, Any], shared: Path | None, threads: int) -> None:
    """Make a process's workbench, once."""
    global _bench
    from safetensors import safe_open

    from bitfront.tasks import from_recipe
    from bitfront.workbench import Workbench

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who interrupts the others ends this one too
    torch.set_num_threads(threads)
    task = from_recipe(recipe)
    if shared is not None:
        with safe_open(shared, framework="pt") as file:
            for name, tensor in task.tensors().items():
                tensor.data = file.get_tensor(name)
    _bench = Workbench(task)


def _do(unit: Unit) -> Any:
    assert _bench is not None
    return unit.do(_bench)
