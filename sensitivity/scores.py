"""One layer, every scheme: what gradients at the output say of each change of the weights.

    x, δ     the layer's input and the gradient at its output, of one call; one δ for each probe
    ΔW_c     (rows, cols)      Ŵ_c - W, the change under scheme c
    Δx_c     as x              quantized minus full input, where scheme c quantizes activations
    Γ_i      (rows, cols)      Σ_t δ_t x_tᵀ over the positions t of sample i: its weight gradient
    s[c, i]  = Σ_t ⟨δ_t, ΔY_c,t⟩ = ⟨ΔW_c, Γ_i⟩ + ⟨Ŵ_c, Σ_t δ_t Δx_tᵀ⟩       per-sample score
    e[c, i]  = Σ_t Σ_o (δ_to ΔY_c,to)²                                     elementwise score

Forming Γ_i costs what a weight gradient costs, once for all schemes; the inner products with all
ΔW_c are then one matrix product. The elementwise score needs every ΔY_c, one forward of the layer
each, so it is taken on a share of the samples. What does not depend on δ (patches of x, ΔW_c, ΔY_c)
is made once for all probes: the gradients of earlier probes wait for that of the last. Everything
is float32.
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

# bound on the temporaries of one chunk of samples: they stay in the cache, and the memory is
# reused instead of being given back and asked for again
CHUNK_BYTES = 8 << 20


@dataclass(eq=False)
class LayerScores:
    """Adds up s and e of one layer over the calls of one batch, for all probes."""

    name: str
    module: nn.Module
    candidates: Sequence[QuantizedLayer]
    samples: int  # N
    elementwise: int  # the first so many samples also get an elementwise score
    probes: int
    s: Tensor = field(init=False)  # (probes, C, N) float64
    e: Tensor = field(init=False)  # (probes, C, elementwise) float64
    calls: int = field(init=False, default=0)
    _waiting: list[list[Tensor]] = field(init=False)  # by probe but the last: δ of each call

    def __post_init__(self) -> None:
        C = len(self.candidates)
        self.s = torch.zeros(self.probes, C, self.samples, dtype=torch.float64)
        self.e = torch.zeros(self.probes, C, self.elementwise, dtype=torch.float64)
        self._waiting = [[] for _ in range(self.probes - 1)]

    def add(self, probe: int, x: Tensor, delta: Tensor) -> None:
        """One call of the layer, seen under probe number ``probe``.

        Every probe sees the same calls in the same order, one probe after another.
        """
        if probe < self.probes - 1:
            self._waiting[probe].append(delta.clone())  # autograd may add to it in place
            return
        deltas = [waiting.pop(0) for waiting in self._waiting] + [delta]
        self.calls += 1
        adapter = adapter_of(self.module)
        W = original(self.name, self.module).float()
        changes = torch.stack([self._quantized(q).to(W.device) - W for q in self.candidates])
        N = self.samples
        if x.shape[0] % N:  # not one block of entries per sample: the whole call is one sample
            N = 1
        per = x.shape[0] // N  # leading entries per sample
        steps = self._chunk(adapter, x, delta, N)
        for first in range(0, N, steps):
            last = min(first + steps, N)
            rows = slice(first * per, last * per)
            part = torch.stack([d[rows].float() for d in deltas])
            s = self._sampled(adapter, W, changes, x[rows], part, last - first)
            self.s[..., first:last] += s.double().cpu()
            last = min(last, self.elementwise)
            if first < last:
                rows = slice(first * per, last * per)
                part = part[:, : (last - first) * per]
                e = self._elementwise(adapter, W, changes, x[rows], part, last - first)
                self.e[..., first:last] += e.double().cpu()

    def _quantized(self, q: QuantizedLayer) -> Tensor:
        """Ŵ as the model would hold it: rounded to its dtype, then widened to float32."""
        dtype: torch.dtype = self.module.weight.dtype  # type: ignore[assignment]
        return dequantize(q.weight, dtype).float()

    def _chunk(self, adapter: type[Adapter], x: Tensor, delta: Tensor, N: int) -> int:
        """How many samples to take at once."""
        rows, cols = adapter.matrix(self.module).shape
        positions = delta.numel() // rows
        floats = positions * (cols + 2 * self.probes * rows) + self.probes * N * rows * cols
        return max(1, min(N, CHUNK_BYTES * N // (4 * floats)))

    def _sampled(
        self, adapter: type[Adapter], W: Tensor, changes: Tensor, x: Tensor, delta: Tensor, n: int
    ) -> Tensor:
        """s of n samples under each probe: (probes, C, n). delta: (probes, *output)."""
        if adapter.kind == "embedding":  # indices have no weight gradient in matrix form
            looked_up = (adapter.apply(self.module, x, dW) for dW in changes)
            dots = [(dY * delta).reshape(self.probes, n, -1).sum(-1) for dY in looked_up]
            return torch.stack(dots, 1)
        flat = changes.flatten(1)
        s = flat @ _gradients(adapter, self.module, x.float(), delta, n).transpose(1, 2)
        for activation, step, members in self._activations():
            dx = fake_quantize(x, activation, adapter.kind, step).float() - x.float()
            shifted = _gradients(adapter, self.module, dx, delta, n).transpose(1, 2)
            s[:, members] += (flat[members] + W.flatten()) @ shifted
        return s

    def _elementwise(
        self, adapter: type[Adapter], W: Tensor, changes: Tensor, x: Tensor, delta: Tensor, n: int
    ) -> Tensor:
        """e of n samples under each probe: (probes, C, n). delta: (probes, *output)."""
        found = []
        full = x.float() if x.is_floating_point() else x
        for q, dW in zip(self.candidates, changes, strict=True):
            dY = adapter.apply(self.module, full, dW)
            activation = q.weight.scheme.activation
            if activation is not None:
                dx = fake_quantize(x, activation, adapter.kind, q.input_scale).float() - full
                dY = dY + adapter.apply(self.module, dx, W + dW)
            found.append((dY * delta).square_().reshape(self.probes, n, -1).sum(-1))
        return torch.stack(found, 1)

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
    """Γ of n samples under each probe: (probes, n, rows · cols). delta: (probes, *output)."""
    a = adapter.patches(module, x)  # (N', P, G, cols)
    G, cols = a.shape[2:]
    a = a.reshape(n, -1, G, cols).transpose(1, 2)  # (n, G, P, cols)
    d = torch.stack([adapter.outputs(module, each) for each in delta])  # (probes, N', P, rows)
    d = d.reshape(len(delta), n, -1, G, d.shape[-1] // G).permute(1, 3, 0, 4, 2)
    R = d.shape[3]
    product = d.reshape(n, G, -1, d.shape[-1]) @ a  # (n, G, probes · R, cols)
    return product.unflatten(2, (len(delta), R)).permute(2, 0, 1, 3, 4).reshape(len(delta), n, -1)
