"""A sweep's later passes: how many measurements they have, and when they end."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bitfront
from bitfront.answering import Answer, Point
from bitfront.measuring import measure
from bitfront.pool import Pool
from bitfront.problems import lossless
from bitfront.refinement import BATCH
from bitfront.study import Progress, Study, silent
from bitfront.sweep import AGAIN, first_share, passed
from bitfront.types import Budget, Problem, Trial
from tests.small_tasks import convolutional

SCHEMES = "w2 w3 w4 w8"
WIDE = (Budget.parse("8bpw"),)
EXPLORE = 16 * BATCH


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    with bitfront.open_study("s", convolutional(), tmp_path / "b.db") as opened:
        yield opened


def uniform(study: Study, scheme: str) -> Trial:
    schemes = {layer.name: scheme for layer in study.task.layers}
    costs = bitfront.cost(study, SCHEMES).total(schemes)
    return measure(study, schemes, "uniform", costs, evaluation=False)


def answer(trial: Trial) -> Answer:
    return Answer(WIDE, trial, 0.0, 0.0, "sum", (), 0, 2, "kl", False, (trial.id,))


class Scripted:
    """A point whose refinement finds these allocations, one in each pass, and then no more."""

    def __init__(self, finds: Sequence[Trial] = ()) -> None:
        self.finds, self.allowances, self.begins = list(finds), list[int](), list[int]()

    def further(self, answer: Answer, allowance: int, pool: Pool, progress: Progress) -> Answer:
        self.allowances.append(allowance)
        self.begins.append(answer.trial.id)
        if not self.finds:
            return answer
        trial = self.finds.pop(0)
        pool.add([trial])
        return replace(answer, trial=trial)


def swept(study: Study, points: Sequence[Scripted], explore: int) -> list[Answer]:
    costs = bitfront.cost(study, SCHEMES)

    def problem(budgets: Sequence[Budget]) -> Problem:
        return lossless(costs, budgets, groups=(), pins={})

    begin = [answer(uniform(study, "w2"))] * len(points)
    pool = Pool(study, "kl")
    return passed(pool, cast(list[Point], points), begin, problem, explore, silent)


@given(st.integers(0, 1000), st.integers(1, 50))
def test_the_first_pass_has_half_and_a_single_point_all(explore: int, points: int) -> None:
    first = first_share(explore, points)
    assert first == (explore if points == 1 else math.ceil(explore / 2))


def test_it_ends_when_nothing_moved(study: Study) -> None:
    points = [Scripted(), Scripted()]
    found = swept(study, points, EXPLORE)
    assert [point.allowances for point in points] == [[EXPLORE // AGAIN]] * 2
    assert {a.trial.id for a in found} == {uniform(study, "w2").id}


def test_it_goes_on_as_long_as_any_point_moves(study: Study) -> None:
    w3, w4 = uniform(study, "w3"), uniform(study, "w4")
    points = [Scripted(), Scripted([w3])]
    found = swept(study, points, EXPLORE)
    assert [len(point.allowances) for point in points] == [2, 2]
    assert points[0].begins == [uniform(study, "w2").id, w3.id]  # and both go on from what moved
    assert {a.trial.id for a in found} == {w3.id}
    assert {a.table for a in found} == {"uniform", "sum"}

    points = [Scripted([w3, w4]), Scripted()]
    swept(study, points, EXPLORE)
    assert [sum(point.allowances) for point in points] == [EXPLORE // 2] * 2  # all are spent


@pytest.mark.parametrize("explore", [0, 1, 2, 2 * BATCH + 3, 5 * BATCH])
def test_passes_spend_what_the_first_left(study: Study, explore: int) -> None:
    point = Scripted([uniform(study, s) for s in ("w3", "w4", "w8")])
    swept(study, [point, Scripted()], explore)
    assert sum(point.allowances) == explore - first_share(explore, 2)
    assert all(allowance > 0 for allowance in point.allowances)


def explored(study: Study, budget: str) -> int:
    """How many allocations were measured for a budget beyond candidates."""
    of = [t for t in study.trials() if t.settings["budgets"] == [budget]]
    return sum(t.settings["table"] in ("tempered", "refined") for t in of)


def numbers(answers: Sequence[Answer]) -> list[Any]:
    return [(a.trial.id, a.predicted, a.bound, a.evaluations, a.measured) for a in answers]


def test_a_sweep_keeps_to_its_measurements_and_is_found_again(tmp_path: Path) -> None:
    budgets, explore = ["3bpw", "4bpw", "5bpw"], 12
    with bitfront.open_study("s", convolutional(), tmp_path / "b.db") as study:
        answers = bitfront.search(study, SCHEMES, budgets, explore=explore)
        spent = [explored(study, budget) for budget in budgets]
        assert first_share(explore, 3) < max(spent) <= explore  # the later passes measured too
        for found in answers:
            assert {"kl", "calibration/kl"} <= set(found.trial.metrics)
            assert found.predicted >= found.bound - 1e-9 * abs(found.bound)
        count = len(study.trials())
        again = bitfront.search(study, SCHEMES, budgets, explore=explore)
        assert numbers(again) == numbers(answers)
        assert len(study.trials()) == count


def test_answers_of_which_some_were_not_recorded_are_found_the_same(tmp_path: Path) -> None:
    """As after a kill between two of them."""
    budgets, path = ["3bpw", "4bpw"], tmp_path / "b.db"
    with bitfront.open_study("s", convolutional(), path) as study:
        answers = bitfront.search(study, SCHEMES, budgets, explore=12)
        keys = [found.request_key for found in study.store.selections(study.record)]
        count = len(study.trials())
    assert len(keys) == 2 * len(budgets)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("DELETE FROM selection WHERE request_key = ?", [keys[-1]])
    with bitfront.open_study("s", convolutional(), path) as study:
        again = bitfront.search(study, SCHEMES, budgets, explore=12)
        assert numbers(again) == numbers(answers)
        assert len(study.trials()) == count
