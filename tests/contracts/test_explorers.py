"""What every registered explorer promises (``search.explorer``)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from bitfront.errors import Infeasible, InvalidInput, ProblemError
from bitfront.exploring import explore
from bitfront.search import EXPLORERS, Explorer, allocate
from bitfront.search.randomized import randomized
from bitfront.types import Allocation, Problem

Loss = Callable[[Allocation], float]
Start = tuple[Allocation, float]

BITS = np.array([2.0, 3.0, 4.0, 6.0, 8.0])


def made(
    seed: int = 0,
    L: int = 14,
    budgets: Sequence[float] = (2.6, 3.4, 4.2),
    seconds: Sequence[float] = (),
    groups: tuple[tuple[int, ...], ...] = (),
) -> tuple[list[Problem], Loss]:
    """A sweep, and a true loss that its table does not know: noise, and errors that add up.

    Each layer has an error e[g,c] falling with the bits; the loss is the squared length of all of
    them, along directions of their own that overlap. The table holds e² times lognormal noise.
    """
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 40, L)[:, None]
    error = rng.lognormal(-1, 1, (L, 1)) * 2.0**-BITS * rng.lognormal(0, 0.1, (L, len(BITS)))
    along = np.abs(rng.normal(size=(L, 3)))
    table = error**2 * (along**2).sum(axis=1)[:, None] * rng.lognormal(0, 0.7, error.shape)
    names = tuple(f"l{i}" for i in range(L)), tuple(f"w{b:g}" for b in BITS)
    costs = {"bits": size * BITS, "seconds": size**0.5 * (1 + BITS / 8)}
    least, most = costs["seconds"].min(axis=1).sum(), costs["seconds"].max(axis=1).sum()
    limits = [
        {"bits": float(b * size.sum())}
        | ({"seconds": float(least + s * (most - least))} if seconds else {})
        for b, s in itertools.product(budgets, seconds or [0.0])
    ]
    problems = [Problem(*names, table, costs, limit, groups=groups) for limit in limits]

    def loss(allocation: Allocation) -> float:
        picks = [names[1].index(scheme) for scheme in allocation.choice]
        v = error[np.arange(L), picks] @ along
        return float(v @ v)

    return problems, loss


def floored(
    made: tuple[list[Problem], Loss], bits: Sequence[float], **other: Any
) -> tuple[list[Problem], Loss]:
    """The same with at least so many bits a weight at each point."""
    problems, loss = made
    weights = problems[0].costs["bits"].sum() / BITS.sum()
    floors = [{"bits": float(b * weights)} for b in bits]
    return [
        dataclasses.replace(p, floors=f, **other) for p, f in zip(problems, floors, strict=True)
    ], loss


SWEEPS = {
    "one point": made(1, budgets=(3.0,)),
    "three points": made(2),
    "two resources": made(3, budgets=(3.0, 4.0), seconds=(0.5, 0.8)),
    "one limit on seconds": made(4, budgets=(3.0, 4.0), seconds=(0.5,)),
    "groups": made(5, groups=((0, 3), (1, 2, 5))),
    "a floor": floored(made(9), [2.3, 2.3, 2.3]),
    "windows": floored(made(10), [2.3, 3.1, 3.9]),
    "floors alone": floored(made(11, budgets=(1.0, 1.0)), [4.0, 6.0], limits={}),
    "no limits": (
        [dataclasses.replace(made(6, L=5)[0][0], limits={})], made(6, L=5)[1],
    ),
}  # fmt: skip


@pytest.fixture(params=EXPLORERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def solved(problems: Sequence[Problem], loss: Loss) -> list[Start]:
    return [(a, loss(a)) for a in map(allocate, problems)]


def meets(allocation: Allocation, problem: Problem) -> bool:
    """Every constraint, by the problem's own words."""
    choice = [problem.schemes.index(s) for s in allocation.choice]
    totals = problem.totals(choice)
    return (
        all(problem.allowed[i, c] for i, c in enumerate(choice))
        and all(len({choice[i] for i in group}) == 1 for group in problem.groups)
        and all(totals[k] <= limit * (1 + 1e-12) for k, limit in problem.limits.items())
        and all(totals[k] >= floor * (1 - 1e-12) for k, floor in problem.floors.items())
    )


def asked(explorer: Explorer, count: int, loss: Loss | None = None) -> list[Allocation]:
    """``count`` proposals, told at once, or left pending."""
    found = []
    for _ in range(count):
        allocation = explorer.ask()
        assert allocation is not None
        if loss is not None:
            explorer.tell(allocation, loss(allocation))
        found.append(allocation)
    return found


