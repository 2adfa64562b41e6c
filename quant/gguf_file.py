"""GGUF files, written one tensor at a time and read without being loaded, by the gguf package."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bitfront.errors import ExportError

_WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}
TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclass(frozen=True)
class Planned:
    """A tensor that is to be written.

    type: as GGUF names it. row: bytes of the last dimension. make: gives its bytes, uint8 of shape
    (..., row).
    """

    name: str
    type: str
    shape: tuple[int, ...]
    row: int
    make: Callable[[], Tensor]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape[:-1]) * self.row


def plain(name: str, tensor: Tensor, make: Callable[[], Tensor]) -> Planned:
    """A tensor of numbers, each for itself. make: gives it."""
    kind = TYPES[tensor.dtype]
    row = tensor.shape[-1] * _WIDTHS[kind]
    return Planned(name, kind, tuple(tensor.shape), row, lambda: as_bytes(make()))


def as_bytes(tensor: Tensor) -> Tensor:
    """A tensor's own bytes, (..., bytes of the last dimension) uint8."""
    return tensor.detach().cpu().contiguous().view(torch.uint8)


def require_gguf() -> None:
    """Raises ``ExportError`` where the package is not installed."""
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise ExportError("gguf is not installed", "pip install 'bitfront[gguf]'") from error


def write(
    path: Path, architecture: str, metadata: Mapping[str, Any], tensors: Sequence[Planned]
) -> dict[str, str]:
    """Write a file; tensor -> SHA-256 of its bytes.

    metadata: whole numbers are unsigned, those of lists signed. Raises ``OSError``, and
    ``ExportError`` when a tensor is made otherwise than planned.
    """
    require_gguf()
    import gguf
    import numpy as np

    out = gguf.GGUFWriter(path, architecture)
    try:
        out.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for key, value in metadata.items():
            _add(out, key, value)
        for tensor in tensors:
            out.add_tensor_info(
                tensor.name, (*tensor.shape[:-1], tensor.row), np.dtype(np.uint8), tensor.size,
                raw_dtype=gguf.GGMLQuantizationType[tensor.type],
            )  # fmt: skip
        out.write_header_to_file()
        out.write_kv_data_to_file()
        out.write_ti_data_to_file()
        digests = {}
        for tensor in tensors:
            data = tensor.make().numpy()
            if data.nbytes != tensor.size:
                raise ExportError(
                    f"{tensor.name!r} has {data.nbytes} bytes",
                    f"{tensor.size} were planned; report this",
                )
            out.write_tensor_data(data)
            digests[tensor.name] = hashlib.sha256(data.data).hexdigest()
        return digests
    finally:
        out.close()


def _add(out: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        out.add_bool(key, value)
    elif isinstance(value, int):
        out.add_uint32(key, value)
    elif isinstance(value, float):
        out.add_float32(key, value)
    elif isinstance(value, str):
        out.add_string(key, value)
    else:
        out.add_array(key, value)


class GgufFile:
    """A file's metadata and tensors. Raises ``ExportError`` for one that is not whole."""

    def __init__(self, path: Path) -> None:
        require_gguf()
        import gguf

        try:
            reader = gguf.GGUFReader(path)
            self.metadata = {key: field.contents() for key, field in reader.fields.items()}
        except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
            raise ExportError(f"{path.name} is not a whole GGUF file", "export it again") from error
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}

    @property
    def types(self) -> dict[str, str]:
        """Tensor -> its type."""
        return {name: tensor.tensor_type.name for name, tensor in self._tensors.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor -> its shape, rows first."""
        return {
            name: tuple(int(n) for n in reversed(tensor.shape))
            for name, tensor in self._tensors.items()
        }

    @property
    def bytes(self) -> int:
        """Of all tensors, without what aligns them."""
        return sum(int(tensor.n_bytes) for tensor in self._tensors.values())

    @property
    def digests(self) -> dict[str, str]:
        """Tensor -> SHA-256 of its bytes."""
        return {
            name: hashlib.sha256(tensor.data.tobytes()).hexdigest()
            for name, tensor in self._tensors.items()
        }
