"""safetensors files, written one tensor at a time and read without being loaded.

A file is 8 bytes of header length, a JSON header ``{name: {dtype, shape, data_offsets}}``, then the
tensors without holes. All offsets follow from names, dtypes and shapes, so the header is written
first and each tensor goes to its place when it is made: no second copy of the model in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bitfront.errors import ExportError

STEM = "model"
PIPELINE = "model_index.json"  # in the folder of a diffusers pipeline
DENOISERS = ("unet", "transformer")  # what a pipeline may call the part with the weights
SHARD_BYTES = 5_000_000_000
_GREATEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "BOOL": torch.bool, "C64": torch.complex64,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Spec:
    """Name, dtype (as safetensors spells it) and shape of one stored tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True, slots=True)
class Unit:
    """Tensors that are made together: what they will be, and how to get them."""

    specs: tuple[Spec, ...]
    make: Callable[[], Mapping[str, Tensor]]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(spec.size for spec in self.specs)


def dtype_name(dtype: torch.dtype) -> str:
    """The safetensors name of a dtype. Raises ``ExportError`` for one that has none."""
    if dtype not in _NAMES:
        raise ExportError(f"tensors of {dtype}", f"safetensors holds {', '.join(DTYPES)}")
    return _NAMES[dtype]


def digest(tensor: Tensor) -> str:
    """SHA-256 (hex) of a tensor's bytes."""
    return hashlib.sha256(_bytes(tensor)).hexdigest()


def weights_place(folder: Path) -> tuple[Path, str]:
    """Where the weights of an exported folder stand, and what their files' names begin with.

    In the folder itself, or in a pipeline's in that of its denoiser.
    """
    if (folder / PIPELINE).is_file():
        for name in DENOISERS:
            if (folder / name).is_dir():
                return folder / name, "diffusion_pytorch_model"
    return folder, STEM


def write_files(folder: Path, stem: str, units: Sequence[Unit], shard_bytes: int) -> dict[str, str]:
    """Write all units to ``folder``, in files of about ``shard_bytes``; tensor -> digest.

    One file is called ``STEM.safetensors``; several are numbered, with an index as transformers
    reads it. A unit is never split. Raises ``OSError`` as the file system does, and ``ExportError``
    when a unit makes other tensors than it said.
    """
    shards = _shards(units, shard_bytes)
    names = [
        f"{stem}.safetensors"
        if len(shards) == 1
        else f"{stem}-{i:05}-of-{len(shards):05}.safetensors"
        for i in range(1, len(shards) + 1)
    ]
    digests: dict[str, str] = {}
    for name, shard in zip(names, shards, strict=True):
        with (folder / name).open("wb") as file:
            digests |= _write_shard(file, shard)
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(unit.size for unit in units)},
            "weight_map": {
                spec.name: name
                for name, shard in zip(names, shards, strict=True)
                for unit in shard
                for spec in unit.specs
            },
        }
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return digests


def read_header(path: Path) -> dict[str, Spec]:
    """What a safetensors file holds. Raises ``ExportError`` for a file that is not whole."""
    remedy = "copy or export it again"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_GREATEST_HEADER, size - 8):
                raise ExportError(f"{path.name} is not a whole safetensors file", remedy)
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        specs, spans = {}, []
        for name, entry in header.items():
            spec = specs[name] = Spec(name, entry["dtype"], tuple(map(int, entry["shape"])))
            begin, end = entry["data_offsets"]
            if end - begin != spec.size:
                raise ExportError(f"tensor {name!r} of {path.name} has a wrong length", remedy)
            spans.append((begin, end))
    except OSError as error:
        raise ExportError(f"cannot read {path.name}: {error.strerror}", remedy) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportError(f"the header of {path.name} is damaged", remedy) from error
    ends = [0, *(end for _, end in sorted(spans))]
    if [begin for begin, _ in sorted(spans)] != ends[:-1] or ends[-1] != size - 8 - length:
        raise ExportError(f"{path.name} has {size} bytes, not those of its header", remedy)
    return specs


