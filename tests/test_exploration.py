"""Explorers of the registry as a search runs them (their own promises: ``contracts``)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitfront
from bitfront.errors import InvalidInput, UnknownName
from bitfront.heldout import CALIBRATION, PARTIAL
from bitfront.pipeline import plain_choices
from bitfront.pruning import BATCHES
from bitfront.search import EXPLORERS, allocate
from bitfront.search.randomized import randomized
from bitfront.sensitivity import PROFILERS
from bitfront.sensitivity.decoupled import Decoupled
from bitfront.storage import Store
from bitfront.study import Study
from bitfront.types import Allocation, Problem, Trial, content_key
from tests import tiny
from tests.commands import Commands
from tests.small_tasks import many_images

SCHEMES = "w2 w3 w4 w8 keep"
KL = CALIBRATION + "kl"


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    with bitfront.open_study("s", many_images(), tmp_path / "b.db") as opened:
        yield opened


def explored(study: Study, explorer: str) -> list[Trial]:
    return [t for t in study.trials() if t.solver == explorer]


@pytest.mark.parametrize("explorer", EXPLORERS)
def test_a_search_explores(explorer: str, study: Study, tmp_path: Path) -> None:
    with bitfront.open_study("s", many_images(), tmp_path / "plain.db") as other:
        plain = bitfront.search(other, SCHEMES, ["3bpw", "4bpw"], explore=0)
    answers = bitfront.search(study, SCHEMES, ["3bpw", "4bpw"], explorer=explorer, explore=10)
    assert answers[0].trial.metrics[KL].value <= plain[0].trial.metrics[KL].value
    made = explored(study, explorer)
    given_up = {t.id for t in made if KL not in t.metrics}
    assert given_up
    for answer, unexplored, bits in zip(answers, plain, (3, 4), strict=True):
        mine = [t for t in made if t.settings["budgets"] == [f"{bits}bpw"]]
        assert 1 <= len(mine) <= 10
        assert answer.evaluations >= unexplored.evaluations
        for trial in mine:
            assert trial.settings["table"] == "explored"
            assert trial.costs["bits"] <= bits * trial.settings["weights"]
            assert np.isfinite(trial.expected)
        assert {t.id for t in mine} - given_up <= set(answer.measured)
        assert not given_up & set(answer.measured)
        assert {"kl", KL} <= set(answer.trial.metrics)
        assert answer.table == answer.trial.settings["table"]
    # ten each, the answer's on the evaluation data too where it is one of them
    first = answers[0]
    assert first.evaluations == plain[0].evaluations + 10 + (first.table == "explored")
    again = bitfront.search(study, SCHEMES, ["3bpw", "4bpw"], explorer=explorer, explore=10)
    assert [a.trial.id for a in again] == [a.trial.id for a in answers]
    assert len(explored(study, explorer)) == len(made)


class Scripted:
    """Asks for what it was made with, and keeps what it is told."""

    def __init__(self, asks: Callable[[Problem], Sequence[Allocation]]) -> None:
        self.asks = asks
        self.left: list[Allocation] = []
        self.starts: list[tuple[Allocation, float]] = []
        self.told: list[tuple[Allocation, float]] = []

    def __call__(
        self,
        problems: Sequence[Problem],
        starts: Sequence[tuple[Allocation, float]] = (),
        *,
        seed: int = 0,
    ) -> Scripted:
        (problem,) = problems
        assert seed == 0
        self.left, self.starts, self.told = [*self.asks(problem)], [*starts], []
        return self

    def ask(self) -> Allocation | None:
        return self.left.pop(0) if self.left else None

    def tell(self, allocation: Allocation, loss: float) -> None:
        self.told.append((allocation, loss))


def at_random(problem: Problem) -> list[Allocation]:
    return [allocate(problem), *(randomized(problem, seed=i) for i in range(8))]


def all_w3(problem: Problem) -> list[Allocation]:
    allowed = problem.allowed & (np.array(problem.schemes) == "w3")
    return [allocate(replace(problem, allowed=allowed))]


def vectors(study: Study, trial: Trial) -> dict[str, Any]:
    return dict(study.store.trial_vectors(study.record, trial.id))


def test_what_an_explorer_is_told(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """All measured allocations to begin with; then losses, or what the pairs so far say."""
    script = Scripted(at_random)
    monkeypatch.setitem(EXPLORERS, "scripted", script)
    bitfront.search(study, SCHEMES, ["8bpw"], explore=4)
    (answer,) = bitfront.search(study, SCHEMES, ["4bpw"], explorer="scripted", verify=False)
    trials = {tuple(t.schemes.values()): t for t in study.trials()}
    assert all(loss == trials[a.choice].metrics[KL].value for a, loss in script.starts)
    starts = {trials[a.choice].id for a, _ in script.starts}
    assert starts == {t.id for t in study.trials() if t.solver not in ("scripted", "full")}

    assert len(script.told) == 9
    limit = 4 * answer.trial.settings["weights"]
    inside = [trials[a.choice] for a, _ in script.starts]
    inside = [t for t in inside if t.costs["bits"] <= limit]
    given_up = 0
    for allocation, loss in script.told:
        trial = trials[allocation.choice]
        incumbent = min(inside, key=lambda t: t.metrics[KL].value)
        if KL in trial.metrics:
            assert loss == pytest.approx(trial.metrics[KL].value, rel=1e-5)
            inside.append(trial)
            continue
        given_up += 1
        own, best = vectors(study, trial), vectors(study, incumbent)["kl"].astype(float)
        rows = [r for b in own[BATCHES].astype(int) for r in range(12 * b, 12 * b + 12)]
        part = own[f"{PARTIAL}sums/kl"] / own[f"{PARTIAL}counts/kl"]  # of each image seen
        assert loss == pytest.approx(best.mean() + np.mean(part - best[rows]), rel=1e-4)
        assert loss > incumbent.metrics[KL].value
    assert given_up


def test_one_that_is_given_up_may_be_measured_later(
    study: Study, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(trial: Trial) -> str:
        return Commands(tmp_path / "b.db", capfd).ok("show", "s", trial.id).out

    monkeypatch.setitem(EXPLORERS, "scripted", Scripted(all_w3))
    (rich,) = bitfront.search(study, SCHEMES, ["8bpw"], explorer="scripted")
    (trial,) = explored(study, "scripted")
    assert set(trial.metrics) == {name for name in trial.metrics if name.startswith(PARTIAL)}
    assert trial.id not in rich.measured
    part = trial.metrics[PARTIAL + "kl"]
    assert f"given up after {part.samples} calibration samples: kl {part.value:.3g}" in shown(trial)
    (poor,) = bitfront.search(study, SCHEMES, ["3bpw"], explorer="scripted")  # a candidate there
    assert trial.id in poor.measured
    assert {KL, "kl"} <= set(study.trial(trial.id).metrics)
    assert "given up" not in shown(trial)


@pytest.mark.parametrize("explorer", EXPLORERS)
def test_a_search_that_is_cut_off_goes_on(
    explorer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def searched(name: str) -> Any:
        with bitfront.open_study("s", many_images(), tmp_path / name) as study:
            answers = bitfront.search(
                study, SCHEMES, ["3bpw", "4bpw"], explorer=explorer, explore=6, verify=False
            )
            figures = [(t.key, t.predicted, dict(t.metrics)) for t in study.trials()]
            return [(a.trial.key, a.evaluations, len(a.measured)) for a in answers], figures

    straight = searched("straight.db")
    kept, room = Store.add_trial, itertools.count()

    def dying(*args: Any, **kwargs: Any) -> Trial:
        if next(room) % 6 == 5:
            raise KeyboardInterrupt
        return kept(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add_trial", dying)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                searched("cut.db")
    assert searched("cut.db") == straight


def test_images_may_decide(tmp_path: Path) -> None:
    with bitfront.open_study("s", tiny.diffusion_task(tmp_path), tmp_path / "b.db") as study:
        (answer,) = bitfront.search(
            study, "w2 w8", ["6bpw"], profiler=Decoupled(metrics="*=sqnr", target="psnr"),
            choices=bitfront.Choices(include=("up_blocks.1.*",)), shares=1,
            explorer="evolution", explore=3,
        )  # fmt: skip
        made = explored(study, "evolution")
        assert answer.judged == "psnr"
        assert len(made) == 3
        assert all("calibration/psnr" in t.metrics for t in made)


def test_the_default_is_as_it_was(study: Study) -> None:
    """Searches that were recorded before there was a choice are found again."""
    bitfront.search(study, SCHEMES, ["6bpw"], explore=0)
    bitfront.search(study, SCHEMES, ["6bpw"], explore=0, explorer="bayes")
    keys = [found.request_key for found in study.store.selections(study.record)]
    request: dict[str, Any] = {
        "schemes": SCHEMES.split(), "solver": "ilp",
        "profiler": PROFILERS["fisher"]().settings_key, "metric": None,
        "choices": plain_choices(bitfront.Choices()), "verify": True, "max_measurements": None,
        "explore": 0, "budgets": ["6bpw"],
    }  # fmt: skip
    assert keys == [content_key(request), content_key({**request, "explorer": "bayes"})]


def test_an_unknown_one_is_refused(study: Study) -> None:
    with pytest.raises(UnknownName, match="no explorer named 'best': choose from refine, bayes, "):
        bitfront.search(study, SCHEMES, ["4bpw"], explorer="best")
    with pytest.raises(InvalidInput, match="explore -1"):
        bitfront.search(study, SCHEMES, ["4bpw"], explorer="bayes", explore=-1)


def test_on_the_command_line(bitfront: Commands, tmp_path: Path) -> None:
    task = ["--task", "module", "--function", f"{tiny.code(tmp_path / 'bring.py')}:task"]
    words = ["search", "s", *task, "--schemes", "w2 w3 w4 w8"]
    for explorer in EXPLORERS:
        more = ["--budget", "4bpw", "--explorer", explorer, "--explore", 3, "--json"]
        (answer,) = bitfront.ok(*words, *more).document["answers"]
        assert answer["trial"]["costs"]["bits"] <= 4 * answer["trial"]["settings"]["weights"]
    with Store.open(bitfront.db) as store:
        made = store.trials(store.study("s"))
    assert {t.solver for t in made if t.settings.get("table") == "explored"} == set(EXPLORERS)
    refusal = bitfront.refused(*words, "--budget", "4bpw", "--explorer", "best")
    assert "no explorer named 'best': choose from refine, bayes, bayes-gp, evolution" in refusal
    refusal = bitfront.refused(*words, "--max-kl", 1, "--explorer", "bayes")
    assert "--explorer bayes with a bound to hold: leave out --explorer" in refusal
