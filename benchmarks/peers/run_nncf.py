"""NNCF's rule for 4 and 8 bits, in its own environment: ``run_nncf.py JOB``.

``compress_weights`` in mode INT4_SYM keeps every convolution at 8 bits, ranks the linear layers
(the last one too) by its default score for models with data, and gives 4 bits to the least
sensitive until they hold ``ratio`` of the weights. The ratio here is the least at which the average
is within the budget. A group size that does not divide every layer's inputs is an error or 8 bits
there; such models are ranked per channel.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import nncf
from job import Job
from nncf.torch.quantization.layers import (
    INT4SymmetricWeightsDecompressor,
    INT8SymmetricWeightsDecompressor,
)
from torch import nn

SAMPLES = 16  # of one batch that statistics are collected on
HALVINGS = 8
WIDTHS = {INT4SymmetricWeightsDecompressor: 4, INT8SymmetricWeightsDecompressor: 8}


def compressed(job: Job, ratio: float) -> dict[str, int]:
    """Layer -> bits that NNCF gives at ``ratio``."""
    sizes = {layer["group"] for layer in job.layers.values()}
    model = job.model()
    kept = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding)) and name not in job.layers
    ]
    patterns = [rf".*{re.escape(name.replace('.', '/'))}.*" for name in kept]
    batches = [inputs for inputs, _ in job.batches(SAMPLES)]
    result: Any = nncf.compress_weights(
        model,
        mode=nncf.CompressWeightsMode.INT4_SYM,
        backup_mode=nncf.BackupMode.INT8_SYM,
        ratio=ratio,
        group_size=sizes.pop() if len(sizes) == 1 and None not in sizes else -1,
        all_layers=True,
        ignored_scope=nncf.IgnoredScope(patterns=patterns, validate=False),
        dataset=nncf.Dataset(batches),
        subset_size=len(batches),
    )
    return widths(result)


def widths(model: nn.Module) -> dict[str, int]:
    """Read from the decompressors that hang on the weights."""
    found = {}
    for name, module in model.named_modules():
        if type(module) in WIDTHS:
            parameter = name.removeprefix("__nncf_hooks.post_hooks.").partition("__")[0]
            found[parameter.removesuffix(":weight").replace(":", ".")] = WIDTHS[type(module)]
    return found


def least_ratio(job: Job, at: Any, budget: float) -> dict[str, Any] | None:
    """The allocation with as few layers at 4 bits as the budget takes."""

    def within(ratio: float) -> bool:
        return job.average(at(ratio)) <= budget + 1e-9

    low, high = 0.0, 1.0
    if not within(high):
        return None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if within(middle) else (middle, high)
    return {"asked": high, "bits": at(high)}


def main() -> None:
    job = Job("nncf")

    @cache
    def at(ratio: float) -> dict[str, int]:
        return compressed(job, ratio)

    found = {budget: least_ratio(job, at, budget) for budget in job.budgets}
    job.answer(found, notes="asked: ratio of weights at 4 bits")


if __name__ == "__main__":
    main()