@pytest.mark.parametrize(
    ("sweep", "begun"), [*((s, True) for s in SWEEPS), ("three points", False)]
)
def test_asks_for_what_fits_and_is_new(name: str, sweep: str, begun: bool) -> None:
    problems, loss = SWEEPS[sweep]
    starts = solved(problems, loss) if begun else []
    found = asked(EXPLORERS[name](problems, starts), 12, loss)
    for allocation in found:
        assert any(meets(allocation, problem) for problem in problems)
        assert allocation.loss == pytest.approx(problems[0].total_loss(allocation.schemes))
    assert len({a.choice for a in found}) == len(found)
    assert not {a.choice for a in found} & {a.choice for a, _ in starts}


def test_looks_at_every_point(name: str) -> None:
    problems, loss = SWEEPS["three points"]
    found = asked(EXPLORERS[name](problems, solved(problems, loss)), 15, loss)
    inside = [sum(meets(a, problem) for a in found) for problem in problems]
    assert 3 <= inside[0] < inside[1] < inside[2] == len(found)


def test_a_floor_that_all_meet_changes_nothing(name: str) -> None:
    problems, loss = SWEEPS["three points"]
    starts = solved(problems, loss)
    idle, _ = floored((problems, loss), [1.0, 1.0, 1.0])
    found = [asked(EXPLORERS[name](sweep, starts), 20, loss) for sweep in (problems, idle)]
    assert [a.choice for a in found[0]] == [a.choice for a in found[1]]


@pytest.mark.parametrize("sweep", ["one point", "two resources"])
def test_pending_asks_differ(name: str, sweep: str) -> None:
    problems, loss = SWEEPS[sweep]
    explorer = EXPLORERS[name](problems, solved(problems, loss))
    asked(explorer, 9, loss)
    pending = asked(explorer, 5)
    assert len({a.choice for a in pending}) == 5
    for allocation in reversed(pending):  # told in another order than asked
        explorer.tell(allocation, loss(allocation))
    more = asked(explorer, 3, loss)
    assert not {a.choice for a in more} & {a.choice for a in pending}


@pytest.mark.parametrize("pending", [1, 3])
def test_goes_on_as_if_never_interrupted(name: str, pending: int) -> None:
    problems, loss = SWEEPS["three points"]
    starts = solved(problems, loss)
    measured: list[tuple[str, ...]] = []

    def counted(allocation: Allocation) -> float:
        measured.append(allocation.choice)
        return loss(allocation)

    whole = explore(EXPLORERS[name](problems, starts, seed=3), counted, 18, pending=pending)
    known = {a.choice: value for a, value in whole[:14]}  # what a run that was killed recorded
    measured.clear()

    def replayed(allocation: Allocation) -> float:
        if allocation.choice in known:
            return known[allocation.choice]
        return counted(allocation)

    again = explore(EXPLORERS[name](problems, starts, seed=3), replayed, 18, pending=pending)
    assert [a.choice for a, _ in again] == [a.choice for a, _ in whole]
    assert set(measured) == {a.choice for a, _ in whole[14:]}
    assert len(measured) == 4


def test_seeds_differ(name: str) -> None:
    problems, loss = SWEEPS["three points"]
    starts = solved(problems, loss)
    explorers = [EXPLORERS[name](problems, starts, seed=seed) for seed in (0, 1)]
    pairs = ([asked(explorer, 1, loss)[0].choice for explorer in explorers] for _ in range(16))
    assert any(one != other for one, other in pairs)


@pytest.mark.parametrize("groups", [(), ((0, 2),)], ids=["alone", "grouped"])
def test_ends_when_nothing_is_left(name: str, groups: tuple[tuple[int, ...], ...]) -> None:
    problems, loss = made(7, L=len(groups) + 2, budgets=(2.7, 3.5), groups=groups)
    choices = [
        Allocation(problems[0].layers, choice, 0, {}, 0, 0, False, 0, "")
        for choice in itertools.product(problems[0].schemes, repeat=len(groups) + 2)
    ]
    inside = {a.choice for a in choices if any(meets(a, problem) for problem in problems)}
    start = allocate(problems[0])
    found = explore(EXPLORERS[name](problems, [(start, loss(start))]), loss, 1000)
    assert {a.choice for a, _ in found} | {start.choice} == inside
    assert len(found) == len(inside) - 1


def test_nothing_is_left_while_all_is_pending(name: str) -> None:
    problems, _ = made(8, L=1, budgets=(3.0,))
    explorer = EXPLORERS[name](problems, [])
    assert {a.choice for a in asked(explorer, 2)} == {("w2",), ("w3",)}
    assert explorer.ask() is None


