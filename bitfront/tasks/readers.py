"""Which layers' outputs a ReLU reads and nothing else: seen in one forward, by operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten
_RELUS = {_aten.relu.default, _aten.relu_.default}
_BOUNDED = {_aten.hardtanh.default, _aten.hardtanh_.default}  # ReLU6 is one


class Readers(TorchDispatchMode):
    """Watches, while it is active, what reads the outputs that it is told of.

    A view of an output is a reader like any other, so that nothing behind it is missed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._keep: list[StorageWeakRef] = []  # while these live, no address stands for two
        self._made: dict[int, str] = {}  # storage -> layer whose output it holds
        self._unread: dict[int, str] = {}  # those that no ReLU has read yet
        self._other: set[str] = set()  # layers with another reader
        self._layers: set[str] = set()
        self._ceilings: dict[str, set[float]] = {}  # of the ReLUs that read a layer

    def made(self, layer: str, y: Tensor) -> None:
        """Watch an output of ``layer``."""
        key = self._key(y)
        self._layers.add(layer)
        self._made[key] = self._unread[key] = layer

    def read(self, tensor: Tensor) -> None:
        """Something that is no operation reads ``tensor``: the caller of the model."""
        layer = self._made.get(self._key(tensor))
        if layer is not None:
            self._other.add(layer)

    def rectified(self) -> dict[str, float]:
        """The layers of which each output was read by a ReLU, and by nothing else -> its ceiling.

        That is 0 where it has none.
        """
        found = self._layers - self._other - set(self._unread.values())
        ceilings = {name: self._ceilings[name] for name in found}
        return {name: 0.0 if 0.0 in of else max(of) for name, of in ceilings.items()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor) and self._made:
                key = self._key(tensor)
                if key not in self._made:
                    continue
                ceiling = _ceiling(func, args)
                if ceiling is not None:
                    self._unread.pop(key, None)
                    self._ceilings.setdefault(self._made[key], set()).add(ceiling)
                    if func._schema.is_mutable:
                        del self._made[key]  # it holds what the ReLU made from now on
                else:
                    self._other.add(self._made[key])
        return func(*args, **kwargs)

    def _key(self, tensor: Tensor) -> int:
        self._keep.append(StorageWeakRef(tensor.untyped_storage()))
        return int(self._keep[-1].cdata)


def _ceiling(func: Any, args: tuple[Any, ...]) -> float | None:
    """Of a ReLU, 0 where it has none; None of other operations."""
    if func in _RELUS:
        return 0.0
    if func in _BOUNDED and len(args) > 2 and args[1] == 0 and args[2] > 0:
        return float(args[2])
    return None
