"""Around a quantized model: what each further change of one layer does to KL, to second order.

    KL(p_full ‖ p_next) - KL(p_full ‖ p_now) ≈ E[b_i + ½ s_i²]

    b_i = ⟨q - p, J_i ΔY⟩    exact first order: the gradient of KL at the logits is q - p
    s_i = ⟨u, J_i ΔY⟩        u a Fisher probe of the quantized model's own output q (probes.py)

with p and q the outputs of the full and of the quantized model, J_i the Jacobian of sample i's
outputs with respect to the layer's, and ΔY what the change does to these. Far from full precision
the expansion at the full model is off several times over; here the part that decides is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from bitfront.errors import InvalidInput
from bitfront.quant.surgery import applied
from bitfront.quant.weights import QuantizedLayer
from bitfront.scheme import KEEP
from bitfront.types import Estimate, Measurement, Scheme, Sensitivities

from .base import Arrays, Checkpoints, Pair, Profiler, Subject, assemble, by_batch
from .passes import scored
from .probes import probe
from .scores import LayerScores
from .stability import ratio_estimate
from .store import keep_quantized

Quantized = Mapping[str, QuantizedLayer]
Candidates = Mapping[str, list[QuantizedLayer | None]]


@dataclass(frozen=True)
class Around(Profiler):
    """Changes of KL, in nats, when one layer of a quantized model takes another scheme.

    at: (layer, scheme) of the quantized model; layers left out are in full precision. draws: probes
    of the second order. seed: of these. A pair's scheme may be ``keep``: the way back.
    """

    at: tuple[tuple[str, str], ...] = ()
    draws: int = 2
    seed: int = 0

    name: ClassVar[str] = "around"
    one_pass: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise InvalidInput(f"{self.draws} draws", "draw at least once")

    @property
    def passes(self) -> int:
        """Over the calibration data: one forward, one backward for the gradient and each draw."""
        return 2 + self.draws

    def measure(
        self, subject: Subject, pairs: Sequence[Pair], checkpoints: Checkpoints
    ) -> Iterator[list[Measurement]]:
        layers = {layer.name: layer for layer in subject.task.layers}
        at = [(layers[name], Scheme.parse(s)) for name, s in self.at if s != KEEP]
        now = {name: quantized for name, (quantized,) in keep_quantized(subject, at).items()}
        candidates = keep_quantized(subject, [pair for pair in pairs if pair[1].format != KEEP])
        batch = partial(self._batch, subject, now, _in_order(pairs, candidates))
        yield self._measurements(pairs, by_batch(subject, checkpoints, batch))

    def tables(
        self, measurements: Iterable[Measurement], layers: Sequence[str], schemes: Sequence[str]
    ) -> dict[str, Sensitivities]:
        """``change``: to second order; 0 for the scheme that a layer has."""
        table = assemble(
            measurements, layers, schemes, "change", metric="kl", profiler=self.name,
            notes={"at": dict(self.at)},
        )  # fmt: skip
        values, stderr, at = table.values.copy(), table.stderr.copy(), dict(self.at)
        for i, layer in enumerate(layers):
            for j, scheme in enumerate(schemes):
                if scheme == at.get(layer, KEEP):
                    values[i, j] = stderr[i, j] = 0.0
        return {"change": replace(table, values=values, stderr=stderr)}

    def _batch(
        self, subject: Subject, now: Quantized, candidates: Candidates, index: int
    ) -> Arrays:
        task, batch = subject.task, subject.batches[index]
        evaluator = subject.evaluator  # its references need the full model

        def begin() -> dict[str, LayerScores]:
            return {
                name: LayerScores(
                    name, task.module(name), quantized, batch.samples, 1 + self.draws,
                    base=now.get(name),
                )
                for name, quantized in candidates.items()
            }  # fmt: skip

        def probes(z: Tensor) -> Iterator[Tensor]:
            yield gradient(z, evaluator.reference(index), task.output, batch.counted)
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
            for _ in range(self.draws):
                yield probe(
                    z, task.output, kind="rademacher", temperature=1.0, generator=generator,
                    scored=batch.counted,
                )  # fmt: skip

        with applied(task.model, now):
            scores, count = scored(task, batch, begin, probes)
        arrays: Arrays = {"count": count}
        for name, score in scores.items():
            first, drawn = score.s[0], score.s[1:]
            arrays[name] = torch.stack([first, drawn.square().mean(0) / 2]).numpy()  # (2, C, N)
        return arrays

    def _measurements(self, pairs: Sequence[Pair], parts: Sequence[Arrays]) -> list[Measurement]:
        count = np.concatenate([part["count"] for part in parts])
        columns: dict[str, int] = {}
        found = []
        for layer, scheme in pairs:
            column = columns.get(layer.name, 0)
            columns[layer.name] = column + 1
            orders = np.concatenate([part[layer.name][:, column] for part in parts], axis=-1)
            values = {
                name: Estimate(*ratio_estimate(scores, count), len(count))
                for name, scores in (("change", orders.sum(0)), ("first", orders[0]))
            }
            found.append(Measurement(self.name, self.settings_key, layer.name, str(scheme), values))
        return found


def gradient(z: Tensor, full: Tensor, output: str, scored: Tensor | None) -> Tensor:
    """Of KL(full ‖ z) with respect to outputs z: (N, P, K).

    Summed over positions, each times what it counts for (``scored``, (N, P); None for 1).
    """
    there = full.to(z.device).float()
    if output == "gaussian":
        u = z.detach().float() - there
    else:
        u = torch.softmax(z.detach().float(), -1) - torch.softmax(there, -1)
    return u if scored is None else u * scored[..., None].to(u)


def _in_order(pairs: Sequence[Pair], quantized: Mapping[str, list[QuantizedLayer]]) -> Candidates:
    """Layer -> its candidates in the order of ``pairs``; None for ``keep``."""
    waiting = {name: iter(candidates) for name, candidates in quantized.items()}
    found: dict[str, list[QuantizedLayer | None]] = {}
    for layer, scheme in pairs:
        candidate = None if scheme.format == KEEP else next(waiting[layer.name])
        found.setdefault(layer.name, []).append(candidate)
    return found
