"""The contract of exporters, and what writing has in common.

stored  suffix -> (safetensors dtype name, shape) of one layer's tensors; a tensor's full name
        is the layer's, a dot and the suffix
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from bitfront.errors import ExportError
from bitfront.types import Layer, Scheme

from .container import Container
from .folders import MANIFEST, new_folder
from .stored import KEEP, tensor_name
from .tensorfiles import (
    SHARD_BYTES,
    Spec,
    TensorFolder,
    Unit,
    dtype_name,
    tensor_bytes,
    weights_place,
    write_files,
)
from .weights import QuantizedLayer

FORMAT_VERSION = 1
_GRIDS = ("input_", "output_")  # how tensors of one number begin
_TENSORS = (".safetensors", ".gguf", ".data")

_PACKAGES = (
    "bitfront", "torch", "transformers", "compressed-tensors", "safetensors", "onnx", "onnxscript",
    "onnxruntime", "diffusers", "sdnq", "gguf",
)  # fmt: skip


class Loadable(Container):
    """Writes a model to a folder that something else loads as a module. Stateless."""

    stands_alone: ClassVar[bool]  # whether the folder says what the model is, not only its weights

    @abstractmethod
    def open(self, folder: Path, model: nn.Module | None = None) -> nn.Module:
        """The exported model as its runtime loads it.

        model: a full-precision model of the same architecture, which is overwritten; needed unless
        the container ``stands_alone``. Raises as the runtime does.
        """

    def expected(
        self, model: nn.Module, layers: Sequence[Layer], schemes: Mapping[str, Scheme]
    ) -> dict[str, Any]:
        """What ``verify`` asks of the files besides their digests; JSON's types."""
        return {}

    def steps(
        self,
        layers: Sequence[Layer],
        schemes: Mapping[str, Scheme],
        quantized: Callable[[str], QuantizedLayer],
    ) -> dict[str, float]:
        """Tensor -> its one number, of the grids that inputs and outputs are rounded to."""
        return {}

    @abstractmethod
    def verify(self, folder: Path, expected: Mapping[str, Any]) -> int:
        """Bytes of all tensors in the folder's files.

        Raises ``ExportError`` where they are not what was written or not what was expected.
        """

    @abstractmethod
    def write(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        schemes: Mapping[str, Scheme],
        quantized: Callable[[str], QuantizedLayer],
        folder: Path,
        manifest: Mapping[str, Any],
        *,
        overwrite: bool = False,
        shard_bytes: int = SHARD_BYTES,
        check: Callable[[Path], object] | None = None,
    ) -> None:
        """Write ``model`` with each layer under its scheme; layers without one are kept.

        quantized: gives a layer's quantized weight; called once for each layer that is not kept,
        in the order of the model's tensors, and not for layers that share another's weight.
        manifest: JSON-like, what else a reader should know (figures of the trial, fingerprint).
        shard_bytes: of one file, where a container has several. check: called with the finished
        folder before it gets its name; raising keeps it away.

        The folder appears whole or not at all. Raises ``ExportError`` for pairs or models that the
        container cannot hold, and for a target that cannot be written.
        """


