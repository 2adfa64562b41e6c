"""One layer, every scheme: what gradients at the output say of each change of the weights.

    W, x     the layer's weight and input as they are in the model now: full, or quantized (base)
    δ        the gradient at its output, of one call; one δ for each probe
    ΔW_c     (rows, cols)      Ŵ_c - W, the change under scheme c
    Δx_c     as x              input under scheme c minus x, where their activations differ
    ΔR_c     as the output     rounding of outputs (bias included), or of what is cached, under
                               scheme c, minus the base's
    Γ_i      (rows, cols)      Σ_t δ_t x_tᵀ over the positions t of sample i: its weight gradient
    s[c, i]  = Σ_t ⟨δ_t, ΔY_c,t⟩ = ⟨ΔW_c, Γ_i⟩ + ⟨Ŵ_c, Σ_t δ_t Δx_tᵀ⟩ + Σ_t ⟨δ_t, ΔR_c,t⟩
                                                                           per-sample score
    e[c, i]  = (P / |S|) Σ_{t in S} Σ_o (δ_to ΔY_c,to)²                    elementwise score

Forming Γ_i costs what a weight gradient costs, once for all schemes; the inner products with all
ΔW_c are then one matrix product. The elementwise score needs ΔY_c itself, which costs a forward of
the layer for each scheme, so it is taken on a random subset S of a sample's P positions: of every
sample, since a few samples hold most of the score. What does not depend on δ (patches of x, ΔW_c,
ΔY_c) is made once for all probes: the gradients of earlier probes wait for that of the last.
Everything is float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from bitfront.quant.activations import fake_quantize, output_error, rounds_output
from bitfront.quant.formats import dequantize
from bitfront.quant.layers import Adapter, adapter_of
from bitfront.quant.surgery import original
from bitfront.quant.weights import QuantizedLayer
from bitfront.types import Activation

# Bounds on the temporaries of one chunk of samples. Windows of a convolution's input are copies:
# small ones stay in the cache, and their memory is reused instead of being given back and asked
# for again. Where nothing is copied, more samples make better matrix products.
CHUNK_BYTES = 64 << 20
WINDOWS_BYTES = 8 << 20
FEW = 16  # positions that are never divided further


@dataclass(eq=False)
class LayerScores:
    """Adds up s and e of one layer over the calls of one batch, for all probes.

    candidates, base: None is the layer in full precision.
    """

    name: str
    module: nn.Module
    candidates: Sequence[QuantizedLayer | None]
    samples: int  # N
    probes: int
    elementwise: float = 0.0  # share of a sample's positions that e is taken on; 0: e is not wanted
    generator: torch.Generator | None = None  # draws these positions; on the CPU
    base: QuantizedLayer | None = None
    s: Tensor = field(init=False)  # (probes, C, N) float64
    e: Tensor = field(init=False)  # (probes, C, N) float64
    calls: int = field(init=False, default=0)
    _waiting: list[list[Tensor]] = field(init=False)  # by probe but the last: δ of each call

    def __post_init__(self) -> None:
        C = len(self.candidates)
        self.s = torch.zeros(self.probes, C, self.samples, dtype=torch.float64)
        self.e = torch.zeros(self.probes, C, self.samples, dtype=torch.float64)
        self._waiting = [[] for _ in range(self.probes - 1)]

    def add(self, probe: int, x: Tensor, delta: Tensor) -> None:
        """One call of the layer, seen under probe number ``probe``; x is its unquantized input.

        Every probe sees the same calls in the same order, one probe after another.
        """
        if not delta.numel():  # an expert that got no tokens
            return
        if probe < self.probes - 1:
            self._waiting[probe].append(delta.clone())  # autograd may add to it in place
            return
        deltas = [waiting.pop(0) for waiting in self._waiting] + [delta]
        self.calls += 1
        adapter = adapter_of(self.module)
        W = self._weight(self.base)
        changes = torch.stack([self._weight(q) - W for q in self.candidates])
        N = self.samples
        if x.shape[0] % N:  # not one block of entries per sample: the whole call is one sample
            N = 1
        per = x.shape[0] // N  # leading entries per sample
        positions = self._positions(adapter.outputs(self.module, delta)[:per, :, 0].numel())
        steps = self._chunk(adapter, x, delta, N)
        for first in range(0, N, steps):
            last = min(first + steps, N)
            rows = slice(first * per, last * per)
            part = [adapter.outputs(self.module, d[rows].float()) for d in deltas]
            d = torch.stack(part).reshape(self.probes, last - first, -1, part[0].shape[-1])
            if adapter.kind == "embedding":
                s, e = self._looked_up(adapter, changes, x[rows], d)
            else:
                s, e = self._scored(adapter, W, changes, x[rows], d, positions)
            self.s[..., first:last] += s.double().cpu()
            self.e[..., first:last] += e.double().cpu()

    def _positions(self, count: int) -> Tensor:
        """Which of ``count`` positions the elementwise score is taken on: at least ``FEW``."""
        wanted = min(count, max(FEW, round(self.elementwise * count))) if self.elementwise else 0
        chosen = torch.randperm(count, generator=self.generator)[:wanted].sort().values
        return chosen.to(self.module.weight.device)  # type: ignore[arg-type]

    def _weight(self, q: QuantizedLayer | None) -> Tensor:
        """The weight as the model would hold it: rounded to its dtype, then widened to float32."""
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        if q is None:
            return original(self.name, self.module).float()
        return dequantize(q.weight, weight.dtype).to(weight.device).float()

    def _chunk(self, adapter: type[Adapter], x: Tensor, delta: Tensor, N: int) -> int:
        """How many samples to take at once."""
        rows, cols = adapter.matrix(self.module).shape
        positions = delta.numel() // rows
        floats = positions * (cols + 3 * self.probes * rows) + self.probes * N * rows * cols
        limit = WINDOWS_BYTES if adapter.kind.startswith("conv") else CHUNK_BYTES
        return max(1, min(N, limit * N // (4 * floats)))

    def _scored(
        self,
        adapter: type[Adapter],
        W: Tensor,
        changes: Tensor,
        x: Tensor,
        d: Tensor,
        positions: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """s and e of n samples under each probe: (probes, C, n). d: (probes, n, P, rows)."""
        flat = changes.flatten(1)
        now = self._taken(x, self.base, adapter.kind)
        a = self._inputs(adapter, now, d)
        s = flat @ _gradients(a, d).transpose(1, 2)
        shifts: dict[int, Tensor] = {}  # candidate -> what its activations add to a
        for members in self._other_activations():
            then = self._taken(x, self.candidates[members[0]], adapter.kind)
            shift = self._inputs(adapter, then - now, d)
            s[:, members] += (flat[members] + W.flatten()) @ _gradients(shift, d).transpose(1, 2)
            shifts |= dict.fromkeys(members, shift)
        roundings = self._roundings(a, W, changes, shifts)
        for c, rounding in roundings.items():
            s[:, c] += (d * rounding).sum((2, 3))
        if not len(positions):
            return s, torch.zeros_like(s)
        here = a[:, positions]
        weights = d[:, :, positions].square().transpose(0, 1).flatten(2)  # (n, probes, S · rows)
        size = max(1, CHUNK_BYTES // (4 * weights[:, 0].numel()))
        e = []
        for block in torch.arange(len(changes)).split(size):
            dY = _products(here, changes[block])
            for i, c in enumerate(block.tolist()):
                if c in shifts:
                    dY[:, i] += _products(shifts[c][:, positions], (W + changes[c])[None])[:, 0]
                if c in roundings:
                    dY[:, i] += roundings[c][:, positions]
            e.append(weights @ dY.square_().flatten(2).transpose(1, 2))
        return s, torch.cat(e, 2).permute(1, 2, 0) * (d.shape[2] / len(positions))

    def _roundings(
        self, a: Tensor, W: Tensor, changes: Tensor, shifts: Mapping[int, Tensor]
    ) -> dict[int, Tensor]:
        """Candidate -> ΔR (n, P, rows), where it or the base rounds outputs or what is cached.

        a: (n, P, G, cols), what the outputs now are products of.
        """
        if not any(map(rounds_output, (*self.candidates, self.base))):
            return {}
        bias: Tensor | None = getattr(self.module, "bias", None)
        now = output_error(self.base, _products(a, W[None])[:, 0], bias)
        found = {}
        for c, q in enumerate(self.candidates):
            y = _products(a + shifts.get(c, 0.0), (W + changes[c])[None])[:, 0]
            then = output_error(q, y, bias)
            if then is not None or now is not None:
                zero = torch.zeros_like(y)
                found[c] = (zero if then is None else then) - (zero if now is None else now)
        return found

    def _looked_up(
        self, adapter: type[Adapter], changes: Tensor, x: Tensor, d: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same for an embedding, whose input is indices: changes are looked up."""
        s, e = [], []
        for dW in changes:
            products = adapter.apply(self.module, x, dW).reshape(d.shape[1:]) * d
            s.append(products.sum((2, 3)))
            e.append(products.square_().sum((2, 3)))
        return torch.stack(s, 1), torch.stack(e, 1)

    def _inputs(self, adapter: type[Adapter], x: Tensor, d: Tensor) -> Tensor:
        """What the outputs are products of: (n, P, G, cols)."""
        a = adapter.patches(self.module, x)
        return a.reshape(d.shape[1], -1, *a.shape[2:])

    def _taken(self, x: Tensor, q: QuantizedLayer | None, kind: str) -> Tensor:
        """What the layer takes in of its input x, as float32."""
        activation = _activation(q)
        if q is None or activation is None:
            return x.float()
        return fake_quantize(self.name, x, activation, kind, q.input_scale, q.input_zero).float()

    def _other_activations(self) -> list[list[int]]:
        """The candidates whose activations are not the base's, those of equal ones together."""
        found: dict[Activation | None, list[int]] = {}
        for c, q in enumerate(self.candidates):
            found.setdefault(_activation(q), []).append(c)
        present = _activation(self.base)
        return [members for activation, members in found.items() if activation != present]