def test_is_told_of_what_it_did_not_ask_for(name: str) -> None:
    problems, loss = SWEEPS["three points"]
    explorer = EXPLORERS[name](problems, solved(problems, loss))
    first = asked(explorer, 3, loss)
    others = [randomized(problems[i % 3], seed=i) for i in range(20)]
    dear = dataclasses.replace(problems[0], limits={"bits": 1e9})
    for allocation in [*others, randomized(dear, seed=0)]:  # the last is within no point's limits
        explorer.tell(allocation, loss(allocation))
    explorer.tell(first[0], -1.0)  # the first stays
    found = asked(explorer, 9, loss)
    assert not {a.choice for a in found} & {a.choice for a in [*others, *first]}


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 0.0, -3.0])
def test_any_loss_will_do(name: str, value: float) -> None:
    problems, loss = SWEEPS["three points"]
    explorer = EXPLORERS[name](problems, solved(problems, loss))
    for i, allocation in enumerate(asked(explorer, 12)):
        explorer.tell(allocation, value if i % 2 else loss(allocation))
    assert all(any(meets(a, p) for p in problems) for a in asked(explorer, 2, loss))


def test_says_nothing(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    problems, loss = SWEEPS["one point"]
    asked(EXPLORERS[name](problems, solved(problems, loss)), 11, loss)
    assert capfd.readouterr() == ("", "")


def test_refuses_what_is_no_sweep(name: str) -> None:
    problems, _ = SWEEPS["three points"]
    with pytest.raises(ProblemError, match="no points"):
        EXPLORERS[name]([])
    other = dataclasses.replace(problems[1], loss=problems[1].loss * 2)
    with pytest.raises(ProblemError, match="differ in more than their limits"):
        EXPLORERS[name]([problems[0], other])
    with pytest.raises(InvalidInput, match="seed -1"):
        EXPLORERS[name](problems, seed=-1)
    with pytest.raises(ProblemError, match="floors on the same resources"):
        EXPLORERS[name]([problems[0], dataclasses.replace(problems[1], floors={"bits": 1.0})])
    impossible = dataclasses.replace(problems[1], limits={"bits": 1.0})
    with pytest.raises(Infeasible, match="the limit on bits is 1"):
        EXPLORERS[name]([problems[0], impossible])


def test_refuses_allocations_of_other_problems(name: str) -> None:
    problems, loss = SWEEPS["groups"]
    explorer = EXPLORERS[name](problems, solved(problems, loss))
    apart = dataclasses.replace(problems[0], groups=())
    with pytest.raises(ProblemError, match="which it may not take"):
        explorer.tell(randomized(apart, seed=1), 1.0)
    with pytest.raises(ProblemError, match="other layers"):
        explorer.tell(allocate(made(0, L=3)[0][0]), 1.0)


def gains(name: str, seed: int, count: int) -> tuple[float, float, float]:
    """Mean over the points of ln of the least loss over the start's: explorer, lots near, by lot.

    The rivals have as many measurements. By lot: ``randomized``. Lots near: each start with three
    random moves, undone where they do not fit (rejected draws cost nothing).
    """
    problems, loss = made(100 + seed, L=20)
    starts = solved(problems, loss)
    found = explore(EXPLORERS[name](problems, starts, seed=seed), loss, count)
    rng = np.random.default_rng(seed)
    near: list[Start] = []
    while len(near) < count:
        start = starts[len(near) % len(starts)][0]
        picks = np.array([problems[0].schemes.index(s) for s in start.choice])
        at = rng.choice(len(picks), 3, replace=False)
        picks[at] = np.clip(picks[at] + rng.choice([-1, 1], 3), 0, len(BITS) - 1)
        moved = dataclasses.replace(start, choice=tuple(problems[0].schemes[i] for i in picks))
        if meets(moved, problems[len(near) % len(starts)]) and moved.choice != start.choice:
            near.append((moved, loss(moved)))
    lots = [(a, loss(a)) for a in (randomized(problems[i % 3], seed=i) for i in range(count))]

    def gain(measured: Sequence[Start]) -> float:
        best = [
            min([value for a, value in measured if meets(a, problem)] + [start[1]])
            for problem, start in zip(problems, starts, strict=True)
        ]
        return float(np.mean([np.log(b / s[1]) for b, s in zip(best, starts, strict=True)]))

    return gain(found), gain(near), gain(lots)


def test_beats_chance_and_its_starts(name: str) -> None:
    """By more than two standard errors of the mean over five problems, 20 measurements each."""
    of = np.array([gains(name, seed, 20) for seed in range(5)])
    assert (of[:, 0] < 0).all()  # less than every start's loss, on average over the points
    for rival in (1, 2):
        ahead = of[:, rival] - of[:, 0]
        assert ahead.mean() > 2 * ahead.std(ddof=1) / np.sqrt(len(ahead)), of