class Exporter(Loadable):
    """Writes a folder of safetensors files."""

    @abstractmethod
    def pack(self, layer: Layer, quantized: QuantizedLayer) -> Mapping[str, Tensor]:
        """The tensors of ``stored``, for a layer that is not kept."""

    def steps(
        self,
        layers: Sequence[Layer],
        schemes: Mapping[str, Scheme],
        quantized: Callable[[str], QuantizedLayer],
    ) -> dict[str, float]:
        found: dict[str, float] = {}
        for layer in layers:
            stored = self.stored(layer, schemes[layer.name])
            if any(suffix.startswith(_GRIDS) for suffix in stored):
                packed = self.pack(layer, quantized(layer.name))
                numbers = {s: float(packed[s]) for s in stored if s.startswith(_GRIDS)}
                found |= {tensor_name(layer.name, s): number for s, number in numbers.items()}
        return found

    def verify(self, folder: Path, expected: Mapping[str, Any]) -> int:
        files = TensorFolder(folder)
        files.verify(read_manifest(folder).digests)
        for name, number in expected.get("steps", {}).items():
            found = float(files.read(name)) if name in files.specs else None
            if found != number:
                raise ExportError(f"tensor {name!r} is {found}, not {number}", "export it again")
        return tensor_bytes(folder)

    def accompany(
        self, model: nn.Module, layers: Sequence[Layer], schemes: Mapping[str, Scheme], folder: Path
    ) -> Mapping[str, Any]:
        """Write what the runtime wants besides tensors; entries for the manifest."""
        return {}

    def write(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        schemes: Mapping[str, Scheme],
        quantized: Callable[[str], QuantizedLayer],
        folder: Path,
        manifest: Mapping[str, Any],
        *,
        overwrite: bool = False,
        shard_bytes: int = SHARD_BYTES,
        check: Callable[[Path], object] | None = None,
    ) -> None:
        schemes = self.completed(model, layers, schemes)
        units, aliases = self._plan(model, layers, schemes, quantized)
        with new_folder(folder, overwrite) as partial:
            about = self.accompany(model, layers, schemes, partial)
            digests = write_files(*weights_place(partial), units, shard_bytes)
            write_manifest(
                partial, self, layers, schemes, sum(unit.size for unit in units),
                {"aliases": aliases, **about}, manifest, digests,
            )  # fmt: skip
            if check is not None:
                check(partial)

    def _plan(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        schemes: Mapping[str, Scheme],
        quantized: Callable[[str], QuantizedLayer],
    ) -> tuple[list[Unit], dict[str, str]]:
        """What to write, in the order of the model's tensors; alias -> tensor's name."""
        state = tensors_of(model)
        first: dict[object, str] = {}  # identity of a tensor -> the name that stands for it
        packed: dict[str, Layer] = {}
        for layer in layers:
            if schemes[layer.name] == KEEP or layer.shares is not None:
                continue
            key = tensor_name(layer.name, "weight")
            if key not in state:
                raise ExportError(
                    f"layer {layer.name!r} has no plain weight", "keep the model plain"
                )
            first[identity(state[key])] = key
            packed[key] = layer
        units, aliases = [], {}
        for key, tensor in state.items():
            owner = first.setdefault(identity(tensor), key)
            if owner != key:
                aliases[key] = owner
            elif key in packed:
                units.append(self._unit(packed[key], schemes[packed[key].name], quantized))
            else:
                spec = Spec(key, dtype_name(tensor.dtype), tuple(tensor.shape))
                units.append(Unit((spec,), partial(dict, {key: tensor})))
        for layer in layers:
            if layer.shares is not None and self.stored(layer, schemes[layer.name]):
                units.append(self._unit(layer, schemes[layer.name], quantized))
        counts = Counter(spec.name for unit in units for spec in unit.specs)
        twice = [name for name, times in counts.items() if times > 1]
        if twice:
            raise ExportError(f"two tensors named {twice[0]!r}", "rename the model's own")
        return units, aliases

    def _unit(
        self, layer: Layer, scheme: Scheme, quantized: Callable[[str], QuantizedLayer]
    ) -> Unit:
        specs = layer_specs(self, layer, scheme)

        def make() -> Mapping[str, Tensor]:
            tensors = self.pack(layer, quantized(layer.name))
            return {tensor_name(layer.name, suffix): tensor for suffix, tensor in tensors.items()}

        return Unit(specs, make)


