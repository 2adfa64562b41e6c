"""Ways to damage an exported folder: each changes what it says and nothing else.

``sign`` makes the manifest's digests those of the files as they are now, as if the exporter itself
had written what is wrong: then only weights, settings and outputs can tell.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bitfront.quant.export_gguf import FILE as GGUF
from bitfront.quant.export_onnx import FILE as ONNX
from bitfront.quant.folders import MANIFEST
from bitfront.quant.tensorfiles import weights_place

INDEX = "model.safetensors.index.json"

Place = tuple[Path, int, int]  # a file, the first byte of a tensor in it, bytes


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit of a file; negative offsets count from its end."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


def cut(path: Path, count: int) -> None:
    """Cut the last ``count`` bytes of a file."""
    path.write_bytes(path.read_bytes()[:-count])


def document(path: Path, change: Callable[[Any], object]) -> None:
    """Change a JSON document."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=1))


def manifest(folder: Path, change: Callable[[Any], object]) -> None:
    """Change ``bitfront.json``."""
    document(folder / MANIFEST, change)


# ------------------------------------------------------------------------------ tensors in place


def place(folder: Path, name: str) -> Place:
    """Where a tensor's bytes are."""
    if (folder / GGUF).is_file():
        from gguf import GGUFReader

        tensor = next(t for t in GGUFReader(folder / GGUF).tensors if t.name == name)
        return folder / GGUF, int(tensor.data_offset), int(tensor.n_bytes)
    if (folder / ONNX).is_file():
        return _in_graph(folder, name)
    for path in _shards(folder):
        entry, start = header(path)
        if name in entry:
            begin, end = entry[name]["data_offsets"]
            return path, start + begin, end - begin
    raise KeyError(name)


def _in_graph(folder: Path, name: str) -> Place:
    import onnx

    graph = onnx.load(folder / ONNX, load_external_data=False).graph
    tensor = next(t for t in graph.initializer if t.name == name)
    beside = {entry.key: entry.value for entry in tensor.external_data}
    if beside:
        return folder / beside["location"], int(beside["offset"]), int(beside["length"])
    whole, data = (folder / ONNX).read_bytes(), bytes(tensor.raw_data)
    message = tensor.SerializeToString()  # in which bytes come last
    return folder / ONNX, whole.index(message) + message.rindex(data), len(data)


def _shards(folder: Path) -> list[Path]:
    return sorted(weights_place(folder)[0].glob("*.safetensors"))


def header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its tensors begin."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), 8 + length


def taken(at: Place) -> bytes:
    """The bytes of a place."""
    path, begin, size = at
    return path.read_bytes()[begin : begin + size]


def put(at: Place, data: bytes) -> None:
    """Overwrite a place."""
    path, begin, size = at
    assert len(data) == size
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(data)


def bit(folder: Path, name: str, byte: int = 0, number: int = 0) -> None:
    """Flip one bit of a tensor."""
    path, begin, size = place(folder, name)
    assert byte < size
    flip(path, begin + byte, number)


def scaled(folder: Path, name: str, dtype: str, factor: float, first: int | None = None) -> None:
    """Multiply the ``first`` numbers of a tensor, or all."""
    at = place(folder, name)
    numbers = np.frombuffer(taken(at), dtype).copy()
    numbers[:first] = (numbers[:first] * np.float64(factor)).astype(dtype)
    put(at, numbers.tobytes())


def exchanged(folder: Path, first: str, second: str) -> None:
    """Exchange the bytes of two tensors of one size."""
    places = place(folder, first), place(folder, second)
    data = [taken(at) for at in places]
    assert data[0] != data[1]
    put(places[0], data[1])
    put(places[1], data[0])


# ------------------------------------------------------------------------------ whole files


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the tensors of a safetensors file: name -> tensor."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def shard_of(folder: Path, name: str) -> Path:
    """The safetensors file that holds a tensor."""
    return place(folder, name)[0]


def graph(folder: Path, change: Callable[[Any], object]) -> None:
    """Change the graph of an ONNX model; what stands beside it stays."""
    import onnx

    model = onnx.load(folder / ONNX, load_external_data=False)
    change(model.graph)
    onnx.save_model(model, folder / ONNX)


def nodes(graph: Any, operator: str) -> list[Any]:
    """The nodes of an operator, in order."""
    return [node for node in graph.node if node.op_type == operator]


def attribute(node: Any, name: str) -> Any:
    """An attribute of a node."""
    return next(a for a in node.attribute if a.name == name)


def initializer(graph: Any, name: str) -> Any:
    """A tensor of a graph."""
    return next(t for t in graph.initializer if t.name == name)


def setting(folder: Path, key: str, value: float) -> None:
    """Set a number in the metadata of a GGUF file."""
    from gguf import GGUFReader

    field = GGUFReader(folder / GGUF, "r+").fields[key]
    field.parts[field.data[0]][0] = value


def tokens_exchanged(folder: Path) -> None:
    """Exchange two tokens of one length in the vocabulary of a GGUF file."""
    from gguf import GGUFReader

    field = GGUFReader(folder / GGUF, "r+").fields["tokenizer.ggml.tokens"]
    places = [field.parts[index] for index in field.data[-20:]]
    a, b = next((a, b) for a in places for b in places if len(a) == len(b) and (a != b).any())
    a[:], b[:] = b.copy(), a.copy()


def renamed(path: Path, first: bytes, second: bytes) -> None:
    """Exchange two names of one length wherever they stand in a file."""
    data = path.read_bytes()
    free = next(c * len(first) for c in (b"\xff", b"\xfe", b"#") if c * len(first) not in data)
    assert len(first) == len(second)
    assert first in data
    assert second in data
    path.write_bytes(data.replace(first, free).replace(second, first).replace(free, second))


# ------------------------------------------------------------------------------ the manifest


def sign(folder: Path) -> None:
    """Make the manifest's digests and sizes those of the files."""
    digests, size = _found(folder)

    def change(content: Any) -> None:
        content |= {"digests": digests, "tensor_bytes": size}
        for name in content.get("files", {}):
            content["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()

    manifest(folder, change)


def _found(folder: Path) -> tuple[Mapping[str, str], int]:
    if (folder / GGUF).is_file():
        from bitfront.quant.gguf_file import GgufFile

        file = GgufFile(folder / GGUF)
        return file.digests, file.bytes
    tensors: dict[str, bytes] = {}
    if (folder / ONNX).is_file():
        import onnx

        graph = onnx.load(folder / ONNX).graph
        tensors = {t.name: t.raw_data for t in graph.initializer}
    else:
        for path in _shards(folder):
            names = [name for name in header(path)[0] if name != "__metadata__"]
            tensors |= {name: taken(place(folder, name)) for name in names}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in tensors.items()}
    return digests, sum(map(len, tensors.values()))
