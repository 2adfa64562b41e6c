"""NVIDIA ModelOpt's ``auto_quantize``, in its own environment: ``run_modelopt.py JOB``.

Settings: "method" is ``gradient`` (its default: squared gradient times output change, then an
integer program) or ``kl_div`` (KL of one layer at a time, then a threshold), "algorithm" how it
scales weights (``max`` is its presets'; ``mse``). Formats are weight-only integers of the job's
bits, in blocks of a layer's group or per channel; leaving a layer unquantized is not among them, as
for all sides. All calibration data is used for scales and scores. It lets q/k/v share a format, and
gate/up.
"""

from __future__ import annotations

from typing import Any

import modelopt.torch.quantization as mtq
import torch
import torch.nn.functional as F
from job import Job
from modelopt.torch.quantization.algorithms import QuantRecipe
from torch import Tensor, nn

BATCH = 16


def format_of(bits: int, group: int | None, algorithm: str) -> dict[str, Any]:
    scales = {"axis": 0} if group is None else {"block_sizes": {-1: group}}
    return {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": bits, **scales}},
        ],
        "algorithm": algorithm,
    }


def spaces(job: Job) -> list[dict[str, Any]]:
    """One search space for each group size."""
    groups = {layer["group"] for layer in job.layers.values()}
    return [
        {
            "module_name_patterns": [n for n, la in job.layers.items() if la["group"] == group],
            "quantization_formats": [
                format_of(b, group, job.settings["algorithm"]) for b in job.bits
            ],
            "allow_no_quant": False,
        }
        for group in groups
    ]


def main() -> None:
    job = Job("nvidia-modelopt", "pulp")
    batches = job.batches(BATCH)
    passes = 0

    def forward_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        nonlocal passes
        passes += 1
        return job.logits(model, batch[0])

    def loss_func(output: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(output, batch[1].reshape(-1))

    found, checkpoint = {}, job.folder / "scores.pt"
    for budget in job.budgets:

        def solve(asked: float) -> dict[str, int] | None:
            model = job.model()
            kept = [
                name
                for name, module in model.named_modules()
                if isinstance(module, (nn.Linear, nn.Conv2d)) and name not in job.layers
            ]
            _, state = mtq.auto_quantize(
                model,
                constraints={
                    "effective_bits": asked,
                    "cost": {"excluded_module_name_patterns": kept},
                },
                quantization_formats=[
                    format_of(b, None, job.settings["algorithm"]) for b in job.bits
                ],
                module_search_spaces=spaces(job),
                data_loader=batches,
                forward_step=forward_step,
                loss_func=loss_func if job.settings["method"] == "gradient" else None,
                disabled_layers=kept or None,
                num_calib_steps=len(batches),
                num_score_steps=len(batches),
                method=job.settings["method"],
                checkpoint=str(checkpoint),  # scores are measured once
            )
            bits = chosen(state)
            return {name: bits[name] for name in job.layers}

        found[budget] = job.fitting(solve, budget)
    job.answer(found, forwards=passes / len(batches))


def chosen(state: dict[str, Any]) -> dict[str, int]:
    bits = {}
    for name, recipe in state["best"]["recipe"].items():
        assert isinstance(recipe, QuantRecipe)
        for module in state["candidate_stats"][name]["module_names"]:
            bits[module] = int(recipe.num_bits)
    return bits


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    main()
