"""What the processes of a Ray cluster do: units, on a workbench that each of them keeps.

Torch is not loaded with this module, but when the first unit is there: by then it is known how its
threads are to wait.
"""

from __future__ import annotations

import os
import pickle
import socket
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitfront import __version__
from bitfront.errors import BitfrontError, ModelError, StudyMismatch

if TYPE_CHECKING:
    import torch

    from bitfront.tasks.base import Task
    from bitfront.workbench import Workbench

SMALL = 64 << 10  # bytes of a tensor that each process has for itself
ALIGNED = 64  # bytes: torch's own memory begins at a multiple, and sums depend on where it does


@dataclass(frozen=True, eq=False)
class Shipped:
    """A task as it is put into the cluster's memory, once.

    threads: of the arithmetic of a unit. weights: name -> dtype, shape, bytes (n,) of every
    parameter and buffer.
    """

    version: str
    recipe: Mapping[str, Any]
    fingerprint: Mapping[str, str]
    threads: int
    weights: Mapping[str, tuple[str, tuple[int, ...], NDArray[np.uint8]]]


def shipped(task: Task, threads: int) -> Shipped:
    """Raises ``ModelError`` for a task that no other process can make anew."""
    import torch

    weights = {}
    for name, tensor in tensors(task).items():
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        dtype = str(tensor.dtype).removeprefix("torch.")
        weights[name] = (dtype, tuple(tensor.shape), flat.numpy())
    return Shipped(__version__, task.recipe(), task.fingerprint(), threads, weights)


def tensors(task: Task) -> dict[str, torch.Tensor]:
    """Name -> parameter or buffer of the model, shared ones once."""
    return dict([*task.model.named_parameters(), *task.model.named_buffers()])


_kept: tuple[tuple[str, str], Workbench] | None = None  # of this process: the last task's


def do(key: str, task: list[Any], unit: bytes) -> bytes:
    """What a unit gives. Both are pickled here, so that arrays come out writable, as elsewhere.

    task: a reference to what was shipped, in a list, so that Ray fetches it where it is asked for.
    key: of it.
    """
    global _kept
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it
    bench = _workbench(key, task)
    try:
        return pickle.dumps(pickle.loads(unit).do(bench))
    except KeyboardInterrupt:  # cancelled, somewhere
        _kept = None
        raise


def _workbench(key: str, task: list[Any]) -> Workbench:
    """This process's, made anew for another task, or where Ray gives it another GPU."""
    global _kept
    import ray

    device = _device()
    if _kept is None or _kept[0] != (key, device):
        from bitfront.workbench import Workbench

        if _kept is not None:
            _kept[1].close()
        _kept = None
        _kept = (key, device), Workbench(_made(ray.get(task[0]), device))
    return _kept[1]


def _device() -> str:
    """The one that Ray gives this unit."""
    import ray

    gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"]
    if not gpus:
        return "cpu"
    # CUDA reads it once, but the next unit of this process may be given another GPU
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    return f"cuda:{gpus[0]}"


def _made(given: Shipped, device: str) -> Task:
    """The task on this node. Raises ``ModelError`` and ``StudyMismatch`` that name the node."""
    import torch

    from bitfront.tasks import from_recipe

    node = f"node {socket.gethostname()}"
    if given.version != __version__:
        raise ModelError(
            f"{node} has Bitfront {__version__}, not {given.version}", "install the same everywhere"
        )
    torch.set_num_threads(given.threads)
    try:
        task = from_recipe({**given.recipe, "device": device})
    except BitfrontError as error:
        raise ModelError(
            f"{node} cannot make the task: {error.what}",
            "what a task names must be at the same place on every node",
        ) from error
    here = task.fingerprint()
    differ = [n for n, v in given.fingerprint.items() if n != "weights" and here.get(n) != v]
    if differ:
        raise StudyMismatch(
            f"{node} makes another task: {', '.join(differ)} differ", "give every node the same"
        )
    _lend(task, given)
    return task


def _lend(task: Task, given: Shipped) -> None:
    """Give the task the weights of the study: large ones stay in the node's shared memory."""
    import torch

    from bitfront.quant.surgery import borrow

    for name, tensor in tensors(task).items():
        dtype, shape, data = given.weights[name]
        with warnings.catch_warnings():  # read-only: ``borrow`` sees to it
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            memory = torch.from_numpy(data).view(getattr(torch, dtype)).reshape(shape)
        shared = len(data) >= SMALL and memory.data_ptr() % ALIGNED == 0
        if shared and isinstance(tensor, torch.nn.Parameter) and tensor.device.type == "cpu":
            borrow(tensor, memory)
        else:
            with torch.no_grad():
                tensor.copy_(memory)
