"""Tiny tasks of every kind, written to a folder as a user would have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bitfront.tasks import DiffusionTask, LanguageTask, ModuleTask, Task, VisionTask
from tests import pipelines

WORDS = ["<unk>", "<s>", *"abcdefghijklmnopqrstuvwxyz", " ", ".", ",", "\n"]

CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=8, classes=3):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def task(scale=1.0):
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(1)
    x = torch.randn(20, 3, 6, 6, generator=g) * scale
    y = torch.arange(20) % 3
    return {
        "model": Net(),
        "calibration": [{"x": a, "labels": b} for a, b in zip(x[:12].split(5), y[:12].split(5))],
        "evaluation": [{"x": a, "labels": b} for a, b in zip(x[12:].split(5), y[12:].split(5))],
        "metrics": {"largest": (lambda z, batch: z.amax(-1), "higher")},
    }
"""


def llama(folder: Path, seed: int = 0) -> Path:
    """A random Llama with a tokenizer of single characters."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=24,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")
    fast.save_pretrained(folder)
    return folder


def text(path: Path, characters: int = 2000) -> Path:
    rng = np.random.default_rng(0)
    path.write_text("".join(rng.choice(WORDS[2:-1], characters)), encoding="utf-8")
    return path


def images(path: Path, count: int = 30) -> Path:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    y = np.arange(count, dtype=np.uint8) % 3
    np.savez(path, x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:])
    return path


def code(path: Path) -> Path:
    path.write_text(CODE, encoding="utf-8")
    return path


def language_task(folder: Path, dtype: str = "auto") -> Task:
    model, data = folder / "llama", folder / "text.txt"
    if not model.exists():
        llama(model)
        text(data)
    return LanguageTask(
        model, data, samples=6, eval_samples=5, length=16, batch=4, dtype=dtype, device="cpu"
    )


def gpt2_task(folder: Path) -> Task:
    """A random GPT-2, whose layers are Conv1D and whose q, k and v are one, on token ids."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=16, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    np.savez(folder / "ids.npz", ids=np.random.default_rng(0).integers(1, 40, (12, 8)))
    GPT2LMHeadModel(config).save_pretrained(folder / "gpt2")
    return LanguageTask(folder / "gpt2", folder / "ids.npz", samples=4, eval_samples=4, length=8)


def vision_task(folder: Path, dtype: str = "auto") -> Task:
    file, data = code(folder / "net.py"), images(folder / "images.npz")
    weights = folder / "net.pt"
    if not weights.exists():
        from bitfront.tasks.boundary import function_at

        with torch.random.fork_rng():
            torch.manual_seed(2)
            torch.save(function_at(f"{file}:Net")(width=4).state_dict(), weights)
    return VisionTask(
        f"{file}:Net", data, arguments={"width": 4}, weights=weights,
        samples=12, batch=5, mean=[0.5] * 3, std=[0.25] * 3, dtype=dtype, device="cpu",
    )  # fmt: skip


def module_task(folder: Path, dtype: str = "auto") -> Task:
    file = code(folder / "bring.py")
    return ModuleTask(f"{file}:task", {"scale": 2.0}, dtype=dtype, device="cpu")


def diffusion_task(folder: Path, dtype: str = "auto") -> Task:
    return DiffusionTask(
        pipelines.unconditional(folder / "ddpm"), steps=4, samples=4, eval_samples=3, batch=2,
        timesteps=2, timestep_groups=2, dtype=dtype, device="cpu",
    )  # fmt: skip


MAKERS: dict[str, Callable[..., Task]] = {
    "language": language_task,
    "vision": vision_task,
    "diffusion": diffusion_task,
    "module": module_task,
}
