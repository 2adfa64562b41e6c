"""What layers add to each other's loss, from per-sample scores, and how far that is believed.

    s[l,c,i]    g_i · ΔW[l,c] of layer l under scheme c, sample i (fisher.py), draws of a probe
                being further samples; w_i what a sample's positions count for
    G           Σ_i s_i s_iᵀ / Σ_i w_i over (layer, scheme) pairs
    KL          ≈ ½ xᵀ G x of an allocation x, to second order: the diagonal is what ``fisher``
                scores, the off-diagonals are interactions

An off-diagonal is a mean of products of either sign: far noisier than the diagonal, and an
optimizer finds the noise. Halves a, b of the samples give two estimates of each, in units of
√(G_pp G_qq). Of what is estimated the part

    r = Σ a·b / √(Σ a² Σ b²)        ρ = 2 r / (1 + r)

is real in a half and, by the formula of Spearman and Brown (1910), in the whole. The sums are about
zero, not about the mean, since zero is what the estimates are shrunk to: ρ is then the factor of
least squared error (that of an empirical Bayes estimate with a normal prior about zero).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import InvalidInput
from bitfront.types import Interactions, Measurement

Float = NDArray[np.float64]

PAIRS = 512  # (layer, scheme) pairs whose products are compared, drawn when there are more
SPLITS = 8
FEW = 4  # samples that count, below which halves say nothing


def interactions(
    measurements: Iterable[Measurement],
    layers: Sequence[str],
    schemes: Sequence[str],
    temperature: float,
) -> Interactions:
    """Of ``fisher``'s recorded ``measurements``, with their vectors, at one temperature.

    Pairs that were not measured are nan. ``shrink`` is ρ. Raises ``InvalidInput`` where nothing is
    recorded of the temperature.
    """
    rows = {name: i for i, name in enumerate(layers)}
    columns = {name: j for j, name in enumerate(schemes)}
    name = f"s@{temperature:g}"
    found = {
        (rows[m.layer], columns[m.scheme]): m.vectors
        for m in measurements
        if m.layer in rows and m.scheme in columns and name in m.vectors
    }
    if not found:
        raise InvalidInput(
            f"no per-sample scores at temperature {temperature:g}", "profile with fisher at it"
        )
    first = next(iter(found.values()))
    draws, N = first[name].shape
    weights = first["count"].astype(np.float64)
    S = np.full((len(rows), len(columns), draws, N), np.nan, dtype=np.float32)
    for at, vectors in found.items():
        S[at] = vectors[name]
    i, j = np.array(sorted(found)).T
    known = S[i, j]
    rho = reliability(known, i, weights)
    scaled = S.reshape(*S.shape[:2], draws * N) / np.float32(np.sqrt(draws * weights.sum()))
    notes = {"temperature": temperature, "samples": N, "reliability": rho}
    return Interactions(tuple(layers), tuple(schemes), scaled, rho, notes)


def reliability(S: NDArray[np.float32], layer: NDArray[np.intp], weights: Float) -> float:
    """ρ of the off-diagonals between different layers, from 0 to 1; 0 where halves disagree.

    S: (K, draws, N) scores of K pairs; layer: (K,) which layer each is of; weights: (N,). The mean
    over ``SPLITS`` random halves of the samples that count, on at most ``PAIRS`` pairs, the same
    ones for the same input. 0 where there are fewer than ``FEW`` samples or two layers.
    """
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.permutation(len(S))[:PAIRS])
    scores = S[chosen][..., weights > 0].astype(np.float64)
    weights, layer = weights[weights > 0], layer[chosen]
    norm = np.sqrt(np.square(scores).sum(axis=(1, 2)))
    scores, layer = scores[norm > 0] / norm[norm > 0, None, None], layer[norm > 0]
    first, second = np.nonzero(np.triu(layer[:, None] != layer))
    N = len(weights)
    if N < FEW or not len(first):
        return 0.0
    found = []
    for _ in range(SPLITS):
        a, b = (
            _products(scores[..., half], first, second) / weights[half].sum()
            for half in np.array_split(rng.permutation(N), 2)
        )
        size = float(np.sqrt((a @ a) * (b @ b)))
        found.append(float(a @ b) / size if size else 0.0)
    r = max(float(np.mean(found)), 0.0)
    return 2 * r / (1 + r)


def _products(scores: Float, first: NDArray[np.intp], second: NDArray[np.intp]) -> Float:
    flat = scores.reshape(len(scores), -1)
    products: Float = (flat @ flat.T)[first, second]
    return products
