"""One layer, every scheme: what a gradient at the output says of each change of the weights.

    x, δ     the layer's input and the gradient at its output, of one call
    ΔW_c     (rows, cols)      Ŵ_c - W, the change under scheme c
    Δx_c     as x              quantized minus full input, where scheme c quantizes activations
    Γ_i      (rows, cols)      Σ_t δ_t x_tᵀ over the positions t of sample i: its weight gradient
    s[c, i]  = Σ_t ⟨δ_t, ΔY_c,t⟩ = ⟨ΔW_c, Γ_i⟩ + ⟨Ŵ_c, Σ_t δ_t Δx_tᵀ⟩       per-sample score
    e[c, i]  = Σ_t Σ_o (δ_to ΔY_c,to)²                                     elementwise score

Forming Γ_i costs what a weight gradient costs, once for all schemes; the inner products with all
ΔW_c are then one matrix product. The elementwise score needs every ΔY_c, one forward of the layer
each, so it is taken on a share of the samples. Everything is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bitfront.quant.activations import fake_quantize
from bitfront.quant.formats import dequantize
from bitfront.quant.layers import Adapter, adapter_of
from bitfront.quant.surgery import original
from bitfront.quant.weights import QuantizedLayer
from bitfront.types import Activation

CHUNK_BYTES = 64 << 20  # bound on the temporaries of one chunk of samples


@dataclass(eq=False)
class LayerScores:
    """Adds up s and e of one layer over the calls of one batch, for each probe in turn."""

    name: str
    module: nn.Module
    candidates: Sequence[QuantizedLayer]
    samples: int  # N
    elementwise: int  # the first so many samples also get an elementwise score
    probes: int
    s: Tensor = field(init=False)  # (probes, C, N) float64
    e: Tensor = field(init=False)  # (probes, C, elementwise) float64
    calls: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        C = len(self.candidates)
        self.s = torch.zeros(self.probes, C, self.samples, dtype=torch.float64)
        self.e = torch.zeros(self.probes, C, self.elementwise, dtype=torch.float64)

    def add(self, probe: int, x: Tensor, delta: Tensor) -> None:
        """One call of the layer, seen under probe number ``probe``."""
        self.calls += 1
        adapter = adapter_of(self.module)
        W = original(self.name, self.module).float()
        changes = torch.stack([self._quantized(q).to(W.device) - W for q in self.candidates])
        N = self.samples
        if x.shape[0] % N:  # not one block of entries per sample: the whole call is one sample
            N = 1
        per = x.shape[0] // N  # leading entries per sample
        delta = delta.float()
        steps = self._chunk(adapter, x, delta, N)
        for first in range(0, N, steps):
            last = min(first + steps, N)
            rows = slice(first * per, last * per)
            self.s[probe, :, first:last] += (
                self._sampled(adapter, W, changes, x[rows], delta[rows], last - first)
                .double()
                .cpu()
            )
            last = min(last, self.elementwise)
            if first < last:
                rows = slice(first * per, last * per)
                self.e[probe, :, first:last] += (
                    self._elementwise(adapter, W, changes, x[rows], delta[rows], last - first)
                    .double()
                    .cpu()
                )

    def _quantized(self, q: QuantizedLayer) -> Tensor:
        """Ŵ as the model would hold it: rounded to its dtype, then widened to float32."""
        dtype: torch.dtype = self.module.weight.dtype  # type: ignore[assignment]
        return dequantize(q.weight, dtype).float()

    def _chunk(self, adapter: type[Adapter], x: Tensor, delta: Tensor, N: int) -> int:
        rows, cols = adapter.matrix(self.module).shape
        positions = delta.numel() // rows
        widened = positions * cols  # patches
        return max(1, min(N, CHUNK_BYTES * N // (4 * (widened + N * rows * cols))))

    def _sampled(
        self, adapter: type[Adapter], W: Tensor, changes: Tensor, x: Tensor, delta: Tensor, n: int
    ) -> Tensor:
        """s of n samples: (C, n)."""
        if adapter.kind == "embedding":  # indices have no weight gradient in matrix form
            looked_up = (adapter.apply(self.module, x, dW) for dW in changes)
            return torch.stack([(dY * delta).reshape(n, -1).sum(1) for dY in looked_up])
        flat = changes.flatten(1)
        s = flat @ _gradients(adapter, self.module, x.float(), delta, n).T
        for activation, step, members in self._activations():
            dx = fake_quantize(x, activation, adapter.kind, step).float() - x.float()
            shifted = _gradients(adapter, self.module, dx, delta, n).T
            s[members] += (flat[members] + W.flatten()) @ shifted
        return s

    def _elementwise(
        self, adapter: type[Adapter], W: Tensor, changes: Tensor, x: Tensor, delta: Tensor, n: int
    ) -> Tensor:
        """e of n samples: (C, n)."""
        rows = []
        full = x.float() if x.is_floating_point() else x
        for q, dW in zip(self.candidates, changes, strict=True):
            dY = adapter.apply(self.module, full, dW)
            activation = q.weight.scheme.activation
            if activation is not None:
                dx = fake_quantize(x, activation, adapter.kind, q.input_scale).float() - full
                dY = dY + adapter.apply(self.module, dx, W + dW)
            rows.append((dY * delta).square().reshape(n, -1).sum(1))
        return torch.stack(rows)

    def _activations(self) -> list[tuple[Activation, Tensor | None, list[int]]]:
        """Each distinct way that candidates quantize the input, with the candidates that do."""
        found: dict[Activation, tuple[Tensor | None, list[int]]] = {}
        for c, q in enumerate(self.candidates):
            if q.weight.scheme.activation is not None:
                found.setdefault(q.weight.scheme.activation, (q.input_scale, []))[1].append(c)
        return [(a, step, members) for a, (step, members) in found.items()]


def _gradients(
    adapter: type[Adapter], module: nn.Module, x: Tensor, delta: Tensor, n: int
) -> Tensor:
    """Γ of n samples as (n, rows · cols)."""
    a = adapter.patches(module, x)  # (N', P, G, cols)
    G, cols = a.shape[2:]
    a = a.reshape(n, -1, G, cols).permute(0, 2, 3, 1)  # (n, G, cols, P)
    d = adapter.outputs(module, delta)
    d = d.reshape(n, -1, G, d.shape[-1] // G).permute(0, 2, 3, 1)  # (n, G, R, P)
    return (d @ a.transpose(-1, -2)).flatten(1)
