"""Refining an allocation by moves that are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitfront
from bitfront import refinement
from bitfront.errors import InvalidInput
from bitfront.judging import View, gain
from bitfront.measuring import measure
from bitfront.pipeline import selected
from bitfront.pool import Pool
from bitfront.problems import build_problem
from bitfront.recalibration import Predictor
from bitfront.refinement import Refined, refined
from bitfront.sensitivity.perturb import Perturb
from bitfront.study import Progress, Study, silent
from bitfront.types import Allocation, Budget, Problem, Sensitivities, Trial
from bitfront.verification import replaced
from tests.small_tasks import TASKS, attentive, convolutional

SCHEMES = "w2 w3 w4 w8 keep"
BUDGETS = (Budget.parse("4bpw"),)


@pytest.fixture(params=list(TASKS))
def study(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Study]:
    with bitfront.open_study("s", TASKS[request.param](), tmp_path / "b.db") as opened:
        yield opened


def refine(
    study: Study,
    allowance: int,
    metric: str = "kl",
    expected: Callable[[Mapping[str, str]], float] | None = None,
) -> tuple[Trial, Trial, Refined, list[str]]:
    """The start (all layers at 3 bits), the best, what it took, keys of what was measured."""
    costs = bitfront.cost(study, SCHEMES)
    seen: list[str] = []

    def problem(table: Sensitivities) -> Problem:
        return build_problem(table, costs, BUDGETS)

    def look(schemes: Mapping[str, str]) -> Trial:
        trial = measure(study, schemes, "refine", costs.total(schemes), evaluation=False)
        seen.append(trial.key)
        return trial

    def looks(every: Sequence[Mapping[str, str]], progress: Progress) -> list[Trial]:
        progress("measuring", len(every), len(every))
        return [look(schemes) for schemes in every]

    table = next(iter(bitfront.profile(study, SCHEMES).values()))
    start = look(dict.fromkeys(costs.layers, "w3"))
    template, pool = problem(table), Pool(study, metric)
    pool.add([start])
    expected = expected or Predictor(pool, template).expected
    found = refined(study, pool, problem, template, looks, expected, allowance, silent)
    return start, pool.best(template).looked.trial, found, seen[1:]


def test_moves_that_help_are_found_within_the_budget(study: Study) -> None:
    start, best, found, seen = refine(study, 20)
    before, after = (t.metrics["calibration/kl"].value for t in (start, best))
    assert after < before
    vectors = [study.store.trial_vectors(study.record, t.id)["kl"] for t in (start, best)]
    assert np.mean(vectors, axis=1) == pytest.approx([before, after], rel=1e-5)
    assert gain({"kl": vectors[1]}, {"kl": vectors[0]}, View("kl")).value > 0
    costs = bitfront.cost(study, SCHEMES)
    (limit,) = (b.limit(costs.full, costs.weights) for b in BUDGETS)
    for trial in study.trials():
        assert trial.costs["bits"] <= limit
    assert found.measured == len(seen) == len(set(seen)) <= 20


def test_those_of_which_least_is_expected_are_measured(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each round's proposals, whatever who proposes says of them."""
    rounds: list[tuple[int, list[float]]] = []
    propose = refinement.proposals

    def least_of_the_last(schemes: Mapping[str, str]) -> float:
        return float(
            sum(i * int(s.replace("keep", "w16")[1:]) for i, s in enumerate(schemes.values()))
        )

    def watched(*args: Any) -> list[Allocation]:
        found = propose(*args)
        rounds.append((len(study.trials()), [least_of_the_last(a.schemes) for a in found]))
        return found

    monkeypatch.setattr(refinement, "proposals", watched)
    refine(study, 20, expected=least_of_the_last)
    told = [least_of_the_last(trial.schemes) for trial in study.trials()]
    assert len(rounds) > 1
    ends = [at for at, _ in rounds[1:]] + [len(told)]
    assert sum(end - begin for (begin, _), end in zip(rounds, ends, strict=True)) == 20
    for (begin, offered), end in zip(rounds, ends, strict=True):
        assert told[begin:end] == sorted(offered)[: end - begin]


