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

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from ortools.linear_solver import pywraplp

from .items import EPS, Bool, Float, Items, Picks

MAX_CUTS = 200
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

    def keep(self, items: Items, loss: float) -> Bool:
        """(G, C) which choices may be in an allocation of at most ``loss``."""
        kept = items.allowed
        finite = np.where(kept, items.loss, 0.0)
        for tangent in self.tangents:
            # R + 2 roundings of a choice's own terms; the bound allows for those of the least
            size = np.abs(finite) + np.tensordot(tangent.prices, np.abs(items.cost), axes=1)
            low = excess(items, tangent.prices) - (len(tangent.prices) + 2) * EPS * size
            kept = kept & (tangent.bound + low <= loss + EPS * abs(loss))
        return kept


def priced(items: Items, prices: Float) -> Float:
    """(G, C) loss plus the price of the costs."""
    return items.loss + np.tensordot(prices, items.cost, axes=1)


def excess(items: Items, prices: Float) -> Float:
    """(G, C) what each choice adds to its item's least priced loss; inf where barred."""
    total = priced(items, prices)
    return total - total.min(axis=1, keepdims=True)


def tangent(items: Items, prices: Float) -> Tangent:
    """f and a supergradient of it at ``prices``."""
    total = priced(items, prices)
    picks = total.argmin(axis=1)
    rows = np.arange(len(picks))
    terms = total[rows, picks]
    room = items.room + items.slack
    value = math.fsum([*terms, *(-prices * room)])
    # each term carries R + 1 roundings of its largest part; fsum adds none
    size = np.abs(items.loss[rows, picks]) + np.tensordot(prices, np.abs(items.cost), 1).max(axis=1)
    rounding = 2 * (len(prices) + 2) * EPS * (size.sum() + float(prices @ np.abs(room)))
    usage = items.cost[:, rows, picks].sum(axis=1)
    return Tangent(prices, value - rounding, value, picks, usage)


def climb(items: Items) -> Dual:
    """The maximum of f, to the resolution of the linear program."""
    R = len(items.resources)
    start = tangent(items, np.zeros(R))
    room = items.room + items.slack
    if not R or (start.usage <= room).all() or not _spread(items).any():
        return Dual((start,))
    span = items.span()
    alike = np.zeros(R)
    np.divide(max(float(_spread(items).sum()), TINY), span, out=alike, where=span > 0)
    # a limit that holds at no price yet may come to bind, but would hide on the ray those that do
    along = _along(items, np.where(start.usage > room, alike, 0.0))
    tangents = [start, *(t for _, t in along)]
    factor, _ = max(along, key=lambda pair: pair[1].value)
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
        if prices is None or ceiling <= best.value:
            break
        here = tangent(items, prices)
        tangents.append(here)
        if here.value > best.value:
            best = here
        if not master.add(here):
            break
    tangents.sort(key=lambda t: -t.bound)
    return Dual(tuple(tangents[:KEPT]))


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
    """max θ s.t. θ <= each tangent, 0 <= μ <= box; the box grows when it holds the maximum back."""

    def __init__(self, base: float, span: float, unit: Float, room: Float) -> None:
        self.base, self.span, self.unit, self.room = base, span, unit, room
        self.box = 4.0
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
            if self.solver.Solve() != OPTIMAL and self.solver.Solve(self.afresh) != OPTIMAL:
                return None, math.nan
            mu = np.array([m.solution_value() for m in self.mu]).clip(0)
            if (mu < self.box * (1 - 1e-9)).all() or self.box >= MAX_BOX:
                return mu * self.unit, self.base + self.span * self.theta.solution_value()
            self.box *= 16
            for m in self.mu:
                m.SetUb(self.box)
