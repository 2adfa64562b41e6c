"""Tensors that need not fit in memory: kept in RAM up to a limit, beyond it in mapped files."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DEFAULT_LIMIT = 2 << 30  # bytes


class Scratch:
    """Room for CPU tensors that live as long as this object: the first ``limit`` bytes in RAM.

    Further tensors are maps of unlinked-on-close files under ``folder`` (default: the system's
    folder for temporary files), which the kernel writes out when memory is short.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT, folder: Path | None = None) -> None:
        self._left = limit
        self._parent = folder
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An uninitialized tensor. Raises ``OSError`` when the disk is full."""
        import torch

        size = math.prod(shape) * dtype.itemsize
        if size <= self._left:
            self._left -= size
            return torch.empty(shape, dtype=dtype)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="bitfront-", dir=self._parent)
        path = Path(self._folder.name, f"{self._files}.bin")
        self._files += 1
        with path.open("wb") as file:
            file.truncate(size)
            if hasattr(os, "posix_fallocate"):  # else a full disk ends the process without a word
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
        flat = torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=dtype)
        return flat.reshape(shape)

    def keep(self, tensor: Tensor) -> Tensor:
        """A copy of ``tensor`` on the CPU, of its dtype and shape."""
        copy = self.empty(tuple(tensor.shape), tensor.dtype)
        copy.copy_(tensor.detach())
        return copy

    def close(self) -> None:
        """Remove the files. Tensors made here must not be used any more."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> Scratch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
