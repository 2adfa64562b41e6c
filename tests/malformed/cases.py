"""Malformed input on the command line: one line that says what was wrong, which value, and what to
do; exit code 2; nothing half-written.

A case spoils a folder of good files, then says what is typed; ``@`` in a word is that folder.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from bitfront.storage import Store
from tests.commands import Commands

ROOT = Path(__file__).resolve().parents[2]

Options = Mapping[str, object]
Words = Sequence[object]
Spoil = Callable[[Path], object]
Make = Callable[[Path], Words]
Case = tuple[Make, str]  # what is typed, and the line that it is refused with, as a pattern

COMMON = {"schemes": "w4 w8", "budget": "6bpw", "device": "cpu"}
MODULE = {**COMMON, "task": "module", "function": "@/bring.py:task"}
LANGUAGE = {
    **COMMON, "task": "language", "model": "@/llama", "calibration": "@/text.txt",
    "samples": 6, "eval_samples": 4, "length": 12, "batch": 3,
}  # fmt: skip
VISION = {
    **COMMON, "task": "vision", "model": "@/net.py:Net", "arguments": '{"width": 4}',
    "weights": "@/net.pt", "calibration": "@/images.npz", "samples": 8,
}  # fmt: skip


def nothing(folder: Path) -> None:
    """Spoils nothing."""


def typed(folder: Path, words: Words, options: Options) -> Words:
    """Words, then options: a list is repeated, None left out."""
    found = list(words)
    for name, value in options.items():
        items = value if isinstance(value, list) else [value]
        for item in items:
            if item is not None:
                found += [f"--{name.replace('_', '-')}", item]
    return [re.sub("^@", str(folder), str(word)) for word in found]


def command(*words: object, **options: object) -> Make:
    return lambda folder: typed(folder, list(words), options)


def search(task: Options, spoil: Spoil = nothing, /, **changes: object) -> Make:
    """The beginning of a study of ``task`` with some options changed, after ``spoil``."""

    def make(folder: Path) -> Words:
        spoil(folder)
        return typed(folder, ["search", "s"], {**task, **changes})

    return make


def export(study: str = "m", trial: object = "#m", to: str = "@/out", **options: object) -> Make:
    return command("export", study, trial, to, **options)


def coded(code: str, task: Options = VISION, **changes: object) -> Make:
    """A study of what ``f`` in a Python file of the user's gives."""
    where = {"function": "@/mine.py:f"} if task is MODULE else {"model": "@/mine.py:f"}
    own = {} if task is MODULE else {"arguments": None, "weights": None}
    return search(task, written("mine.py", code), **{**where, **own, **changes})


def written(name: str, content: str | bytes) -> Spoil:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def arrays(task: Options, **named: Any) -> Make:
    """A study on an ``.npz`` file of these arrays."""
    return search(task, lambda folder: np.savez(folder / "d.npz", **named), calibration="@/d.npz")


def cut(name: str, size: int) -> Spoil:
    return lambda folder: os.truncate(folder / name, size)


def configured(**changes: object) -> Spoil:
    """The language model with another config.json."""

    def spoil(folder: Path) -> None:
        path = folder / "llama" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


def weighted(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    """The language model with other weights."""

    def spoil(folder: Path) -> None:
        path = folder / "llama" / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, {"format": "pt"})

    return spoil


UP = "model.layers.0.mlp.up_proj.weight"


class Trap:
    """Unpickled, it would write a file, which the check for what is left would find."""

    def __init__(self, folder: Path) -> None:
        self.file = str(folder / "sprung")

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.file, "w")


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


AGAIN = {"schemes": "w3 w6", "budget": "5bpw"}  # what study m has not measured

FULL = "the disk is full: make room, or choose another place"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` but for what Python leaves beside code."""
    files = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in files}


def trials(bitfront: Commands) -> dict[str, int]:
    """Study -> number of trials, of a database that may not be there."""
    if not Path(bitfront.db).is_file():
        return {}
    with Store.open(bitfront.db) as store:
        return {study.name: study.trials for study in store.studies()}


def refusal(bitfront: Commands, words: Words, line: str) -> None:
    """``words`` are refused with what matches ``line`` and gives a remedy, and nothing else but,
    where that takes its time, how far it came."""
    done = bitfront(*words)
    errors = [text for text in done.err.splitlines() if text.startswith("error: ")]
    expected = r"(error|warning|note): |[\w ()]+: \d+ of \d+$"
    other = [text for text in done.err.splitlines() if not re.match(expected, text)]
    assert (done.code, done.out, other) == (2, "", []), done.err
    assert len(errors) == 1
    assert ": " in line, "a case says what the remedy is"
    assert re.search(line, errors[0]), errors[0]
    assert len(errors[0]) < 700
    assert not re.search("Traceback|a bug|Errno", errors[0])


def nothing_is_begun(case: Case, bitfront: Commands, folder: Path) -> None:
    """What is typed is refused, and neither files nor a database say that it was."""
    make, line = case
    words = make(folder)
    before = contents(folder)
    refusal(bitfront, words, line)
    assert contents(folder) == before
    assert not any(trials(bitfront).values())
