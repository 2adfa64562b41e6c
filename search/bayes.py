"""Bayesian optimization of how the table is read: Optuna's TPE, or Gaussian process, over factors.

    b        one of at most ``BLOCKS`` blocks of consecutive items, as many items in each
    f_b      factor on the predicted losses of block b, 2^-WIDEST to 2^WIDEST
    s        sharpness, -SHARPEST to SHARPEST
    L'[g,c]  f_b(g) · L[g,c] · (L[g,c] / median L)^s, the table as it is read

What is optimized over is (log2 f, s), at most nine numbers whatever the number of layers, so that
20 measurements say something. A proposal is the supported allocation within a point's limits by L',
filled up: always feasible, always a plausible one, and the solver's own at (0, 0). Factors move
bits between parts of the network, where errors add up or cancel by more than the table knows; a
sharpness above 0 spares the layers that are worst, one below 0 spreads.

The points take turns, and share what is learnt: an observation is the log of the loss over that
which the same point's own table (0, 0) came to, so those come first. Factors that give an
allocation that is known are told its loss at no cost, or count as running, and the next are asked
for; where this fails, the best of the point is moved by a few ranks instead. For each proposal the
study is built anew from what was told and what is pending, with a seed of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from bitfront.types import Allocation, Problem

from .dual import climb
from .exact import foothold
from .explorer import EXPLORERS
from .items import Items, Picks
from .moves import fill
from .quiet import quiet
from .supported import supported
from .sweep import Sweep, repaired, squashed, stepped

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

BLOCKS = 8
WIDEST = 2.0  # of |log2 f|
SHARPEST = 0.3
DRAWN = 8  # observations, before which factors are drawn at random
ASKED = 6  # factors for each proposal, at most; half as many after each that they failed
WORST = 1.0  # log of a loss over the table's own: by how much more it is worse does not matter
TRIES = 100  # moves of the best, until one is new
SHARPNESS = "sharpness"

Kind = Literal["gp", "tpe"]


@dataclass(frozen=True, eq=False)
class Asked:
    """Factors, and the picks that they gave at a point."""

    point: int
    factors: Mapping[str, float]
    key: tuple[int, ...]


class Bayes:
    """See ``explorer``. sampler: ``tpe`` (Optuna's, multivariate) or ``gp`` (its ``GPSampler``).

    In ``benchmarks.explorers`` both came to the same within their spread over seeds; a proposal of
    ``gp`` takes a tenth of a second, one of ``tpe`` a few hundredths.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        starts: Sequence[tuple[Allocation, float]] = (),
        *,
        seed: int = 0,
        sampler: Kind = "tpe",
    ) -> None:
        self.sweep = Sweep(problems, "bayes", seed)
        self.seed, self.sampler = seed, sampler
        self.turn, self.patience = 0, ASKED
        blocks = np.array_split(np.arange(self.sweep.size), min(BLOCKS, self.sweep.size))
        self.names = [f"block {b}" for b in range(len(blocks))]
        self.block = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
        self.space = _space(self.names)
        own = dict.fromkeys(self.space, 0.0)
        self.own = [self._read(point, own) for point in range(len(problems))]
        self.asked = [Asked(i, own, tuple(picks.tolist())) for i, picks in enumerate(self.own)]
        for allocation, loss in starts:
            self.tell(allocation, loss)

    def ask(self) -> Allocation | None:
        picks = next((p for p in self.own if not self.sweep.known(p)), None)
        for _ in self.sweep.points:
            if picks is None:
                picks = self._proposal(self.turn % len(self.sweep.points))
                self.turn += 1
        if picks is None:
            picks = self.sweep.enumerated()
        return None if picks is None else self.sweep.ask(picks)

    def tell(self, allocation: Allocation, loss: float) -> None:
        self.sweep.tell(allocation, loss)

    def _proposal(self, point: int) -> Picks | None:
        for _ in range(self.patience):
            factors = self._factors()
            picks = self._read(point, factors)
            self.asked.append(Asked(point, factors, tuple(picks.tolist())))
            if not self.sweep.known(picks):
                self.patience = ASKED
                return picks
        self.patience = max(self.patience // 2, 1)
        return self._moved(point)

    def _factors(self) -> dict[str, float]:
        """What Optuna proposes after all that is known."""
        import optuna
        from optuna.trial import TrialState, create_trial

        seed = int(np.random.default_rng([self.seed, len(self.asked)]).integers(1 << 31))
        own = [self.sweep.loss.get(tuple(picks.tolist())) for picks in self.own]
        with quiet():
            study = optuna.create_study(sampler=_sampler(self.sampler, seed))
            for asked in self.asked:
                loss, over = self.sweep.loss.get(asked.key), own[asked.point]
                value = None
                if loss is not None and over is not None:
                    value = min(squashed(loss) - squashed(over), WORST)
                study.add_trial(
                    create_trial(
                        params=dict(asked.factors),
                        distributions=self.space,
                        value=value,
                        state=TrialState.RUNNING if value is None else TrialState.COMPLETE,
                    )
                )
            return dict(study.ask(self.space).params)

    def _read(self, point: int, factors: Mapping[str, float]) -> Picks:
        """The supported picks of a point by the table as ``factors`` read it."""
        items = self.sweep.points[point]
        log2 = np.array([factors[name] for name in self.names])
        f = 2.0 ** (log2 - log2.mean())[self.block][:, None]
        positive = items.allowed & (items.loss > 0)
        if positive.any():
            ratio = np.where(positive, items.loss, 1.0) / np.median(items.loss[positive])
            f = f * np.where(positive, ratio ** factors[SHARPNESS], 1.0)
        return _solved(replace(items, loss=items.loss * f))

    def _moved(self, point: int) -> Picks | None:
        """The best of the point, or else its own, with a few moves."""
        best = self.sweep.best(point)
        start = self.own[point] if best is None else best[0]
        random = np.random.default_rng([self.seed, len(self.asked), 1])
        items, value = self.sweep.points[point], self.sweep.values[point]
        for tries in range(TRIES):
            picks = start.copy()
            moved = stepped(self.sweep, picks, value, 1 + tries // 10, random)
            found = repaired(items, picks, value, moved)
            if found is not None and not self.sweep.known(found):
                return found
        return None


def _space(blocks: Sequence[str]) -> dict[str, BaseDistribution]:
    from optuna.distributions import FloatDistribution

    return {
        **{name: FloatDistribution(-WIDEST, WIDEST) for name in blocks},
        SHARPNESS: FloatDistribution(-SHARPEST, SHARPEST),
    }


def _sampler(kind: Kind, seed: int) -> BaseSampler:
    import optuna

    if kind == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=DRAWN)
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=DRAWN, multivariate=True, constant_liar=True
    )


def _solved(items: Items) -> Picks:
    if len(items.resources) == 1:
        return fill(items, supported(items))
    dual = climb(items)
    value = items.loss + np.tensordot(dual.prices, items.cost, axes=1)
    picks = repaired(items, dual.tangents[0].picks, value)
    return fill(items, foothold(items, items.best(), items.loss)) if picks is None else picks


EXPLORERS.register("bayes")(Bayes)
EXPLORERS.register("bayes-gp")(partial(Bayes, sampler="gp"))