@pytest.mark.parametrize("allowance", [0, 1, 5, 9])
def test_an_allowance_is_kept(study: Study, allowance: int) -> None:
    start, best, found, seen = refine(study, allowance)
    assert found.measured == len(seen) <= allowance
    if not allowance:
        assert (best.id, found.evaluations) == (start.id, 0)


def test_the_same_moves_are_made_again_from_what_is_recorded(study: Study) -> None:
    _, first, _, seen = refine(study, 20)
    count = len(study.store.measurements(study.record, "around"))
    _, again, _, seen_again = refine(study, 20)
    assert (again.id, seen_again) == (first.id, seen)
    assert len(study.store.measurements(study.record, "around")) == count


def test_any_metric_of_the_task_may_decide(study: Study) -> None:
    start, best, _, _ = refine(study, 12, metric="agreement")
    assert (
        best.metrics["calibration/agreement"].value >= start.metrics["calibration/agreement"].value
    )


def test_a_search_refines_its_best_candidate(tmp_path: Path) -> None:
    with bitfront.open_study("s", convolutional(), tmp_path / "b.db") as study:
        (plain,) = bitfront.search(study, SCHEMES, ["3bpw"], explore=0)
        (answer,) = bitfront.search(study, SCHEMES, ["3bpw"])
        assert answer.table in ("refined", "tempered")
        calibration = [a.trial.metrics["calibration/kl"].value for a in (plain, answer)]
        assert calibration[1] < calibration[0]
        assert {"kl", "calibration/kl"} <= set(answer.trial.metrics)
        assert answer.predicted >= answer.bound
        looked_at = [t for t in study.trials() if "kl" not in t.metrics]
        assert looked_at
        assert all(t.metrics["calibration/kl"].value > 0 for t in looked_at)
        front = bitfront.front("s", db=tmp_path / "b.db")
        assert not {t.id for t in front.trials} & {t.id for t in looked_at}


def test_uniform_stays_uniform_and_nonsense_is_refused(tmp_path: Path) -> None:
    with bitfront.open_study("s", attentive(), tmp_path / "b.db") as study:
        (answer,) = bitfront.search(study, "w3 w4", ["4bpw"], solver="uniform")
        assert len(set(answer.trial.schemes.values())) == 1
        with pytest.raises(InvalidInput, match="explore -1"):
            bitfront.search(study, "w3 w4", ["4bpw"], explore=-1)


def test_every_trial_says_what_was_expected_of_it(study: Study) -> None:
    (answer,) = bitfront.search(study, SCHEMES, ["4bpw"], explore=10)
    first, *others = [t for t in study.trials() if t.solver != "full"]
    assert first.expected == first.predicted  # nothing was measured before
    for trial in others:
        assert np.isfinite(trial.expected)
        assert trial.expected >= 0
    assert answer.expected == answer.trial.expected
    # from the second on, the map of what was measured before; of two points, of the same table
    second = others[0]
    factor = first.metrics["calibration/kl"].value / first.predicted
    table = build_table(study)
    assert second.expected == pytest.approx(table.total_loss(second.schemes) * factor)


def build_table(study: Study) -> Problem:
    """The problem of the table that the search verified."""
    (found,) = study.store.selections(study.record)
    measured = study.measurements("perturb", Perturb().settings_key)
    pairs = {(layer, s): measured[layer, s] for layer, s in found.details["verified"]}
    layers = selected(study, bitfront.Choices()).layers
    table = next(iter(bitfront.profile(study, SCHEMES, layers=layers).values()))
    table = replaced(table, pairs)
    return build_problem(table, bitfront.cost(study, SCHEMES), BUDGETS)
