"""The objective with interactions, over items.

    κ                the interactions' shrink
    v     (G, C, n)  per-sample vectors, summed over an item's layers, float64; 0 where barred
    base  (G, C)     loss - ½ κ Σ |v|² over an item's layers; inf where barred
    r     (n,)       Σ_g v[g, picks_g]
    F                Σ_g loss + κ Σ_{l<m} v_l · v_m over layers   =   Σ_g base + ½ κ |r|²

The second form is convex in r: what it takes off the diagonal is linear in the choice, because of
two schemes of one item at most one is chosen (Hammer and Rubin 1970 convexify binary programs so).
Memory is 8·G·C·n bytes; products of pairs are never all made.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bitfront.types import Interactions

from .items import EPS, Float, Items, Picks


@dataclass(frozen=True, eq=False)
class Coupled:
    """See the module's notation."""

    items: Items
    base: Float
    vectors: Float
    shrink: float

    def sum(self, picks: Picks) -> Float:
        """r"""
        total: Float = self.vectors[np.arange(len(picks)), picks].sum(axis=0)
        return total

    def value(self, picks: Picks) -> float:
        """F"""
        r = self.sum(picks)
        return math.fsum([*self.base[np.arange(len(picks)), picks], self.half(r)])

    def half(self, r: Float) -> float:
        """½ κ |r|²"""
        return 0.5 * self.shrink * float(r @ r)

    def linearized(self, r: Float) -> Items:
        """Items whose total loss less ``half(r)`` is at most F: its tangent at any r.

        For ½|r'|² >= r·r' - ½|r|², whatever r and r'.
        """
        return dataclasses.replace(self.items, loss=self.base + self.shrink * (self.vectors @ r))

    def changes(self, picks: Picks) -> Float:
        """(G, C) what F changes by when one item leaves ``picks``; inf where barred."""
        rows = np.arange(len(picks))
        here = self.vectors[rows, picks]
        cross = np.matmul(self.vectors, here[:, :, None])[:, :, 0]
        pulls = self.vectors @ self.sum(picks)
        after = self.base + self.shrink * (pulls + 0.5 * self.own - cross)
        change: Float = after - after[rows, picks][:, None]
        return change

    @cached_property
    def own(self) -> Float:
        """(G, C) |v|²"""
        norms: Float = np.einsum("gcn,gcn->gc", self.vectors, self.vectors)
        return norms

    def rounding(self, r: Float) -> float:
        """More than F of any picks, or its tangent at ``r``, is off by roundings.

        Sums of n or G terms, whatever their order, are off by at most so many EPS of the sum of
        their magnitudes; base is a difference of loss and such a sum.
        """
        G, _, n = self.vectors.shape
        norms = np.sqrt(self.own.max(axis=1))
        longest = float(norms.sum()) + float(np.sqrt(r @ r))
        members = max(len(m) for m in self.items.members)
        losses = np.where(self.items.allowed, np.abs(self.items.loss), 0.0).max(axis=1).sum()
        return EPS * (4 * float(losses) + (G + n + members + 8) * self.shrink * longest**2)


def coupled(items: Items, interactions: Interactions) -> Coupled:
    """The objective of ``items`` with their problem's interactions."""
    G, C = items.loss.shape
    n = interactions.vectors.shape[2]
    v = np.zeros((G, C, n))
    alone = np.zeros((G, C))
    for g, members in enumerate(items.members):
        for layer in members:
            own = interactions.vectors[layer].astype(np.float64)
            v[g] += own
            alone[g] += np.einsum("cn,cn->c", own, own)
    v[~items.allowed] = 0.0
    alone[~items.allowed] = 0.0
    base = items.loss - 0.5 * interactions.shrink * alone
    return Coupled(items, base, v, interactions.shrink)