def tensor_bytes(folder: Path) -> int:
    """Bytes of all tensors in a folder's safetensors files, by their headers."""
    return sum(spec.size for spec in TensorFolder(folder).specs.values())


class TensorFolder:
    """The tensors of an exported folder, mapped into memory and read one at a time.

    specs: name -> what it is, of all files. Raises ``ExportError`` for a folder without weights,
    with a missing shard, or with files that are not whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.specs: dict[str, Spec] = {}
        self._files: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        places = self._places()
        for path in self._paths(places):
            for name, spec in read_header(path).items():
                self.specs[name] = spec
                self._files[name] = path
        for name, path in self._files.items():
            if places.get(name, path.name) != path.name:
                raise ExportError(
                    f"tensor {name!r} is in {path.name}, in the index in {places[name]}",
                    "copy the whole folder, or export it again",
                )

    def _places(self) -> dict[str, str]:
        """Tensor -> file, as the index says; nothing where there is no index."""
        folder, stem = weights_place(self.folder)
        index = folder / f"{stem}.safetensors.index.json"
        if not index.is_file():
            return {}
        try:
            found = json.loads(index.read_text())["weight_map"]
            return {str(name): str(place) for name, place in found.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ExportError(f"{index.name} is damaged", "export it again") from error

    def _paths(self, places: Mapping[str, str]) -> list[Path]:
        folder, stem = weights_place(self.folder)
        names = sorted(set(places.values())) or [f"{stem}.safetensors"]
        for name in names:
            if not (folder / name).is_file():
                raise ExportError(f"{name} is missing", "copy the whole folder, or export it again")
        return [folder / name for name in names]

    def read(self, name: str) -> Tensor:
        """One tensor, a view of the mapped file."""
        path = self._files[name]
        try:
            if path not in self._open:
                self._open[path] = safe_open(path, framework="pt")
            tensor: Tensor = self._open[path].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ExportError(f"cannot read {path.name}: {error}", "export it again") from error
        return tensor

    def verify(self, digests: Mapping[str, str]) -> None:
        """Raise ``ExportError`` for the first tensor whose bytes are not those of ``digests``."""
        if set(digests) != set(self.specs):
            odd = sorted(set(digests) ^ set(self.specs))
            raise ExportError(
                f"the files and their manifest differ in {_some(odd)}", "export it again"
            )
        for name in self.specs:
            if digest(self.read(name)) != digests[name]:
                raise ExportError(
                    f"tensor {name!r} in {self._files[name].name} is damaged",
                    "copy or export it again",
                )


def _shards(units: Sequence[Unit], shard_bytes: int) -> list[list[Unit]]:
    shards: list[list[Unit]] = [[]]
    filled = 0
    for unit in units:
        if shards[-1] and filled + unit.size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(unit)
        filled += unit.size
    return shards


def _write_shard(file: BinaryIO, units: Sequence[Unit]) -> dict[str, str]:
    specs = [spec for unit in units for spec in unit.specs]
    # widest elements first, so that every tensor is aligned, as the library itself lays them out
    specs.sort(key=lambda spec: (-DTYPES[spec.dtype].itemsize, spec.name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offsets, end = {}, 0
    for spec in specs:
        offsets[spec.name] = end
        end += spec.size
        header[spec.name] = {
            "dtype": spec.dtype, "shape": spec.shape, "data_offsets": [offsets[spec.name], end],
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    start = 8 + len(text)
    file.truncate(start + end)
    digests = {}
    for unit in units:
        made = unit.make()
        for spec in unit.specs:
            tensor = made[spec.name]
            if (dtype_name(tensor.dtype), tuple(tensor.shape)) != (spec.dtype, spec.shape):
                raise ExportError(
                    f"{spec.name!r} is {tensor.dtype} {tuple(tensor.shape)}",
                    f"{spec.dtype} {spec.shape} was planned; report this",
                )
            data = _bytes(tensor)
            file.seek(start + offsets[spec.name])
            file.write(data)
            digests[spec.name] = hashlib.sha256(data).hexdigest()
    return digests


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
