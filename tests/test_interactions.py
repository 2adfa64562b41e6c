"""Interactions on their way from a profiler to an answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bitfront
from bitfront.errors import InvalidInput
from bitfront.pipeline import interactions_of
from bitfront.problems import build_problem
from bitfront.search import allocate
from bitfront.sensitivity import PROFILERS
from bitfront.sensitivity.fisher import Fisher
from bitfront.types import Budget
from tests.small_tasks import convolutional

SCHEMES = "w2 w3 w4 w8 keep"


def test_they_come_in_the_problems_order_and_keep_has_none(tmp_path: Path) -> None:
    with bitfront.open_study("s", convolutional(), tmp_path / "b.db") as study:
        table = bitfront.profile(study, SCHEMES)["element@2"]
        found = interactions_of(study, SCHEMES, Fisher(), study.task.layers, table)
        costs = bitfront.cost(study, "keep w8 w2 w3 w4")
    assert found is not None
    assert found.notes["temperature"] == 2
    assert found.schemes == ("w2", "w3", "w4", "w8")
    problem = build_problem(table, costs, [Budget.parse("4bpw")], interactions=found)
    aligned = problem.interactions
    assert aligned is not None
    assert aligned.shrink == found.shrink
    for j, scheme in enumerate(problem.schemes):
        if scheme == "keep":
            assert not aligned.vectors[:, j].any()
        else:
            expected = found.vectors[:, found.schemes.index(scheme)]
            np.testing.assert_array_equal(aligned.vectors[:, j], expected)
    kept = dict.fromkeys(problem.layers, "keep")
    assert problem.objective(kept) == 0


def test_a_search_by_quadratic_predicts_by_its_objective(tmp_path: Path) -> None:
    db = tmp_path / "b.db"
    with bitfront.open_study("s", convolutional(), db) as study:
        (answer,) = bitfront.search(
            study, SCHEMES, ["4bpw"], solver="quadratic", verify=False, explore=0
        )
        tables = bitfront.profile(study, SCHEMES)
        costs = bitfront.cost(study, SCHEMES)
        expected = {}
        for name, table in tables.items():
            found = interactions_of(study, SCHEMES, Fisher(), study.task.layers, table)
            problem = build_problem(
                table, costs, [Budget.parse("4bpw")], groups=study.task.groups, interactions=found
            )
            expected[name] = allocate(problem, "quadratic")
        trials = {t.settings["table"]: t for t in study.trials() if t.solver == "quadratic"}
    assert trials
    for name, trial in trials.items():
        assert trial.predicted == expected[name].loss
        assert trial.bound == expected[name].bound
        assert trial.schemes == expected[name].schemes
    with bitfront.open_study("s", convolutional(), db) as study:
        (again,) = bitfront.search(
            study, SCHEMES, ["4bpw"], solver="quadratic", verify=False, explore=0
        )
    assert again.trial.id == answer.trial.id


def test_a_verified_and_refined_search_by_quadratic_ends(tmp_path: Path) -> None:
    with bitfront.open_study("s", convolutional(), tmp_path / "b.db") as study:
        (answer,) = bitfront.search(study, SCHEMES, ["4bpw"], solver="quadratic", explore=4)
    assert answer.trial.costs["bits"] <= 4 * 912
    assert np.isfinite(answer.predicted)


def test_a_profiler_without_interactions_is_refused_before_it_profiles(tmp_path: Path) -> None:
    with bitfront.open_study("s", convolutional(), tmp_path / "b.db") as study:
        with pytest.raises(InvalidInput, match=r"quadratic with perturb.*: profile with fisher"):
            bitfront.search(study, SCHEMES, ["4bpw"], solver="quadratic", profiler="perturb")
        with pytest.raises(InvalidInput, match="quadratic on draws of tables"):
            bitfront.profile_until(study, SCHEMES, ["4bpw"], solver="quadratic")
        for profiler in ("perturb", "fisher"):
            key = PROFILERS[profiler]().settings_key
            assert not study.measurements(profiler, key)
