"""Products of Hessian blocks with vectors, by differentiating a gradient once more.

    W    weight of an owner (curvature.py)
    v    by owner, a direction of W's shape
    H v  ∂(∂L/∂W · v)/∂W: one more backward pass

Nothing of H is ever formed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from bitfront.errors import ModelError
from bitfront.tasks.boundary import foreign
from bitfront.tasks.metrics import wide

from .curvature import TWICE, Weights, gradients
from .probes import signs


class Products:
    """Products of vectors with the Hessian of a loss L (0-dim) that depends on ``weights``.

    Raises ``ModelError`` as ``gradients`` does, and for what cannot be differentiated twice.
    """

    def __init__(self, L: Tensor, weights: Weights) -> None:
        self._weights = weights
        self._gradients = gradients(L, torch.ones_like(L), weights, twice=True)
        _refuse_ends([g for parts in self._gradients.values() for g in parts])

    @property
    def reached(self) -> list[str]:
        """The owners that the loss depends on."""
        return list(self._gradients)

    def times(self, v: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """H v, float32 or wider, of the block of H that belongs to the owners in ``v``."""
        inputs = [w for name in v for w in self._weights[name]]
        pairs = [(g, d.to(g.dtype)) for n, d in v.items() for g in self._gradients.get(n, ())]
        pairs = [(g, d) for g, d in pairs if g.requires_grad]  # others do not depend on any weight
        if not pairs:
            return {name: torch.zeros_like(d) for name, d in v.items()}
        outputs, directions = zip(*pairs, strict=True)
        with foreign("differentiating the model twice", TWICE):
            flat = torch.autograd.grad(
                outputs, inputs, directions, retain_graph=True, materialize_grads=True
            )
        of = dict(zip(map(id, inputs), flat, strict=True))
        return {n: torch.stack([wide(of[id(w)]) for w in self._weights[n]]).sum(0) for n in v}


def _refuse_ends(outputs: Sequence[Tensor]) -> None:
    """Raises ``ModelError`` where the graph of ``outputs`` ends in an operation's refusal.

    torch leaves what lies beyond it out of a derivative, without a word: the product would be that
    of another function.
    """
    waiting = [g.grad_fn for g in outputs]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        if node.name() == "torch::autograd::Error":
            raise ModelError("the model has an operation without a second derivative", TWICE)
        new = [n for n, _ in node.next_functions if n not in seen]
        seen.update(new)
        waiting += new


def steps(weights: Weights, seed: int, index: int) -> Iterator[dict[str, Tensor]]:
    """By owner, independent random signs as large as its weights, one draw after another.

    float32 or wider. Steps of this size are held by 16 bits, and no layer's terms drown in
    another's. A layer's are the same for the same seed and batch index, whatever others there are.
    """
    sizes, generators = {}, {}
    for name, (W, *_) in weights.items():
        size = wide(W.detach()).square().mean().sqrt()
        sizes[name] = torch.where(size > 0, size, 1.0)
        key = zlib.crc32(f"{seed} {index} {name}".encode())
        generators[name] = torch.Generator().manual_seed(key)
    while True:
        yield {
            name: signs(tuple(W.shape), generators[name]).to(W.device) * sizes[name]
            for name, (W, *_) in weights.items()
        }


def rayleigh(v: Tensor, Hv: Tensor) -> float:
    """v · H v / v · v, summed in float64."""
    return float((v.double() * Hv).sum() / v.double().square().sum())