def layer_specs(exporter: Exporter, layer: Layer, scheme: Scheme) -> tuple[Spec, ...]:
    """The tensors of a layer in the file."""
    stored = exporter.stored(layer, scheme)
    return tuple(
        Spec(tensor_name(layer.name, s), dtype, shape) for s, (dtype, shape) in stored.items()
    )


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Name -> tensor of a model's parameters and persistent buffers, shared ones under each name.

    Raises ``ExportError`` for weights that are not in memory and for state that is no tensor.
    """
    state = model.state_dict()
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise ExportError(
                f"{key!r} is a {type(tensor).__name__}", "only tensors can be written"
            )
        if tensor.is_meta:
            raise ExportError(f"{key!r} has no data (meta device)", "load the model first")
    return dict(state)


def identity(tensor: Tensor) -> object:
    """Equal for tensors that are the same memory seen in the same way."""
    if not tensor.numel():
        return id(tensor)
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())


@dataclass(frozen=True, eq=False)
class Manifest:
    """What ``bitfront.json`` says that a reader needs.

    layers: each with its scheme. aliases: name -> the tensor stored for it. digests: tensor ->
    SHA-256. files: those beside the tensors -> SHA-256; none in manifests that are older.
    """

    exporter: str
    layers: tuple[tuple[Layer, Scheme], ...]
    aliases: Mapping[str, str]
    digests: Mapping[str, str]
    files: Mapping[str, str]

    def faults(self, folder: Path, exporter: str, schemes: Mapping[str, str]) -> Iterator[str]:
        """Where it is not of ``exporter`` and ``schemes``, and files that have changed since."""
        if self.exporter != exporter:
            yield f"its manifest is of {self.exporter}, not {exporter}"
        said = {layer.name: str(scheme) for layer, scheme in self.layers}
        odd = [name for name in {**said, **schemes} if said.get(name) != schemes.get(name)]
        if odd:
            yield (
                f"its manifest has layer {odd[0]!r} as {said.get(odd[0])}, not "
                f"{schemes.get(odd[0])}"
            )
        for name, digest in self.files.items():
            if not (folder / name).is_file():
                yield f"{name} is missing"
            elif _file_digest(folder / name) != digest:
                yield f"{name} has changed since it was written"


def write_manifest(
    folder: Path,
    container: Container,
    layers: Sequence[Layer],
    schemes: Mapping[str, Scheme],
    tensor_bytes: int,
    more: Mapping[str, Any],
    about: Mapping[str, Any],
    digests: Mapping[str, str],
) -> None:
    """Write ``bitfront.json``. more: entries of the container's own. about: the caller's."""
    content = {
        "format_version": FORMAT_VERSION,
        "exporter": container.name,
        "versions": _versions(),
        "tensor_bytes": tensor_bytes,
        "layers": {layer.name: _entry(layer, schemes[layer.name]) for layer in layers},
        **more,
        "about": dict(about),
        "digests": dict(digests),
        "files": {name: _file_digest(folder / name) for name in _beside(folder)},
    }
    (folder / MANIFEST).write_text(json.dumps(content, indent=1, allow_nan=True) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an exported folder. Raises ``ExportError`` when none is there, or damaged."""
    try:
        content = json.loads((folder / MANIFEST).read_text())
        found = content["format_version"]
        if found != FORMAT_VERSION:
            raise ExportError(
                f"{folder.name!r} is of format version {found}",
                f"this Bitfront reads {FORMAT_VERSION}",
            )
        return Manifest(
            content["exporter"],
            tuple(_layer(name, entry) for name, entry in content["layers"].items()),
            dict(content["aliases"]),
            dict(content["digests"]),
            dict(content.get("files", {})),
        )
    except OSError as error:
        raise ExportError(
            f"no {MANIFEST} in {folder.name!r}", "give a folder that was exported"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportError(f"{MANIFEST} in {folder.name!r} is damaged", "export it again") from error


def _beside(folder: Path) -> list[str]:
    """The files of a folder that hold no tensors with digests of their own.

    Those of a pipeline's other components are among them.
    """
    place, _ = weights_place(folder)
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not (path.parent == place and path.suffix in _TENSORS)
    )


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _layer(name: str, entry: Mapping[str, Any]) -> tuple[Layer, Scheme]:
    rows, cols = entry["shape"]
    layer = Layer(
        name, entry["kind"], rows, cols, entry["dtype"], shares=entry.get("shares"),
        attention=entry.get("attention", ""), head=entry.get("head", 0),
        kernel=tuple(entry.get("kernel", ())),
    )  # fmt: skip
    return layer, Scheme.parse(entry["scheme"])


def _entry(layer: Layer, scheme: Scheme) -> dict[str, Any]:
    shares = {} if layer.shares is None else {"shares": layer.shares}
    cache = {} if scheme.cache is None else {"attention": layer.attention, "head": layer.head}
    kernel = {"kernel": list(layer.kernel)} if layer.kernel else {}
    return {
        "scheme": str(scheme), "kind": layer.kind, "shape": [layer.rows, layer.cols],
        "dtype": layer.dtype, **shares, **cache, **kernel,
    }  # fmt: skip


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # not installed: nothing of it is in the file
    return found
