"""What is done to a folder, whatever its container: files, names, settings, schemes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import damage as d
from benchmarks.exports import Export

Change = Callable[[Export, Path], object]


@dataclass(frozen=True)
class Corruption:
    """what: was done to the folder of ``export``. signed: see above."""

    export: str
    what: str
    change: Change
    signed: bool = False

    @property
    def name(self) -> str:
        """Unlike all others."""
        return f"{self.export}: {self.what}{', signed' if self.signed else ''}"

    def apply(self, export: Export, folder: Path) -> None:
        """Damage ``folder``, a copy of the sound one."""
        self.change(export, folder)
        if self.signed:
            d.sign(folder)


def attn(block: int, part: str) -> str:
    return f"model.layers.{block}.self_attn.{part}_proj"


def mlp(block: int, part: str) -> str:
    return f"model.layers.{block}.mlp.{part}_proj"


Q1, O1 = (attn(1, part) for part in "qo")
LAST = "model-*.safetensors"


def copied(source: str, pattern: str) -> Change:
    """Put files of another folder of the export in place of its own."""

    def change(export: Export, folder: Path) -> None:
        origin = getattr(export, source)
        found = sorted(path.relative_to(origin) for path in origin.glob(pattern))
        assert found
        assert any((origin / p).read_bytes() != (folder / p).read_bytes() for p in found)
        for path in found:
            shutil.copyfile(origin / path, folder / path)

    return change


def whole(source: Callable[[Export], Path], *, keep_manifest: bool = False) -> Change:
    """Another folder in place of this one. keep_manifest: but for what it says of layers."""

    def change(export: Export, folder: Path) -> None:
        layers = json.loads((folder / "bitfront.json").read_text())["layers"]
        shutil.rmtree(folder)
        shutil.copytree(source(export), folder)
        if keep_manifest:
            d.manifest(folder, lambda m: m.update(layers=layers))

    return change


def config(**values: Any) -> Change:
    """Other values in ``config.json``."""
    return lambda e, f: d.document(f / "config.json", lambda c: c.update(values))


def in_file(path: Path, name: str) -> None:
    """Flip a bit of a name where it first stands in a file."""
    d.flip(path, path.read_bytes().index(name.encode()))


def removed(pattern: str) -> Change:
    def change(export: Export, folder: Path) -> None:
        sorted(folder.glob(pattern))[-1].unlink()

    return change


def scheme(layer: str, words: str) -> Change:
    """Another scheme of a layer in the manifest."""
    return lambda e, f: d.manifest(f, lambda m: m["layers"][layer].update(scheme=words))


def tensors(layer_tensor: str, change: Callable[[dict[str, Any]], object]) -> Change:
    """Change the tensors of the shard that holds one."""
    return lambda e, f: d.rewritten(d.shard_of(f, layer_tensor), change)


def in_graph(change: Callable[[Any], object]) -> Change:
    return lambda e, f: d.graph(f, change)


def names_exchanged(first: str, second: str) -> Change:
    """In every file: weights, and what the manifest says of them."""

    def change(export: Export, folder: Path) -> None:
        for path in folder.iterdir():
            data = path.read_bytes()
            if first.encode() in data and second.encode() in data and path.name != "bitfront.json":
                d.renamed(path, first.encode(), second.encode())

    return change
