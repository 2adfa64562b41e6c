"""Reusing the unchanged beginning of a forward pass.

    blocks   modules that run one after another, once each: elements of ModuleLists and Sequentials
    k        the first k blocks are skipped; block k - 1 answers with its recorded output, those
             before it with zeros of the right shape, which nothing downstream may read

Whether nothing does (a U-Net's skips do) is not guessed from the architecture: each k is tried on
the first batch and used only if the outputs are bit-identical to a full run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from bitfront.scratch import Scratch
from bitfront.tasks.base import Batch, Task


class _Reached(BaseException):  # no task may take it for an error of the model
    """The block whose output was wanted has answered; the rest of the forward is not needed."""


class Prefix:
    """Runs a task's batches with the first blocks answered from memory."""

    def __init__(self, task: Task, batches: Sequence[Batch], scratch: Scratch) -> None:
        self._task = task
        self._batches = batches
        self._scratch = scratch
        self._sound: dict[int, bool] = {0: True}
        self._depth = 0  # whose boundary is recorded
        self._boundary: list[Any] = []  # per batch: output of block depth - 1
        self._shapes: list[list[Any]] = []  # per batch and skipped block: output without its data
        self._blocks, self._ends, self._starts = _trace(task, batches[0])

    def depth(self, layer: str) -> int:
        """How many blocks may be skipped when only ``layer`` changes (0: none)."""
        start = self._starts.get(layer, 0)
        k = sum(end < start for end in self._ends)
        while not self._is_sound(k):
            k -= 1
        return k

    def advance(self, k: int) -> None:
        """Record what block k - 1 answers in the unchanged model, for all batches."""
        if k == self._depth:
            return
        if k < self._depth:
            self._forget()
        if k:
            try:
                fresh = [self._record(batch, index, k) for index, batch in enumerate(self._batches)]
            except BaseException:  # boundaries are overwritten one by one: half are new, half old
                self._forget()
                raise
            self._boundary = [boundary for boundary, _ in fresh]
            self._shapes = [shapes for _, shapes in fresh]
        self._depth = k

    def _forget(self) -> None:
        self._depth, self._boundary, self._shapes = 0, [], []

    def outputs(self, batch: Batch, index: int) -> Tensor:
        """The task's outputs on batch number ``index``, computed from the recorded boundary on."""
        with self._skipping(index):
            return self._task.outputs(batch)

    def _is_sound(self, k: int) -> bool:
        if k not in self._sound:
            first = self._batches[:1]
            trial = Prefix.__new__(Prefix)
            trial.__dict__.update(self.__dict__, _batches=first, _depth=0, _boundary=[], _shapes=[])
            trial.advance(k)
            with torch.no_grad():
                self._sound[k] = torch.equal(
                    trial.outputs(first[0], 0), self._task.outputs(first[0])
                )
        return self._sound[k]

    def _record(self, batch: Batch, index: int, k: int) -> tuple[Any, list[Any]]:
        known = self._shapes[index] if self._shapes else []
        shapes: list[Any] = []
        kept: list[Any] = []

        def watch(position: int) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                shapes.append(tree_map(_hollow, output))
                if position == k - 1:
                    kept.append(self._keep(output, index))
                    raise _Reached

            return hook

        with ExitStack() as stack, torch.no_grad():
            stack.enter_context(self._skipping(index))
            for position in range(self._depth, k):
                block = self._task.module(self._blocks[position])
                stack.callback(block.register_forward_hook(watch(position)).remove)
            with suppress(_Reached):
                self._task.outputs(batch)
        return kept[0], known + shapes

    def _keep(self, output: Any, index: int) -> Any:
        """A copy of ``output`` on the CPU, in the place of the last boundary where that fits."""
        leaves, structure = tree_flatten(output)
        last = tree_leaves(self._boundary[index]) if self._boundary else []
        for i, leaf in enumerate(leaves):
            if not isinstance(leaf, Tensor):
                continue
            old = last[i] if i < len(last) else None
            if isinstance(old, Tensor) and (old.shape, old.dtype) == (leaf.shape, leaf.dtype):
                leaves[i] = old.copy_(leaf)
            else:
                leaves[i] = self._scratch.keep(leaf)
        return tree_unflatten(leaves, structure)

    @contextmanager
    def _skipping(self, index: int) -> Iterator[None]:
        with ExitStack() as stack:
            for position in range(self._depth):
                answer = (
                    self._boundary[index]
                    if position == self._depth - 1
                    else self._shapes[index][position]
                )
                block = self._task.module(self._blocks[position])
                stack.enter_context(_answering(block, answer, self._task.device))
            yield


@contextmanager
def _answering(block: nn.Module, answer: Any, device: torch.device) -> Iterator[None]:
    """``block`` answers every call with ``answer`` instead of running."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        # copied: what follows may change it in place
        return tree_map(lambda t: t.to(device, copy=True) if isinstance(t, Tensor) else t, answer)

    had = block.__dict__.get("forward")
    block.forward = forward
    try:
        yield
    finally:
        if had is None:
            del block.forward
        else:
            block.forward = had


def _hollow(leaf: Any) -> Any:
    """A tensor of the same shape and dtype that holds a single zero."""
    if not isinstance(leaf, Tensor):
        return leaf
    return torch.zeros((), dtype=leaf.dtype).expand(leaf.shape)


def _trace(task: Task, batch: Batch) -> tuple[list[str], list[int], dict[str, int]]:
    """Outermost list elements that run once, in order; when each ends; when each layer starts."""
    model = task.model
    elements: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            prefix = f"{name}." if name else ""
            elements += [prefix + child for child, _ in module.named_children()]
    outermost = [n for n in elements if not any(n.startswith(f"{o}.") for o in elements)]
    layers = [layer.name for layer in task.layers]
    clock = 0
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    calls = dict.fromkeys(outermost, 0)

    def begin(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            nonlocal clock
            clock += 1
            starts.setdefault(name, clock)

        return hook

    def end(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            nonlocal clock
            clock += 1
            ends[name] = clock
            calls[name] += 1

        return hook

    with ExitStack() as stack, torch.no_grad():
        for name in layers:
            stack.callback(model.get_submodule(name).register_forward_pre_hook(begin(name)).remove)
        for name in outermost:
            stack.callback(model.get_submodule(name).register_forward_hook(end(name)).remove)
        task.outputs(batch)
    blocks = sorted((n for n in outermost if calls[n] == 1), key=ends.__getitem__)
    return blocks, [ends[n] for n in blocks], starts
