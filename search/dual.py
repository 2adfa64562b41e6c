"""Lagrangian relaxation: a lower bound on every allocation within the limits.

    λ       (R,)    price of one unit of each resource, >= 0
    f(λ)            Σ_g min_c (loss[g,c] + λ·cost[·,g,c]) − λ·room:   a bound for every λ
    excess  (G, C)  loss[g,c] + λ·cost[·,g,c] minus its least over c: what taking c adds to f

f is concave and piecewise linear; its maximum equals the linear relaxation (Geoffrion 1974). It is
climbed by cutting planes (Kelley 1960): each evaluation gives a tangent, a linear program in R + 1
variables the next λ. Every λ tried gives a valid bound and a valid test: a choice whose excess
lifts f above a known loss is in no better allocation (Pisinger 1995, for one resource).
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from ortools.linear_solver import pywraplp

from .items import EPS, Bool, Float, Items, Picks

MAX_CUTS = 200
THIN = 4096  # items that give the first prices of many
ASIDE = 0.1  # of those prices, so far on each side the true ones are looked for
BLOCK = 2**15  # choices priced at a time, so that they stay in the cache
PIVOTS = 10_000  # of one linear program; a warm-started one was seen to cycle for ever
OPTIMAL = pywraplp.Solver.OPTIMAL
MAX_BOX = 4.0 * 16**4  # times the price on the ray
KEPT = 20  # tangents that test choices
FLAT = 1e-200  # losses that differ by less are not told apart: totals / FLAT must stay finite
TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)
class Tangent:
    """f at one λ. bound: f(λ) less all rounding, so that it is a true bound."""

    prices: Float
    bound: float
    value: float
    picks: Picks
    least: Float  # (G,) priced loss of picks
    usage: Float  # (R,) total cost of picks


@dataclass(frozen=True, eq=False)
class Dual:
    """What the climb found. ``bound`` is the best of ``tangents``; they are ordered best first."""

    tangents: tuple[Tangent, ...]

    @property
    def bound(self) -> float:
        return self.tangents[0].bound

    @property
    def prices(self) -> Float:
        return self.tangents[0].prices

    def keep(self, items: Items, loss: float, among: Bool | None = None) -> Bool:
        """(G, C) which choices, of those ``among``, may be in an allocation of at most ``loss``."""
        best, *others = self.tangents
        left = loss + EPS * abs(loss)
        if among is None:
            largest = items.sizes.max(axis=1, initial=0.0)
            coarse = (len(best.prices) + 2) * EPS * (largest[0] + best.prices @ largest[1:])
            among = best.bound + excess(items, best.prices) <= left + coarse
        g, c = np.nonzero(among)  # few, as a rule
        own, cost = items.loss[g, c], items.cost[:, g, c]
        stays = np.ones(len(g), dtype=bool)
        for tangent in (best, *others):
            # R + 2 roundings of a choice's own terms; the bound allows for those of the least
            size = np.abs(own) + tangent.prices @ np.abs(cost)
            low = own + tangent.prices @ cost - tangent.least[g]
            stays &= tangent.bound + low - (len(tangent.prices) + 2) * EPS * size <= left
        kept = np.zeros(items.loss.shape, dtype=bool)
        kept[g, c] = stays
        return kept


def priced(items: Items, prices: Float, rows: slice = slice(None)) -> Float:
    """(G, C) loss plus the price of the costs, of some items."""
    total = items.loss[rows].copy()
    for price, table in zip(prices, items.cost, strict=True):
        if price:
            total += price * table[rows]
    return total


def excess(items: Items, prices: Float) -> Float:
    """(G, C) what each choice adds to its item's least priced loss; inf where barred."""
    total = priced(items, prices)
    total -= total.min(axis=1, keepdims=True)
    return total


