"""From measured cells to ratios and a Markdown table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

UNIFORM = "uniform"


@dataclass(frozen=True)
class Row:
    """Of one model and budget: side -> KL, without those that have no allocation there."""

    model: str
    budget: float
    kl: Mapping[str, float]

    def best(self, peers: Iterable[str]) -> str | None:
        """The peer with the least KL; the first of equal ones; None where there is none."""
        there = [peer for peer in peers if peer in self.kl]
        return min(there, key=lambda peer: self.kl[peer], default=None)

    def ratio(self, side: str, peers: Sequence[str]) -> float | None:
        """KL of ``side`` over the best peer's; None where one of them has no allocation."""
        best = self.best(peers)
        return None if best is None or side not in self.kl else self.kl[side] / self.kl[best]


def mean_ratio(rows: Sequence[Row], side: str, peers: Sequence[str]) -> float | None:
    """Geometric mean over the rows where both have an allocation; None where none has."""
    ratios = [ratio for row in rows if (ratio := row.ratio(side, peers)) is not None]
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios)) if ratios else None


def markdown(
    rows: Sequence[Row], peers: Sequence[str], ours: Sequence[str], compared: Sequence[str]
) -> str:
    """KL by model and budget, the best peer's in bold, then ``compared`` of ours over it."""
    titles = ["model", "bits", UNIFORM, *peers, *ours, *(f"{side} / best" for side in compared)]
    lines = [_line(titles), _line(["---"] * len(titles))]
    for row in rows:
        best = row.best(peers)
        cells = [
            f"**{_kl(row, side)}**" if side == best else _kl(row, side)
            for side in (UNIFORM, *peers, *ours)
        ]
        ratios = [row.ratio(side, peers) for side in compared]
        lines.append(_line([row.model, f"{row.budget:g}", *cells, *map(_ratio, ratios)]))
    return "\n".join(lines)


def _kl(row: Row, side: str) -> str:
    return f"{row.kl[side]:.3g}" if side in row.kl else ""


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
