"""Verifying an allocation: in rounds that do not depend on what the database happens to know."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import bitfront
from bitfront.problems import build_problem
from bitfront.search import allocate
from bitfront.study import Study
from bitfront.types import Budget, Problem, Sensitivities
from bitfront.verification import Pair, replaced, verified
from tests.small_tasks import convolutional

SCHEMES = "w2 w3 w4 w8"
BUDGETS = (Budget.parse("4bpw"),)


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    with bitfront.open_study("s", convolutional(), tmp_path / "b.db") as opened:
        yield opened


def setting(study: Study) -> tuple[Sensitivities, object]:
    table = next(iter(bitfront.profile(study, SCHEMES).values()))
    costs = bitfront.cost(study, SCHEMES)

    def problem(table: Sensitivities) -> Problem:
        return build_problem(table, costs, BUDGETS)

    return table, problem


def literal(
    table: Sensitivities, problem: object, measured: Sensitivities
) -> tuple[tuple[str, ...], list[Pair]]:
    """The rounds, with every pair measured beforehand."""
    values = table.values.copy()
    fresh: list[Pair] = []
    while True:
        now = Sensitivities("kl", table.layers, table.schemes, values, table.stderr, 1)
        found = allocate(problem(now))  # type: ignore[operator]
        new = [pair for pair in found.schemes.items() if pair not in fresh]
        if not new:
            return found.choice, fresh
        for layer, scheme in new:
            at = table.layers.index(layer), table.schemes.index(scheme)
            values[at] = measured.values[at]
        fresh += new


def test_rounds_are_those_of_a_fully_measured_table(study: Study) -> None:
    table, problem = setting(study)
    found = verified(study, table, problem, "ilp", (), None, lambda *_: None)  # type: ignore[arg-type]
    assert found.unverified == 0
    rows = {(m.layer, m.scheme) for m in study.store.measurements(study.record, "perturb")}
    assert rows == set(found.fresh)
    everything = bitfront.profile(study, SCHEMES, "perturb")["kl"]
    assert (found.allocation.choice, list(found.fresh)) == literal(table, problem, everything)


def test_what_is_recorded_already_changes_no_round(study: Study) -> None:
    table, problem = setting(study)
    bitfront.profile(study, SCHEMES, "perturb")  # as if an earlier run had been killed late
    again = verified(study, table, problem, "ilp", (), None, lambda *_: None)  # type: ignore[arg-type]
    everything = bitfront.profile(study, SCHEMES, "perturb")["kl"]
    assert (again.allocation.choice, list(again.fresh)) == literal(table, problem, everything)


def test_an_allowance_is_kept(study: Study) -> None:
    table, problem = setting(study)
    found = verified(study, table, problem, "ilp", (), 2, lambda *_: None)  # type: ignore[arg-type]
    assert len(found.fresh) == 2
    assert len(study.store.measurements(study.record, "perturb")) == 2
    chosen = set(found.allocation.schemes.items())
    assert found.unverified == len(chosen - set(found.fresh))


def test_a_limit_on_measurements_is_that_of_the_whole_call(tmp_path: Path) -> None:
    with bitfront.open_study("s", convolutional(), tmp_path / "b.db") as study:
        answers = bitfront.search(study, SCHEMES, ["3bpw", "4bpw", "6bpw"], max_measurements=7)
        assert sum(len(a.verified) for a in answers) <= 7
        assert len(study.store.measurements(study.record, "perturb")) <= 7
        unverified = bitfront.search(study, SCHEMES, ["5bpw"], verify=False)
        assert unverified[0].verified == ()
        assert len(study.store.measurements(study.record, "perturb")) <= 7


def test_replacing_leaves_other_metrics_alone(study: Study) -> None:
    table, _ = setting(study)
    bitfront.profile(study, "w2", "perturb")
    known = {(m.layer, m.scheme): m for m in study.store.measurements(study.record, "perturb")}
    new = replaced(table, known)
    column = table.schemes.index("w2")
    assert not np.array_equal(new.values[:, column], table.values[:, column])
    others = [j for j in range(len(table.schemes)) if j != column]
    assert np.array_equal(new.values[:, others], table.values[:, others])
