"""The character GPT of the assets as any user would bring it: a module task.

ModuleTask("benchmarks/char_gpt.py:char_gpt", {"assets": "path/to/assets"})
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

LENGTH = 128  # characters that the model sees at once
BATCH = 16


def char_gpt(assets: str, samples: int = 128, held: int = 256, seed: int = 0) -> dict[str, Any]:
    """Calibrated on the first 90 % of the plays, judged on the last 10 %, which it never saw.

    samples: windows drawn for calibration, with ``seed``. held: windows to judge by, evenly spread.
    """
    folder = Path(assets) / "char_gpt_shakespeare"
    places = {c: i for i, c in enumerate(json.loads((folder / "vocab.json").read_text())["chars"])}
    text = (folder / "tinyshakespeare.txt").read_text(encoding="utf-8")
    ids = np.array([places[c] for c in text])
    cut = len(ids) * 9 // 10
    earlier, later = windows(ids[:cut]), windows(ids[cut:])
    drawn = np.random.default_rng(seed).permutation(len(earlier))[:samples]
    spread = np.linspace(0, len(later) - 1, min(held, len(later))).astype(int)
    return {
        "model": network(Path(assets) / "archs.py", folder / "char_gpt.safetensors"),
        "calibration": batches(earlier[np.sort(drawn)]),
        "evaluation": batches(later[spread]),
    }


def windows(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Disjoint windows of ``LENGTH`` characters and the one that follows: (N, LENGTH + 1)."""
    count = (len(ids) - 1) // LENGTH
    starts = np.arange(count)[:, None] * LENGTH
    return ids[starts + np.arange(LENGTH + 1)]


def batches(rows: NDArray[np.int64]) -> list[dict[str, torch.Tensor]]:
    """Each character is a label of the one before it."""
    parts = torch.from_numpy(rows).split(BATCH)
    return [{"ids": part[:, :-1], "labels": part[:, 1:]} for part in parts]


def network(archs: Path, weights: Path) -> nn.Module:
    spec = importlib.util.spec_from_file_location("archs", archs)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model: nn.Module = module.CharGPT()
    model.load_state_dict(load_file(weights))
    return model
