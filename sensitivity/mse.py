"""Squared error of each layer's output on calibration inputs: the layer-wise loss of AdaQuant.

    mse[l, c] = mean over samples of ‖ΔY_c‖² / mean over samples of ‖Y‖²

(Hubara et al., arXiv:2006.10518, eq. 2, with the quantized weights in place of optimized ones.)
Relative to the output's own energy, so that layers of different scale can be added up. Inputs are
those of the full-precision model; no gradients, no loss: cheap, and blind to what the rest of the
network makes of the error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from bitfront.errors import ModelError
from bitfront.quant.activations import fake_quantize, output_error
from bitfront.quant.formats import dequantize
from bitfront.quant.layers import adapter_of
from bitfront.quant.statistics import call_input
from bitfront.quant.weights import QuantizedLayer
from bitfront.tasks.base import Batch, Task
from bitfront.types import Estimate, Measurement, Sensitivities

from .base import (
    PROFILERS,
    Arrays,
    Checkpoints,
    Float,
    Pair,
    Profiler,
    Subject,
    assemble,
    by_batch,
)
from .bootstrap import ratios
from .stability import ratio_estimate
from .store import keep_quantized
from .taps import evaluating


@PROFILERS.register("mse")
@dataclass(frozen=True)
class MSE(Profiler):
    """Relative squared error of layer outputs (dimensionless)."""

    name: ClassVar[str] = "mse"
    one_pass: ClassVar[bool] = True

    def measure(
        self, subject: Subject, pairs: Sequence[Pair], checkpoints: Checkpoints
    ) -> Iterator[list[Measurement]]:
        candidates = keep_quantized(subject, pairs)
        parts = by_batch(subject, checkpoints, partial(self._batch, subject, candidates))
        found = []
        for layer, scheme in pairs:
            column = [q.weight.scheme for q in candidates[layer.name]].index(scheme)
            error, energy = error_sums(parts, layer.name, column)
            value, stderr = ratio_estimate(error, energy)
            values = {"mse": Estimate(value, stderr, len(error))}
            vectors = {"error": error, "energy": energy}
            found.append(
                Measurement(self.name, self.settings_key, layer.name, str(scheme), values, vectors)
            )
        yield found

    def tables(
        self, measurements: Iterable[Measurement], layers: Sequence[str], schemes: Sequence[str]
    ) -> dict[str, Sensitivities]:
        """The one table ``mse``."""
        table = assemble(measurements, layers, schemes, "mse", metric="mse", profiler=self.name)
        return {"mse": table}

    def resampled(self, measurement: Measurement, table: str, W: Float) -> Float | None:
        """From the errors and energies of samples."""
        return ratios(W, measurement.vectors["error"], measurement.vectors["energy"])

    def _batch(
        self, subject: Subject, candidates: Mapping[str, list[QuantizedLayer]], index: int
    ) -> Arrays:
        return output_errors(subject.task, subject.batches[index], candidates)


def output_errors(
    task: Task, batch: Batch, candidates: Mapping[str, list[QuantizedLayer]]
) -> Arrays:
    """``error/NAME`` (C, N): Σ ΔY² of each candidate; ``energy/NAME`` (N,): Σ Y²; per sample."""
    N = batch.samples
    arrays: Arrays = {}
    read = {layer.name: layer.read for layer in task.layers}
    for name, quantized in candidates.items():
        arrays[f"error/{name}"] = np.zeros((len(quantized), N))
        arrays[f"energy/{name}"] = np.zeros(N)

    def listen(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: torch.Tensor) -> None:
            x, adapter = call_input(args, kwargs), adapter_of(module)
            W = adapter.matrix(module)
            full = adapter.outputs(module, adapter.apply(module, x, W)).float()
            arrays[f"energy/{name}"] += per_sample(full.double().square(), N)
            for column, q in enumerate(candidates[name]):
                activation = q.weight.scheme.activation
                xq = x
                if activation is not None:
                    xq = fake_quantize(
                        name, x, activation, adapter.kind, q.input_scale, q.input_zero
                    )
                changed = adapter.apply(module, xq, dequantize(q.weight, W.dtype).to(W.device))
                changed = adapter.outputs(module, changed).float()
                difference = changed - full
                bias: torch.Tensor | None = getattr(module, "bias", None)
                rounding = output_error(q, changed, bias)
                if rounding is not None:
                    # what is never read is no error, or a grid of what is would be the worse one
                    whole = changed if bias is None else changed + bias.float()
                    difference += (whole + rounding).clamp(*read[name]) - whole.clamp(*read[name])
                squares = difference.double().square()
                arrays[f"error/{name}"][column] += per_sample(squares, N)

        return hook

    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(evaluating(task.model))
        for name in candidates:
            handle = task.module(name).register_forward_hook(listen(name), with_kwargs=True)
            stack.callback(handle.remove)
        task.outputs(batch)
    return arrays


def error_sums(parts: Sequence[Arrays], layer: str, column: int) -> tuple[Float, Float]:
    """Errors and energies of a layer under one candidate over all batches, (N,) each.

    Raises ``ModelError`` for a layer whose outputs are all zero, or not finite.
    """
    error = np.concatenate([p[f"error/{layer}"][column] for p in parts])
    energy = np.concatenate([p[f"energy/{layer}"] for p in parts])
    if not energy.sum():
        raise ModelError(f"layer {layer!r} gives only zeros", "leave it out")
    if not np.isfinite([error.sum(), energy.sum()]).all():
        raise ModelError(f"outputs of layer {layer!r} are not finite", "use a wider dtype")
    return error, energy


def per_sample(values: torch.Tensor, N: int) -> Float:
    """Sums per sample (N,); a call that is not one block per sample counts as its first sample."""
    if values.shape[0] % N:
        total = np.zeros(N)
        total[0] = float(values.sum())
        return total
    return values.reshape(N, -1).sum(1).double().cpu().numpy()