def _activation(q: QuantizedLayer | None) -> Activation | None:
    """That of its input."""
    activation = None if q is None else q.weight.scheme.activation
    return None if activation is None else replace(activation, output=False)


def _gradients(a: Tensor, d: Tensor) -> Tensor:
    """Γ of n samples under each probe: (probes, n, rows · cols).

    a: (n, P, G, cols). d: (probes, n, P, rows).
    """
    probes, n, P, rows = d.shape
    G = a.shape[2]
    split = d.reshape(probes, n, P, G, rows // G).permute(1, 3, 0, 4, 2)  # (n, G, probes, R, P)
    product = split.reshape(n, G, -1, P) @ a.transpose(1, 2)  # (n, G, probes · R, cols)
    whole = product.unflatten(2, (probes, -1)).permute(2, 0, 1, 3, 4)
    return whole.reshape(probes, n, -1)


def _products(a: Tensor, M: Tensor) -> Tensor:
    """The outputs that weight matrices give: (n, B, P, rows).

    a: (n, P, G, cols). M: (B, rows, cols).
    """
    n, P, G, cols = a.shape
    B, rows, _ = M.shape
    wide = M.reshape(B, G, rows // G, cols).permute(1, 3, 0, 2).reshape(G, cols, -1)
    product = a.permute(2, 0, 1, 3).reshape(G, n * P, cols) @ wide  # (G, n · P, B · R)
    return product.reshape(G, n, P, B, -1).permute(1, 3, 2, 0, 4).reshape(n, B, P, rows)
