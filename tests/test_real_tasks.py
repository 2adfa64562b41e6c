"""The real models of the assets give the figures that are known of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from bitfront.tasks import Evaluator, LanguageTask, ModuleTask, VisionTask

ROOT = Path(__file__).resolve().parents[1]


CHAR_GPT = """
import json
from pathlib import Path
import numpy as np
import torch
from safetensors.torch import load_file
from archs import CharGPT


def char_gpt(folder, samples=32):
    folder = Path(folder)
    model = CharGPT()
    model.load_state_dict(load_file(folder / "char_gpt.safetensors"))
    index = {c: i for i, c in enumerate(json.loads((folder / "vocab.json").read_text())["chars"])}
    text = (folder / "tinyshakespeare.txt").read_text()
    ids = torch.tensor([index[c] for c in text])
    cut = len(ids) * 9 // 10

    def windows(part, seed):
        starts = np.random.default_rng(seed).integers(0, len(part) - 129, samples)
        rows = torch.stack([part[s : s + 129] for s in starts])
        return [{"ids": b[:, :-1], "labels": b[:, 1:]} for b in rows.split(16)]

    held = windows(ids[cut:], 1)
    return {"model": model, "calibration": windows(ids[:cut], 0), "evaluation": held}
"""


def test_the_character_gpt_as_a_user_brings_it(assets: Path, tmp_path: Path) -> None:
    shutil.copy(assets / "archs.py", tmp_path)
    (tmp_path / "gpt.py").write_text(CHAR_GPT)
    folder = str(assets / "char_gpt_shakespeare")
    task = ModuleTask(f"{tmp_path / 'gpt.py'}:char_gpt", {"folder": folder}, device="cpu")
    nll = Evaluator(task, task.evaluation).baseline.estimates()["nll"]
    # 1.494 nats over all of the validation text; 32 windows know it to their standard error
    assert abs(nll.value - 1.494) < 4 * nll.stderr < 0.2
    assert len(task.groups) == 4
    assert [la.name for la in task.layers if la.role == "head"] == ["lm_head"]
    assert "wpe" in task.survey.left_out


@pytest.mark.parametrize(
    ("name", "weights", "options", "correct"),
    [
        (
            "ResNetCIFAR",
            "cifar10_resnet20/resnet20.safetensors",
            {
                "arguments": {"depth": 20},
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
            },
            0.915,
        ),
        (
            "TinyViT",
            "cifar10_vit/vit.safetensors",
            {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010]},
            0.705,
        ),
    ],
)
def test_accuracy_of_the_real_classifiers(
    assets: Path, name: str, weights: str, options: dict[str, Any], correct: float
) -> None:
    task = VisionTask(
        f"{assets / 'archs.py'}:{name}",
        next((assets / "cifar10").glob("*.npz")),
        weights=assets / weights,
        samples=8,
        device="cpu",
        **options,
    )
    assert Evaluator(task, task.evaluation).baseline.estimates()["top1"].value == correct


def test_perplexity_of_the_real_llama(assets: Path) -> None:
    """4.21 over all stories, 512 tokens each; a tenth of them knows it to its standard error."""
    data = assets / "text" / "tinystories_917_clean_tok512.npz"
    task = LanguageTask(
        assets / "stories260K_llama", data, samples=4, eval_samples=90, length=512, device="cpu"
    )
    found = Evaluator(task, task.evaluation).baseline.estimates()["perplexity"]
    assert abs(found.value - 4.21) < 3 * found.stderr < 0.4
    assert len(task.layers) == 37
    assert len(task.groups) == 11
