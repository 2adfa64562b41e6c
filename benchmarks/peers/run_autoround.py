"""AutoRound's ``AutoScheme``, in its own environment: ``run_autoround.py JOB``.

It scores language models only: the character GPT is dressed as one of transformers'. Its search
(``GenScheme``) is called as ``AutoRound`` calls it, with the job's layers, all calibration data,
and scale bits left out of the average, as all sides count. Its own loader of texts is replaced by
the job's batches. A group size that does not divide a layer's inputs would leave the layer at 16
bits, so models with such layers are scored per channel.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
import torch.nn.functional as F
from auto_round.auto_scheme import delta_loss
from auto_round.auto_scheme.gen_auto_scheme import AutoScheme, GenScheme
from auto_round.schemes import QuantizationScheme
from job import Job
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

BATCH = 8
os.environ["AR_AUTO_SCHEME_CACHE"] = sys.argv[1]  # of scores; else in the user's home


class Dressed(PreTrainedModel):  # type: ignore[misc]
    """A network that takes token ids, with the loss that AutoScheme asks a model for."""

    config_class = PretrainedConfig

    def __init__(self, network: nn.Module) -> None:
        super().__init__(PretrainedConfig(tie_word_embeddings=False))
        self.network = network

    def forward(
        self, input_ids: Tensor, labels: Tensor | None = None, use_cache: bool = False
    ) -> CausalLMOutput:
        logits = self.network(input_ids)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return CausalLMOutput(loss=loss, logits=logits)


def prepared(job: Job) -> tuple[nn.Module, str, list[dict[str, Tensor]]]:
    """The model, what its layers' names begin with, and batches as its loss takes them."""
    model = job.model()
    if isinstance(model, PreTrainedModel):  # makes its labels of the inputs
        return model, "", [{"input_ids": x, "labels": x} for x, _ in job.batches(BATCH)]
    batches = [{"input_ids": x, "labels": y} for x, y in job.batches(BATCH)]
    return Dressed(model), "network.", batches


def main() -> None:
    job = Job("auto-round", "transformers")
    groups = {layer["group"] for layer in job.layers.values()}
    group = -1 if None in groups else groups.pop()
    model, prefix, batches = prepared(job)
    passes = 0

    def loader(*words: Any, **named: Any) -> list[dict[str, Tensor]]:
        nonlocal passes
        passes += 1
        return batches

    delta_loss.get_dataloader = loader
    found: dict[float, Any] = {}
    for budget in job.budgets:

        def solve(asked: float) -> dict[str, int] | None:
            scheme = AutoScheme(
                avg_bits=asked,
                options=[QuantizationScheme(b, group, act_bits=16) for b in job.bits],
                ignore_scale_zp_bits=True,
                nsamples=len(job.inputs),
                seqlen=job.inputs.shape[1],
                batch_size=BATCH,
                low_cpu_mem_usage=False,
                enable_torch_compile=False,
            )
            names = [prefix + name for name in job.layers]
            search = GenScheme(
                scheme, model, names, {}, dataset="job", tokenizer=object(), device_map="cpu"
            )
            chosen = search.get_layer_config()
            return {name: int(chosen[prefix + name]["bits"]) for name in job.layers}

        found[budget] = job.fitting(solve, budget)
    job.answer(found, forwards=passes, notes=f"group size {group}")


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    main()