def tangent(items: Items, prices: Float) -> Tangent:
    """f and a supergradient of it at ``prices``."""
    G, C = items.loss.shape
    picks, least = np.empty(G, dtype=np.intp), np.empty(G)
    step = max(1, BLOCK // C)
    for start in range(0, G, step):
        part = slice(start, start + step)
        total = priced(items, prices, part)
        picks[part] = total.argmin(axis=1)
        least[part] = total.min(axis=1)
    room = items.room + items.slack
    value = math.fsum([*least.tolist(), *(-prices * room)])
    # each term carries R + 1 roundings of its largest part; fsum adds none
    rows = np.arange(G)
    size = np.abs(items.loss[rows, picks]).sum() + float(prices @ items.sizes[1:].sum(axis=1))
    rounding = 2 * (len(prices) + 2) * EPS * (size + float(prices @ np.abs(room)))
    usage = items.cost[:, rows, picks].sum(axis=1)
    return Tangent(prices, value - rounding, value, picks, least, usage)


def climb(items: Items, deadline: float = math.inf, precision: float = 0.0) -> Dual:
    """The maximum of f, to ``precision`` (relative) or the resolution of the linear program.

    At ``deadline`` the best so far.
    """
    R = len(items.resources)
    start = tangent(items, np.zeros(R))
    room = items.room + items.slack
    if not R or (start.usage <= room).all() or not _spread(items).any():
        return Dual((start,))
    span = items.span()
    alike = np.zeros(R)
    np.divide(max(float(_spread(items).sum()), TINY), span, out=alike, where=span > 0)
    factor, first = _first(items, alike, start)
    tangents = [start, *first]
    best = max(tangents, key=lambda t: t.value)
    # λ = unit·μ and f = start + rise·θ, so that the solution is near 1 in every direction
    unit = np.where(alike > 0, alike * factor, 1.0)
    noise = EPS * (abs(start.value) + float(_spread(items).sum()))
    rise = max(best.value - start.value, noise, FLAT)
    master = _Master(start.value, rise, unit, room)
    for t in tangents:
        master.add(t)
    for _ in range(MAX_CUTS):
        prices, ceiling = master.solve()
        enough = best.value + precision * abs(best.value)
        if prices is None or ceiling <= enough or time.perf_counter() > deadline:
            break
        here = tangent(items, prices)
        tangents.append(here)
        if here.value > best.value:
            best = here
        if not master.add(here):
            break
    tangents.sort(key=lambda t: -t.bound)
    return Dual(tuple(tangents[:KEPT]))


def _first(items: Items, alike: Float, start: Tangent) -> tuple[float, list[Tangent]]:
    """How far along ``alike`` (R,) the best prices are, about, and tangents near them.

    Of many items a part tells as much.
    """
    if len(items.loss) >= 2 * THIN:
        rough = climb(_thinned(items, THIN)).prices
        factor = float(np.max(rough[alike > 0] / alike[alike > 0], initial=0.0))
        if factor > 0:
            return factor, [tangent(items, p) for p in _around(rough)]
    # a limit that holds at no price yet may come to bind, but would hide on the ray those that do
    room = items.room + items.slack
    along = _along(items, np.where(start.usage > room, alike, 0.0))
    factor, _ = max(along, key=lambda pair: pair[1].value)
    return factor, [t for _, t in along]


def _around(prices: Float) -> Float:
    """(n, R) the prices, each raised and lowered, and all much dearer, where most limits hold."""
    R = len(prices)
    factors = np.ones((2 * R + 2, R))
    for r in range(R):
        factors[2 * r + 1, r], factors[2 * r + 2, r] = 1 - ASIDE, 1 + ASIDE
    factors[-1] = 1 + 4 * ASIDE
    return np.unique(prices * factors, axis=0)


def _thinned(items: Items, count: int) -> Items:
    """About ``count`` of the items, with limits as far between least and greatest total."""
    rows = np.arange(0, len(items.loss), len(items.loss) // count)
    part = dataclasses.replace(
        items, loss=items.loss[rows], cost=items.cost[:, rows], first=items.first[rows]
    )
    share = (items.room - items.least()) * items.per_span()
    return dataclasses.replace(part, room=part.least() + share * part.span())


def _along(items: Items, ray: Float) -> list[tuple[float, Tangent]]:
    """Tangents around the maximum of f on the ray ``ray`` (R,), each with its factor.

    Gives the order of magnitude of the prices, which may be anything: losses span 1e-9 to 1e2,
    costs 1e-6 seconds to 1e15 operations.
    """
    room = items.room + items.slack
    found = []
    lower, upper = -60.0, 60.0  # exponents of 2
    while upper - lower > 0.25:
        middle = (lower + upper) / 2
        here = tangent(items, ray * 2.0**middle)
        found.append((2.0**middle, here))
        rising = float((here.usage - room) @ ray) > 0
        lower, upper = (middle, upper) if rising else (lower, middle)
    return found


def _spread(items: Items) -> Float:
    """(G,) greatest minus least loss of each item."""
    highest: Float = np.where(items.allowed, items.loss, -np.inf).max(axis=1)
    return highest - items.loss.min(axis=1)


class _Master:
    """max θ s.t. θ <= each tangent, 0 <= μ <= box; the box grows when it holds the maximum back.

    Where the program fails, the box is set back and stays.
    """

    def __init__(self, base: float, span: float, unit: Float, room: Float) -> None:
        self.base, self.span, self.unit, self.room = base, span, unit, room
        self.box, self.settled = 4.0, False
        self.solver: Any = pywraplp.Solver.CreateSolver("GLOP")
        self.solver.SetSolverSpecificParametersAsString(f"max_number_of_iterations: {PIVOTS}")
        self.afresh = pywraplp.MPSolverParameters()
        self.afresh.SetIntegerParam(self.afresh.INCREMENTALITY, self.afresh.INCREMENTALITY_OFF)
        self.mu = [self.solver.NumVar(0.0, self.box, "") for _ in unit]
        self.theta = self.solver.NumVar(-self.solver.infinity(), self.solver.infinity(), "")
        self.solver.Maximize(self.theta)
        self.seen: set[tuple[float, ...]] = set()

    def add(self, t: Tangent) -> bool:
        """Add a tangent; False if it is known already, so that nothing more can be learned."""
        slope = (t.usage - self.room) * self.unit / self.span
        level = (t.value - self.base) / self.span - float(slope @ (t.prices / self.unit))
        key = tuple(t.usage)
        if key in self.seen:
            return False
        self.seen.add(key)
        size = max(1.0, float(np.abs(slope).max()))  # rows of size 1
        row = self.solver.Constraint(-self.solver.infinity(), level / size)
        row.SetCoefficient(self.theta, 1.0 / size)
        for mu, s in zip(self.mu, slope, strict=True):
            row.SetCoefficient(mu, -s / size)
        return True

    def solve(self) -> tuple[Float | None, float]:
        """The next prices with the linear program's maximum; no prices when it fails."""
        while True:
            if not self._solved():
                if self.settled:
                    return None, math.nan
                self._bound(4.0)  # far bounds are hard on it
                self.settled = True
                continue
            mu = np.array([m.solution_value() for m in self.mu]).clip(0)
            if (mu < self.box * (1 - 1e-9)).all() or self.box >= MAX_BOX or self.settled:
                return mu * self.unit, self.base + self.span * self.theta.solution_value()
            self._bound(self.box * 16)

    def _solved(self) -> bool:
        return self.solver.Solve() == OPTIMAL or self.solver.Solve(self.afresh) == OPTIMAL

    def _bound(self, box: float) -> None:
        self.box = box
        for m in self.mu:
            m.SetUb(box)
