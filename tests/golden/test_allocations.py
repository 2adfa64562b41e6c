"""Allocation problems whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfront.search import allocate, core, parse_problem
from bitfront.search.items import merge
from tests.reference import allocation as reference

HERE = Path(__file__).parent


def load(name: str) -> Any:
    return json.loads((HERE / name).read_text())


@pytest.mark.parametrize("instance", range(9))
def test_hawq_v3_resnet18(assets: Path, instance: int) -> None:
    """Yao et al. 2021 (arXiv:2011.10680), table of ResNet18 under size, BOPs and latency."""
    data = json.loads((assets / "golden" / "hawq_v3_resnet18.json").read_text())
    case = data["instances"][instance]
    problem = parse_problem(data, {case["resource"]: case["limit"]})
    found = allocate(problem)
    assert [int(name.removeprefix("int")) for name in found.choice] == case["published_bits"]
    assert found.gap == 0
    assert found.optimal


def test_a_gap_of_1e4_is_not_the_optimum() -> None:
    """25 schemes under two budgets, where a solver with relative gap 1e-4 answers differently."""
    data = load("gap_25x2.json")
    loss = np.rint(np.array(data["loss"]) * 1e9).astype(np.int64)
    costs = [np.array(data["costs"][name]) for name in ("size", "bops")]
    limits = [data["limits"][name] for name in ("size", "bops")]
    optimum = reference.dynamic(loss, costs, limits)
    assert optimum == data["optimum_nano"] < data["answer_at_gap_1e4_nano"]

    found = allocate(parse_problem(data, data["limits"]))
    choice = [data["schemes"].index(name) for name in found.choice]
    assert int(loss[np.arange(len(loss)), choice].sum()) == optimum
    assert found.gap == 0
    assert found.optimal
    assert list(found.choice) != data["answer_at_gap_1e4"]


def test_cp_sat_presolve() -> None:
    """A core that ortools 9.15 with its default presolve solves to a wrong "optimum"."""
    data = load("cp_sat_presolve.json")
    loss, costs = np.array(data["loss"], dtype=float), np.array(data["costs"], dtype=float)
    known = np.array(data["known"])
    rows = np.arange(len(known))
    limits = data["limits"]
    assert all(
        table[rows, known].sum() <= limit for table, limit in zip(costs, limits, strict=True)
    )
    best = loss[rows, known].sum()
    assert best < data["wrong"]

    answer = core.decide(
        np.ones(loss.shape, dtype=bool),
        core.Row(loss, 0.5),
        [core.Row(table, 0.5, limit) for table, limit in zip(costs, limits, strict=True)],
        known,
        seconds=30.0,
    )
    assert answer.proven
    assert answer.picks is not None
    assert loss[rows, answer.picks].sum() <= best


def test_rounding_does_not_bar_a_limit_that_is_met_exactly() -> None:
    """52 × 0.1 is 5.2, though the double nearest 0.1 is above 0.1."""
    layers = 52
    data = {
        "schemes": ["a", "b"],
        "loss": [[1.0, 0.0]] * layers,
        "costs": {"size": [[0.05, 0.1]] * layers},
    }
    exact = allocate(parse_problem(data, {"size": 5.2}))
    assert set(exact.choice) == {"b"}
    assert exact.loss == 0
    less = allocate(parse_problem(data, {"size": 5.2 - 1e-9}))
    assert less.choice.count("a") == 1
    assert less.optimal


def test_wide_range_of_losses() -> None:
    """Losses from 1e-9 to 1e2: the small ones decide, which coarse integers cannot tell apart."""
    loss = [[1e2, 0.0]] + [[1e-9 * (i + 1), 0.0] for i in range(6)]
    data = {"schemes": ["low", "high"], "loss": loss, "costs": {"size": [[1.0, 2.0]] * 7}}
    found = allocate(parse_problem(data, {"size": 10.0}))
    assert found.choice == ("high", "low", "low", "low", "low", "high", "high")
    assert found.loss == pytest.approx(1e-8, rel=1e-15)
    assert found.optimal


def test_identical_layers_are_no_trouble() -> None:
    """Every allocation with the same counts has the same loss: symmetric, so hard to enumerate."""
    row = [0.1 + 0.2, 0.1, 0.03, 0.0]
    data = {
        "schemes": list("abcd"),
        "loss": [row] * 60,
        "costs": {"size": [[2.0, 3.0, 4.1, 8.0]] * 60},
    }
    found = allocate(parse_problem(data, {"size": 250.0}))
    counts = [
        (i, j, k, 60 - i - j - k)
        for i in range(61)
        for j in range(61 - i)
        for k in range(61 - i - j)
    ]
    fitting = [n for n in counts if 20 * n[0] + 30 * n[1] + 41 * n[2] + 80 * n[3] <= 2500]
    best = min(30 * n[0] + 10 * n[1] + 3 * n[2] for n in fitting) / 100
    assert found.loss == pytest.approx(best, rel=1e-14)
    assert found.optimal
    assert found.seconds < 20


def test_a_large_problem_is_proven_in_seconds() -> None:
    rng = np.random.default_rng(0)
    L, bits = 1000, np.arange(2.0, 10.0)
    size = 10 ** rng.uniform(3, 6, L)
    loss = 10 ** rng.uniform(-6, 0, (L, 1)) * 4.0 ** (2 - bits) * rng.lognormal(0, 0.3, (L, 8))
    time = size[:, None] ** 0.8 * (bits + 2 * rng.random((L, 8))) * 1e-7
    costs = {"bytes": np.round(size[:, None] * bits / 8).tolist(), "seconds": time.tolist()}
    data = {"schemes": [f"w{b:.0f}" for b in bits], "loss": loss.tolist(), "costs": costs}
    limits = {
        name: float(0.7 * np.min(t, axis=1).sum() + 0.3 * np.max(t, axis=1).sum())
        for name, t in costs.items()
    }
    problem = parse_problem(data, limits)
    found = allocate(problem)
    assert found.optimal
    items = merge(problem)
    picks = np.array([problem.schemes.index(name) for name in found.choice])
    assert items.fits(picks)
    assert found.seconds < 20
