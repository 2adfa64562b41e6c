"""Lower left convex hulls of (cost, loss) points, of all items at once.

hull     of an item, from its cheapest scheme to its least loss, by rising cost
segment  one edge of a hull: the step from a scheme to the next dearer one on the hull
slope    loss saved per cost of a segment; a hull's slopes fall from cheap to dear
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .items import Float, Picks

BLOCK = 4096  # items at a time, so that they stay in the cache


@dataclass(frozen=True, eq=False)
class Walk:
    """start (G,): the cheapest picks. The segments, by falling slope: of which item, from, to.

    Each prefix of the segments is an optimal allocation for the cost that it has, so one sort gives
    the whole supported front (Shoham and Gersho 1988, "Efficient bit allocation for an arbitrary
    set of quantizers").
    """

    start: Picks
    group: Picks  # (S,)
    at: Picks  # (S,)
    to: Picks  # (S,)

    def picks(self, steps: int) -> Picks:
        """(G,) after the first ``steps`` segments."""
        picks = self.start.copy()
        picks[self.group[:steps]] = self.to[:steps]  # of equal groups the last one stays
        return picks


def walk(loss: Float, cost: Float) -> Walk:
    """The segments of all hulls of loss over cost, both (G, C); inf losses are left out.

    Of equal slopes those of the first item come first.
    """
    corners, count = hulls(loss, cost)
    lowest = np.take_along_axis(loss, corners, axis=1)
    lowest[np.arange(loss.shape[1]) >= count[:, None]] = np.inf
    count = lowest.argmin(axis=1) + 1  # what comes after the least loss costs more for nothing
    edge = np.arange(corners.shape[1] - 1)[None, :] < (count - 1)[:, None]
    group = np.nonzero(edge)[0]
    at, to = corners[:, :-1][edge], corners[:, 1:][edge]
    slope = (loss[group, at] - loss[group, to]) / (cost[group, to] - cost[group, at])
    order = np.argsort(-slope, kind="stable")
    return Walk(corners[:, 0], group[order], at[order], to[order])


def hulls(loss: Float, cost: Float) -> tuple[Picks, Picks]:
    """(G, C) the corners of each item's lower hull, by rising cost, and (G,) how many there are.

    Points on an edge are no corners; of equal points the first counts.
    """
    parts = [
        _chains(loss[start : start + BLOCK], cost[start : start + BLOCK])
        for start in range(0, len(loss), BLOCK)
    ]
    corners, count = zip(*parts, strict=True)
    return np.concatenate(corners), np.concatenate(count)


def _chains(loss: Float, cost: Float) -> tuple[Picks, Picks]:
    """Andrew's monotone chain, a step of all items at a time."""
    order = np.lexsort((loss, cost), axis=1)
    y = np.ascontiguousarray(np.take_along_axis(loss, order, axis=1).T)  # (C, G)
    x = np.ascontiguousarray(np.take_along_axis(cost, order, axis=1).T)
    chain = np.zeros(y.shape, dtype=np.intp)  # places in ``order``
    count = np.zeros(len(order), dtype=np.intp)
    for c in range(order.shape[1]):
        last = x[chain[count - 1, np.arange(len(order))], np.arange(len(order))]
        rows = np.flatnonzero(np.isfinite(y[c]) & ((count == 0) | (x[c] > last)))
        turning = rows[count[rows] > 1]
        while len(turning):
            a, b = chain[count[turning] - 2, turning], chain[count[turning] - 1, turning]
            ya, yb, yc = y[a, turning], y[b, turning], y[c, turning]
            xa, xb, xc = x[a, turning], x[b, turning], x[c, turning]
            # b is a corner if the line falls more steeply before it than after it
            turning = turning[(ya - yb) * (xc - xb) <= (yb - yc) * (xb - xa)]
            count[turning] -= 1
            turning = turning[count[turning] > 1]
        chain[count[rows], rows] = c
        count[rows] += 1
    return np.take_along_axis(order, chain.T, axis=1), count
