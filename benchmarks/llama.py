"""llama.cpp beside ours: ``BITFRONT_TEST_LLAMA_CPP`` names a Python that has llama_cpp."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bitfront.quant.ggml_types import BLOCK_BYTES
from bitfront.scheme import BLOCK_GROUPS

VARIABLE = "BITFRONT_TEST_LLAMA_CPP"
SCRIPT = Path(__file__).with_name("run_llama_cpp.py")


@dataclass(frozen=True)
class Ran:
    """What llama.cpp gave: logits (windows, T, V), ids generated after the first window's first 8,
    ids of each text, and the file's metadata."""

    logits: Tensor
    generated: list[int]
    texts: list[list[int]]
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Compared:
    """Two models' log-probabilities over the same windows, token by token.

    perplexity, theirs: of the text. largest, mean: absolute difference over all tokens of the
    vocabulary. kl: mean KL(ours ‖ theirs) of a position, nats. same: share of positions with the
    same likeliest token.
    """

    perplexity: float
    theirs: float
    largest: float
    mean: float
    kl: float
    same: float


def python() -> str | None:
    """The interpreter, if one is named."""
    return os.environ.get(VARIABLE) or None


def version() -> str:
    """Of llama-cpp-python."""
    with tempfile.TemporaryDirectory(prefix="bitfront-") as room:
        found: str = _ask(Path(room), {})["version"]
    return found


def run(model: Path, windows: Tensor, texts: Sequence[str] = (), tokens: int = 16) -> Ran:
    """llama.cpp on ``windows`` (N, T) of token ids, with ``tokens`` generated."""
    job = {
        "model": str(model), "windows": windows.tolist(), "texts": list(texts), "tokens": tokens,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="bitfront-") as room:
        answer = _ask(Path(room), job)
        logits = torch.from_numpy(np.load(Path(room) / "logits.npy"))
    return Ran(logits, answer["generated"], answer["texts"], answer["metadata"])


def blocks(matrices: Mapping[str, Tensor]) -> dict[tuple[str, str], Tensor]:
    """(block type, matrix) -> the bytes (rows, bytes) that ggml's own quantizer gives."""
    numbers = {name: number for name, number in _numbers().items() if name in BLOCK_BYTES}
    sizes = {name: 256 // BLOCK_GROUPS[name] * size for name, size in BLOCK_BYTES.items()}
    with tempfile.TemporaryDirectory(prefix="bitfront-") as name:
        room = Path(name)
        arrays: dict[str, Any] = {n: M.numpy() for n, M in matrices.items()}
        np.savez(room / "matrices.npz", **arrays)
        job = {"matrices": str(room / "matrices.npz"), "types": numbers, "sizes": sizes}
        _ask(room, job)
        found = {key: torch.from_numpy(data) for key, data in np.load(room / "blocks.npz").items()}
    return {
        (kind, name): data for key, data in found.items() for kind, _, name in [key.partition(" ")]
    }


def requantize(source: Path, target: Path, recipe: str) -> None:
    """The file that llama-quantize makes of ``source`` by the text of a recipe for it."""
    with tempfile.TemporaryDirectory(prefix="bitfront-") as name:
        room = Path(name)
        (room / "recipe.txt").write_text(recipe)
        paths = {"source": source, "target": target, "recipe": room / "recipe.txt"}
        _ask(room, {**{key: str(path) for key, path in paths.items()}, "types": _numbers()})


def compare(ours: Tensor, theirs: Tensor, windows: Tensor) -> Compared:
    """Logits (N, T, V) of two runs over ``windows`` (N, T)."""
    a, b = (x.double().log_softmax(-1) for x in (ours, theirs))
    targets = windows[:, 1:, None]
    losses = [float(-x[:, :-1].gather(2, targets).mean()) for x in (a, b)]
    off = (a - b).abs()
    return Compared(
        float(np.exp(losses[0])),
        float(np.exp(losses[1])),
        float(off.max()),
        float(off.mean()),
        float((a.exp() * (a - b)).sum(-1).mean()),
        float((a.argmax(-1) == b.argmax(-1)).double().mean()),
    )


def _numbers() -> dict[str, int]:
    """Type -> ggml's number of it."""
    import gguf

    return {kind.name.lower(): int(kind) for kind in gguf.GGMLQuantizationType}


def _ask(room: Path, job: Mapping[str, Any]) -> dict[str, Any]:
    interpreter = python()
    assert interpreter is not None
    (room / "job.json").write_text(json.dumps(job))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [interpreter, str(SCRIPT), str(room)], env=environment, capture_output=True, text=True,
        errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"llama.cpp failed:\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads((room / "answer.json").read_text())
    return answer
