"""What every peer's script shares: the job that Bitfront's side wrote, and the answer to it.

Runs in a peer's own environment, where there is no Bitfront: numpy, safetensors and torch only. A
job is a folder:

    job.json   model, assets, peer's settings; "bits" to choose from, "budgets" in average bits,
               "layers": name -> {"weights": count, "group": 32, or null for one scale per channel}
    data.npz   inputs (N, ...) and labels (N, P), the calibration data

A script prints to standard error only, and writes ``answer.json`` into the folder:

    {"versions": {...}, "notes": "...", "seconds": 1.0, "forwards": passes over all data or null,
     "budgets": {"3": {"asked": 2.98, "bits": {layer: bits}}}}    null where it has no allocation
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

STEP = 0.01  # bits by which a budget is tightened that a peer overran
NETWORKS = {  # of archs.py: class, arguments, folder of weights
    "resnet20": ("ResNetCIFAR", (20,), "cifar10_resnet20"),
    "vit": ("TinyViT", (), "cifar10_vit"),
    "char_gpt": ("CharGPT", (), "char_gpt_shakespeare"),
}


class Job:
    """The folder on the command line."""

    def __init__(self, *packages: str) -> None:
        self.folder = Path(sys.argv[1])
        content = json.loads((self.folder / "job.json").read_text())
        self.model_name: str = content["model"]
        self.assets = Path(content["assets"])
        self.settings: dict[str, Any] = content["settings"]
        self.bits: list[int] = content["bits"]
        self.budgets: list[float] = content["budgets"]
        self.layers: dict[str, dict[str, Any]] = content["layers"]
        data = np.load(self.folder / "data.npz")
        self.inputs, self.labels = (
            torch.from_numpy(data["inputs"]),
            torch.from_numpy(data["labels"]),
        )
        self.versions = {p: version(p) for p in ("torch", *packages)}
        torch.manual_seed(0)
        torch.set_num_threads(1)
        self.began = time.perf_counter()

    def model(self) -> nn.Module:
        model = self._loaded()
        model.eval()
        return model

    def _loaded(self) -> nn.Module:
        if self.model_name == "llama":
            from transformers import AutoModelForCausalLM

            folder = self.assets / "stories260K_llama"
            llama: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            return llama
        name, arguments, place = NETWORKS[self.model_name]
        model: nn.Module = getattr(self._archs(), name)(*arguments)
        model.load_state_dict(load_file(next((self.assets / place).glob("*.safetensors"))))
        return model

    def _archs(self) -> Any:
        spec = importlib.util.spec_from_file_location("archs", self.assets / "archs.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def batches(self, size: int) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.inputs.split(size), self.labels.split(size), strict=True))

    def logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """(N * P, K), of the positions that have a label."""
        found = model(inputs)
        logits: Tensor = found.logits if hasattr(found, "logits") else found
        if logits.dim() == 3:
            logits = logits[:, : self.labels.shape[1]]
        return logits.reshape(-1, logits.shape[-1])

    def average(self, bits: Mapping[str, int]) -> float:
        """Average bits over the weights of the job's layers."""
        spent = sum(layer["weights"] * bits[name] for name, layer in self.layers.items())
        return float(spent / sum(layer["weights"] for layer in self.layers.values()))

    def fitting(
        self, solve: Callable[[float], Mapping[str, int] | None], budget: float
    ) -> dict[str, Any] | None:
        """The first allocation within ``budget``, asking for a little less each time."""
        for asked in self._tighter(budget):
            bits = solve(asked)
            if bits is not None and self.average(bits) <= budget + 1e-9:
                return {"asked": asked, "bits": dict(bits)}
        return None

    def _tighter(self, budget: float) -> Iterator[float]:
        asked = budget
        while asked >= min(self.bits):
            yield asked
            asked = round(asked - STEP, 6)

    def answer(
        self, found: Mapping[float, Any], forwards: float | None = None, notes: str = ""
    ) -> None:
        content = {
            "versions": self.versions, "notes": notes, "forwards": forwards,
            "seconds": time.perf_counter() - self.began,
            "budgets": {f"{budget:g}": answer for budget, answer in found.items()},
        }  # fmt: skip
        (self.folder / "answer.json").write_text(json.dumps(content, indent=1))
