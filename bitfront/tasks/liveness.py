"""What a forward pass keeps in memory: its activations, from when to when, and who reads them.

An activation is a stretch of memory that an operation wrote, from then until the last operation
that reads it. Views of it are it; an operation that writes in place begins a new one in the same
memory. Weights and buffers are none. What is returned lives to the end, what is given from the
start. Operations are those of PyTorch's dispatcher: what one of them allocates for itself is not
seen.

    cut   the activations that are live while one operation runs, those it writes among them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from .base import Batch, Task
from .trace import tensors

OTHER = ""  # a reader that is no layer


@dataclass(frozen=True)
class Activation:
    """bytes: in full precision. width: bits of an element there; 0 where it is no floating-point
    number. readers: the layers that read it, and ``OTHER``. tokens: T of the input (N, T, K) that
    it is to a layer, else 1."""

    bytes: int
    width: int
    readers: frozenset[str]
    tokens: int = 1


@dataclass(frozen=True)
class Liveness:
    """cuts: indices of ``activations``; each cut that is no part of another."""

    activations: tuple[Activation, ...]
    cuts: tuple[tuple[int, ...], ...]


def liveness(task: Task) -> Liveness:
    """What one sample of the calibration data keeps in memory.

    Of a batch, every tensor whose first dimension is the batch's samples is cut to one. Raises what
    ``Task.outputs`` does.
    """
    batch = task.calibration[0]
    n = batch.samples
    one = Batch(_first(tuple(batch.args), n), _first(dict(batch.kwargs), n), 1)
    return watched(task.model, [layer.name for layer in task.layers], lambda: task.outputs(one))


def watched(model: nn.Module, layers: Sequence[str], run: Callable[[], Any]) -> Liveness:
    """What ``run()``, which calls ``model`` or parts of it, keeps in memory inside of them."""
    recorder = _Recorder(model)
    handles = []
    known = set(layers)
    for name, module in model.named_modules():
        at = name if name in known else None
        handles.append(
            module.register_forward_pre_hook(recorder.entering(at), with_kwargs=True, prepend=True)
        )
        handles.append(module.register_forward_hook(recorder.leaving(), always_call=True))
    try:
        with torch.no_grad(), recorder:
            run()
    finally:
        for handle in handles:
            handle.remove()
    return recorder.found()


@dataclass(eq=False)
class _Stretch:
    """An activation as it is recorded. born, last: numbers of operations."""

    bytes: int
    width: int
    born: int
    last: int
    readers: set[str] = field(default_factory=set)
    tokens: int = 1


class _Recorder(TorchDispatchMode):
    """Follows every operation from where the first module starts to where the last one ends."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.keep: list[StorageWeakRef] = []  # while these live, no address stands for two
        weights = (*model.parameters(), *model.buffers())
        self.constant = {self._place(t) for t in weights}
        self.now: dict[int, _Stretch] = {}  # storage -> what it holds
        self.all: list[_Stretch] = []
        self.stack: list[str | None] = []
        self.started = False
        self.step = 0
        self.end = 0  # of the outermost module that ended last
        self.returned: list[_Stretch] = []  # by that one

    def entering(self, name: str | None) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.started = True
            self.stack.append(name)
            x = next(tensors((args, kwargs)), None)
            if name is not None and x is not None and x.ndim > 2:
                stretch = self._of(x)
                if stretch is not None:
                    stretch.tokens = max(stretch.tokens, x.shape[-2])

        return hook

    def leaving(self) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self.stack.pop()
            if not self.stack:
                self.end = self.step
                self.returned = [s for t in tensors(output) if (s := self._of(t)) is not None]

        return hook

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if self.started:
            self._note(func, args, kwargs or {}, output)
        return output

    def found(self) -> Liveness:
        for stretch in self.returned:
            stretch.last = self.end
            stretch.readers.add(OTHER)
        alive = [s for s in self.all if s.bytes and s.born <= min(s.last, self.end)]
        activations = tuple(
            Activation(s.bytes, s.width, frozenset(s.readers), s.tokens) for s in alive
        )
        return Liveness(activations, _cuts([(s.born, min(s.last, self.end)) for s in alive]))

    def _note(self, func: Any, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        read = {self._place(t): t for t in tensors((args, kwargs))}
        written = {self._place(t): t for t in tensors(output)}
        mutated = _mutated(func, args, kwargs)
        if written and not mutated and written.keys() <= read.keys():
            return  # a view
        self.step += 1
        reader = next((name for name in reversed(self.stack) if name is not None), OTHER)
        changed = {self._place(t) for t in mutated}
        for place, tensor in read.items():
            stretch = self._of(tensor)
            if stretch is not None:
                stretch.last = self.step
                stretch.readers.add(OTHER if place in changed else reader)
        for place in changed:
            if place in self.now:  # from the next operation on: this one has the old in its place
                self._begin(place, self.now[place].bytes, self.now[place].width, self.step + 1)
        for place, tensor in written.items():
            if place not in self.now and place not in self.constant:
                self._begin(place, *_size(tensor), self.step)

    def _of(self, tensor: Tensor) -> _Stretch | None:
        """What ``tensor`` is a view of; None for weights. What is new was given from the start."""
        place = self._place(tensor)
        if place in self.constant:
            return None
        if place not in self.now:
            self._begin(place, *_size(tensor), 0)
        return self.now[place]

    def _begin(self, place: int, size: int, width: int, born: int) -> None:
        self.now[place] = _Stretch(size, width, born, self.step)
        self.all.append(self.now[place])

    def _place(self, tensor: Tensor) -> int:
        self.keep.append(StorageWeakRef(tensor.untyped_storage()))
        return int(self.keep[-1].cdata)


def _size(tensor: Tensor) -> tuple[int, int]:
    width = 8 * tensor.element_size() if tensor.is_floating_point() else 0
    return tensor.untyped_storage().nbytes(), width


def _mutated(func: Any, args: Any, kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The arguments that an operation writes into, by its schema."""
    found = []
    schema = getattr(func, "_schema", None)  # operators of higher order have none
    for index, argument in enumerate(schema.arguments if schema else ()):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[index] if index < len(args) else kwargs.get(argument.name)
            found += list(tensors(given))
    return found


def _cuts(spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """The sets of ``spans`` (first, last) that share a number, but none inside another."""
    births = sorted(range(len(spans)), key=lambda i: spans[i][0])
    deaths = sorted(range(len(spans)), key=lambda i: spans[i][1])
    live: set[int] = set()
    cuts, waiting, grown = [], 0, False
    for i in deaths:  # all that are born until then are live, and not in a cut before it
        while waiting < len(births) and spans[births[waiting]][0] <= spans[i][1]:
            live.add(births[waiting])
            waiting, grown = waiting + 1, True
        if grown:
            cuts.append(tuple(sorted(live)))
            grown = False
        live.discard(i)
    return tuple(cuts)


def _first(value: Any, samples: int) -> Any:
    """A copy of ``value``, of its tensors whose first dimension is samples the first sample."""
    if isinstance(value, Tensor):
        return (value[:1] if value.dim() and len(value) == samples else value).clone()
    if isinstance(value, dict):
        return {k: _first(v, samples) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_first(v, samples) for v in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_first(v, samples) for v in value)
    return value
