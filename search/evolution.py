"""Evolution of measured allocations towards the whole front: Optuna's NSGA-II, or NSGA-III.

    individual   an allocation; its genes are the ranks of its schemes by cost, one for each item
    objectives   the measured loss, and each resource on which the points have different limits, or
                 else different floors: of these the most
    child        a mother's picks, some of a mate's in their place, then moves of one rank

Selection is Optuna's: non-dominated sorting with crowding distance (Deb et al. 2002, "A fast and
elitist multiobjective genetic algorithm: NSGA-II"), or with reference directions from three
objectives on (Deb and Jain 2014). Where all points have one limit on a resource, or one floor, it
is a constraint only, not an objective, as nobody asks for less than that.

A child stays near its parents: it differs by what it takes from the mate, an individual of about
the same cost, by one to a few moves up or down by one rank, and by what brings it within the limits
of a point again (``sweep.repaired``). Moves, and steps of repair, that the table predicts to be
cheap are the likelier ones. The first generation is what was told, then the solver's own front.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bitfront.types import Allocation, Problem

from .explorer import EXPLORERS
from .fronts import near_front
from .items import Float, Items, Picks
from .quiet import quiet
from .sweep import Sweep, repaired, squashed, stepped

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

POPULATION = 16
SWAPPED = 0.5  # of the genes in which a mate differs
MORE = 0.5  # chance that no further move is made, after each
ELSEWHERE = 0.25  # chance that a child is brought within another point than its mother's
FULL = 0.5  # chance that it may use all of that point's limits, not only what its mother uses
TRIES = 100  # children, until one is new


class Evolution:
    """See ``explorer``. Without ``starts`` it looks at no table, from random allocations on.

    That is evolution from nothing: moves and repairs are drawn without regard to predicted losses.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        starts: Sequence[tuple[Allocation, float]] = (),
        *,
        seed: int = 0,
    ) -> None:
        self.sweep = Sweep(problems, "evolution", seed)
        self.random = np.random.default_rng(seed)
        self.blind = not starts
        self.resources = self.sweep.differing()
        self.study = _study(1 + len(self.resources), self._parents, seed)
        self.running: dict[tuple[int, ...], Any] = {}
        self.parents: list[Picks] = []
        for allocation, loss in starts:
            self.tell(allocation, loss)
        self.first: Iterator[Picks | None] = (
            (self._random() for _ in range(POPULATION))
            if self.blind
            else iter(near_front(self.sweep, POPULATION))
        )

    def ask(self) -> Allocation | None:
        picks = next((p for p in self.first if p is not None and not self.sweep.known(p)), None)
        if picks is None:
            picks = self._new()
        if picks is None:
            return None
        with quiet():
            self.running[tuple(picks.tolist())] = self._trial(picks)
        return self.sweep.ask(picks)

    def tell(self, allocation: Allocation, loss: float) -> None:
        told = self.sweep.tell(allocation, loss)
        if told is None:
            return
        picks, loss = told
        items = self.sweep.points[0]
        usage = items.usage(picks)
        with quiet():
            trial = self.running.pop(tuple(picks.tolist()), None) or self._trial(picks)
            trial.set_constraint("limits", self.sweep.excess(picks))
            self.study.tell(trial, [squashed(loss), *usage[self.resources].tolist()])

    def _trial(self, picks: Picks) -> Any:
        """A running trial of Optuna's with these genes."""
        from optuna.distributions import IntDistribution

        rows = np.arange(len(picks))
        genes = self.sweep.rank[rows, picks].tolist()
        most = self.sweep.points[0].allowed.sum(axis=1).tolist()
        space: dict[str, BaseDistribution] = {
            str(g): IntDistribution(0, n - 1) for g, n in enumerate(most)
        }
        self.study.enqueue_trial({str(g): gene for g, gene in enumerate(genes)})
        return self.study.ask(space)

    def _parents(
        self, study: Study, space: dict[str, BaseDistribution], population: list[FrozenTrial]
    ) -> dict[str, Any]:
        """Optuna's hook for children: keeps the parents that it selected; genes come from us."""
        del study, space
        rows = np.arange(self.sweep.size)
        genes = ([t.params[str(g)] for g in rows] for t in population)
        self.parents = [self.sweep.order[rows, ranks] for ranks in genes]
        return {}

    def _new(self) -> Picks | None:
        """A child that is not known; else whatever is not."""
        parents = self.parents or [np.array(key, dtype=np.intp) for key in self.sweep.loss]
        for tries in range(TRIES):
            child = self._child(parents, tries // 10) if parents else self._random()
            if child is not None and not self.sweep.known(child):
                return child
        return self.sweep.enumerated()

    def _child(self, parents: list[Picks], more: int) -> Picks | None:
        """``more``: moves beyond those drawn."""
        random, sweep = self.random, self.sweep
        mother = parents[random.integers(len(parents))]
        picks = mother.copy()
        mate = self._mate(mother, parents)
        swapped = (mate != mother) & (random.random(len(picks)) < SWAPPED)
        picks[swapped] = mate[swapped]
        of = sweep.fitting(mother)
        if not of or random.random() < ELSEWHERE:
            of = [int(random.integers(len(sweep.points)))]
        point = of[0]
        value = None if self.blind else sweep.values[point]
        moved = stepped(sweep, picks, value, int(random.geometric(MORE)) + more, random)
        items = sweep.points[point]
        if self.resources and random.random() >= FULL and items.fits(mother):
            used = np.where(items.sign > 0, items.usage(mother), items.room)  # floors stay
            items = replace(items, room=np.minimum(items.room, used))
        return self._repaired(items, picks, sweep.values[point], moved)

    def _mate(self, mother: Picks, parents: list[Picks]) -> Picks:
        """The nearer in cost of two."""
        items = self.sweep.points[0]
        two = self.random.choice(len(parents), min(2, len(parents)), replace=False)
        here = items.usage(mother)
        away = [float(np.abs(items.usage(parents[i]) - here) @ items.per_span()) for i in two]
        return parents[two[int(np.argmin(away))]]

    def _repaired(
        self, items: Items, picks: Picks, value: Float, moved: Sequence[int] = ()
    ) -> Picks | None:
        """By the table, or where there is no looking at it, by lot."""
        if self.blind:
            lots = 0.5 + self.random.random(len(picks))
            value = np.where(items.allowed, -lots[:, None] * self.sweep.rank, np.inf)
            items = replace(items, loss=value)
        return repaired(items, picks, value, moved)

    def _random(self) -> Picks | None:
        """By lot, within the limits of a point by lot."""
        items = self.sweep.points[int(self.random.integers(len(self.sweep.points)))]
        lots = np.where(items.allowed, self.random.random(items.loss.shape), np.inf)
        return self._repaired(items, lots.argmin(axis=1), items.loss)


def _study(objectives: int, parents: Any, seed: int) -> Study:
    import optuna

    kind = optuna.samplers.NSGAIISampler if objectives < 3 else optuna.samplers.NSGAIIISampler
    with quiet():
        sampler = kind(population_size=POPULATION, child_generation_strategy=parents, seed=seed)
        return optuna.create_study(sampler=sampler, directions=["minimize"] * objectives)


EXPLORERS.register("evolution")(Evolution)
