"""What was measured, for whichever budget: the best of it, starts from powers, whole sweeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitfront
from bitfront.heldout import HELD_BACK
from bitfront.judging import View
from bitfront.measuring import measure
from bitfront.pool import Looked, Pool, ratio
from bitfront.problems import build_problem
from bitfront.study import Study
from bitfront.tasks import ModuleTask
from bitfront.tempering import SHARE, tempered
from bitfront.types import Allocation, Budget, Problem, Trial
from tests.small_tasks import attentive, convolutional

SCHEMES = "w2 w3 w4 w8"


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    with bitfront.open_study("s", convolutional(), tmp_path / "b.db") as opened:
        yield opened


def problem_of(study: Study, budget: str) -> Problem:
    table = next(iter(bitfront.profile(study, SCHEMES).values()))
    return build_problem(table, bitfront.cost(study, SCHEMES), (Budget.parse(budget),))


def uniform(study: Study, scheme: str) -> Trial:
    schemes = {layer.name: scheme for layer in study.task.layers}
    costs = bitfront.cost(study, SCHEMES).total(schemes)
    return measure(study, schemes, "uniform", costs, evaluation=False)


def looked(id: int, kl: list[float], held: list[float] | None = None) -> Looked:
    trial = Trial({"a": f"w{id}"}, "x", 0.0, 0.0, {}, {}, 0.0, id=id)
    sums = {"kl": np.array(kl)}
    return Looked(trial, sums if held is None else {**sums, HELD_BACK + "kl": np.array(held)})


def test_only_what_was_measured_in_full_and_fits_is_in_view(study: Study) -> None:
    pool = Pool(study, "kl")
    trials = {s: uniform(study, s) for s in ("w2", "w3", "w8")}
    pool.add(trials.values())
    pool.add(trials.values())
    assert pool.ids() == [trial.id for trial in trials.values()]
    within = [at.trial.id for at in pool.within(problem_of(study, "3bpw"))]
    assert within == [trials["w2"].id, trials["w3"].id]
    assert [at.trial.id for at in pool.possible(problem_of(study, "3bpw"))] == pool.ids()
    assert pool.best(problem_of(study, "3bpw")).looked.trial.id == trials["w3"].id
    assert pool.best(problem_of(study, "8bpw")).looked.trial.id == trials["w8"].id
    part = Trial({"a": "w2"}, "x", 0.0, 0.0, {}, {}, 0.0)
    other = study.store.add_trial(study.record, part, vectors={"nll": np.ones(3, np.float32)})
    pool.add([other])
    assert other.id not in pool.ids()


def test_held_back_data_have_a_say_between_near_equals_only(study: Study) -> None:
    pool = Pool(study, "kl")
    noisy = [looked(1, [1, 5, 1, 1], [9, 9]), looked(2, [5, 1, 1, 1.1], [1, 1])]
    chosen = pool.judged(noisy)
    assert (chosen.looked.trial.id, chosen.noise) == (2, True)
    clear = [looked(1, [1, 1.1, 1, 1.1], [9, 9]), looked(2, [5, 5.1, 5, 5.1], [1, 1])]
    chosen = pool.judged(clear)
    assert (chosen.looked.trial.id, chosen.noise) == (1, False)
    assert pool.judged([looked(1, [1, 5, 1, 1]), looked(2, [5, 1, 1, 1.1])]).looked.trial.id == 1


def test_losses_held_back_are_kept_by_sample(tmp_path: Path) -> None:
    halves = attentive()

    def make() -> dict[str, Any]:
        batches = {"calibration": halves.calibration, "evaluation": halves.evaluation}
        return {"model": halves.model, **{k: [b.args[0] for b in v] for k, v in batches.items()}}

    task = ModuleTask(make, hold_back=0.5)
    with bitfront.open_study("s", task, tmp_path / "b.db") as study:
        assert study.task.held_back
        trial = uniform(study, "w3")
        sums = study.store.trial_vectors(study.record, trial.id)
        value = trial.metrics[HELD_BACK + "kl"].value
        assert float(np.mean(sums[HELD_BACK + "kl"])) == pytest.approx(value, rel=1e-5)
        pool = Pool(study, "kl")
        pool.add([trial])
        both = np.concatenate([sums["kl"], sums[HELD_BACK + "kl"]])
        assert pool[trial.id].overall("kl") == pytest.approx(float(both.mean()), rel=1e-6)


@pytest.mark.parametrize(
    ("value", "base", "expected"), [(2.0, 4.0, 0.5), (0.0, 0.0, 1.0), (-1.0, 1.0, np.exp(-2))]
)
def test_a_ratio_is_positive_whatever_the_signs(value: float, base: float, expected: float) -> None:
    found = ratio(looked(1, [value, value]), looked(2, [base, base]), View("kl"))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("allowance", [0, SHARE, 8 * SHARE])
def test_powers_of_tables_are_starts(study: Study, allowance: int) -> None:
    problem = problem_of(study, "4bpw")
    tables = {"sum": problem}
    start = uniform(study, "w4")
    pool, seen = Pool(study, "kl"), []
    pool.add([start])

    def look(allocation: Allocation, table: str, power: float) -> Trial:
        assert table == "sum"
        seen.append((allocation.choice, power))
        costs = bitfront.cost(study, SCHEMES).total(allocation.schemes)
        return measure(study, allocation.schemes, "ilp", costs, evaluation=False)

    spent = tempered(pool, tables, {"sum": start}, "ilp", look, allowance)
    assert spent == len(seen) == len({choice for choice, _ in seen}) <= allowance // SHARE
    assert all(power != 1 for _, power in seen)
    assert len(pool.within(problem)) == 1 + spent
    if allowance > SHARE:
        assert spent


def test_an_allocation_found_for_one_budget_answers_another(tmp_path: Path) -> None:
    """A wide budget searched with no exploration gets the better one that a tight one found."""
    with bitfront.open_study("s", convolutional(), tmp_path / "b.db") as study:
        bad = ["4.5bpw"]
        (plain,) = bitfront.search(study, SCHEMES, bad, solver="random", explore=0, verify=False)
        (good,) = bitfront.search(study, SCHEMES, ["4bpw"], explore=12)
        kl = [a.trial.metrics["calibration/kl"].value for a in (plain, good)]
        assert kl[1] < kl[0]
        answers = bitfront.search(study, SCHEMES, [*bad, "4bpw"], explore=1)
        found = {str(a.budgets[0]): a.trial.metrics["calibration/kl"].value for a in answers}
        assert found["4.5bpw"] <= kl[1]
        assert "kl" in answers[0].trial.metrics
        again = bitfront.search(study, SCHEMES, [*bad, "4bpw"], explore=1)
        assert [a.trial.id for a in again] == [a.trial.id for a in answers]
