"""Layer-wise relevance propagation: a layer's share of the prediction times its error.

    R_l,i      relevance at layer l's outputs for sample i (lrp_propagation.py)
    a_l,i      Σ |R_l,i| / Σ_l' Σ |R_l',i|, over all layers l' of the task: the layer's share
    n_i        what the sample's positions count for: their number, or the sum of their weights
    lrp[l, c]  Σ_i n_i a_l,i / Σ_i n_i · Σ_i ‖ΔY_l,c,i‖² / Σ_i ‖Y_l,i‖²

After LRP-QViT (Ranjan and Savakis, arXiv:2401.11243): relevance starts as the logit of the
predicted class (of the predicted token, at each scored position, times its weight) and is handed
down to every layer; a layer's part of it is its contribution. There the contribution alone ranks
layers; here it multiplies the relative squared error of the layer's outputs, as ``mse`` has it, to
tell schemes apart. Absolute values, because signed relevance is conserved: one layer behind another
would always have the same. Of ``gaussian`` outputs z relevance starts as ‖z‖ at each position.

Dimensionless: an importance times a relative error, no estimate of any metric.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitfront.errors import ModelError, UnknownName
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
from .lrp_composite import FAMILIES, Composite, family_of, parse_composite
from .lrp_propagation import propagating
from .mse import error_sums, output_errors, per_sample
from .stability import scaled_ratio_estimate
from .store import keep_quantized
from .taps import back_propagate, copying, no_gradient

Relevances = dict[str, NDArray[np.float64]]
"""Layer -> Σ |R| by sample, (N,)."""


@PROFILERS.register("lrp")
@dataclass(frozen=True)
class LRP(Profiler):
    """Share of relevance times relative squared error of the layer's outputs (dimensionless).

    family: whose rules apply, ``convolutional``, ``transformer``, or ``auto`` to look at the model.
    rules: entries WHERE=RULE that come before the family's (lrp_composite.py).
    """

    family: str = "auto"
    rules: str = ""

    name: ClassVar[str] = "lrp"
    one_pass: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.family not in ("auto", *FAMILIES):
            raise UnknownName(
                f"no family of rules named {self.family!r}",
                f"choose from auto, {', '.join(FAMILIES)}",
            )
        parse_composite(self.rules)

    def composite(self, task: Task) -> Composite:
        """The rules for a task. Raises ``UnknownName`` for a glob that matches no layer."""
        family = family_of(task.model) if self.family == "auto" else self.family
        composite = parse_composite(f"{self.rules} {FAMILIES[family]}")
        composite.check_names([layer.name for layer in task.layers])
        return composite

    def measure(
        self, subject: Subject, pairs: Sequence[Pair], checkpoints: Checkpoints
    ) -> Iterator[list[Measurement]]:
        composite = self.composite(subject.task)
        candidates = keep_quantized(subject, pairs)
        parts = by_batch(subject, checkpoints, partial(self._batch, subject, composite, candidates))
        whole = np.concatenate([p["whole"] for p in parts])
        count = np.concatenate([p["count"] for p in parts])
        unreached = [n for n in candidates if not sum(p[f"relevance/{n}"].sum() for p in parts)]
        if unreached:
            raise no_gradient(unreached, what="relevance")
        found = []
        for layer, scheme in pairs:
            column = [q.weight.scheme for q in candidates[layer.name]].index(scheme)
            error, energy = error_sums(parts, layer.name, column)
            relevance = np.concatenate([p[f"relevance/{layer.name}"] for p in parts])
            shares = np.divide(relevance, whole, out=np.zeros_like(whole), where=count > 0)
            value, stderr = scaled_ratio_estimate(shares, error, energy, count)
            values = {"lrp": Estimate(value, stderr, len(error))}
            vectors = {"share": shares, "count": count, "error": error, "energy": energy}
            found.append(
                Measurement(self.name, self.settings_key, layer.name, str(scheme), values, vectors)
            )
        yield found

    def tables(
        self, measurements: Iterable[Measurement], layers: Sequence[str], schemes: Sequence[str]
    ) -> dict[str, Sensitivities]:
        """The one table ``lrp``."""
        table = assemble(measurements, layers, schemes, "lrp", metric="lrp", profiler=self.name)
        return {"lrp": table}

    def resampled(self, measurement: Measurement, table: str, W: Float) -> Float | None:
        """From the shares, errors and energies of samples: both factors of one draw."""
        v = measurement.vectors
        share = ratios(W, v["share"] * v["count"], v["count"])
        return share * ratios(W, v["error"], v["energy"])

    def _batch(
        self,
        subject: Subject,
        composite: Composite,
        candidates: Mapping[str, list[QuantizedLayer]],
        index: int,
    ) -> Arrays:
        task, batch = subject.task, subject.batches[index]
        relevance, count = relevances(task, batch, composite)
        arrays = output_errors(task, batch, candidates)
        arrays["whole"] = sum(relevance.values(), np.zeros(batch.samples))
        arrays["count"] = count
        sound = np.isfinite(arrays["whole"]) & (arrays["whole"] > 0)
        if not (sound | (count == 0)).all():
            wrong = [name for name, r in relevance.items() if not np.isfinite(r).all()]
            raise ModelError(
                f"relevance is {'not finite at ' + repr(wrong[0]) if wrong else '0 everywhere'}",
                "propagate it by other rules, as linear=gamma(0.25), or in a wider dtype",
            )
        return arrays | {f"relevance/{name}": relevance[name] for name in candidates}


def relevances(
    task: Task, batch: Batch, composite: Composite
) -> tuple[Relevances, NDArray[np.float64]]:
    """Of every layer of the task, 0 where none arrives; and n, (N,).

    Raises ``ModelError`` when the outputs depend on no layer in a differentiable way.
    """

    def run(copied: frozenset[str]) -> tuple[Relevances, NDArray[np.float64]]:
        found = {layer.name: np.zeros(batch.samples) for layer in task.layers}

        def receive(name: str, R: Tensor) -> None:
            if name in found:
                found[name] += per_sample(R.double().abs(), batch.samples)

        with propagating(task.model, composite, receive, copied), torch.enable_grad():
            z = task.outputs(batch)
        back_propagate(
            z, start(z, task.output, batch.counted), again=False,
            unreached=lambda: [name for name, sums in found.items() if not sums.any()],
        )  # fmt: skip
        return found, batch.counts(z.shape[1]).sum(1).numpy()

    return copying(run)


def start(z: Tensor, output: str, scored: Tensor | None) -> Tensor:
    """What the backward pass from outputs z (N, P, K) begins with, so that z times it is relevance.

    scored: (N, P), what each position counts for, or None for 1.
    """
    z = z.detach()
    if output == "gaussian":
        G = torch.nn.functional.normalize(z, dim=-1)
    else:
        G = torch.zeros_like(z).scatter_(-1, z.argmax(-1, keepdim=True), 1)
    return G if scored is None else G * scored[..., None].to(G)
