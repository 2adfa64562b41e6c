"""Units done elsewhere: the same figures as in this process, recorded as they become known."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bitfront
from bitfront.errors import InvalidInput, ModelError
from bitfront.executors import Executor, Local
from bitfront.measuring import Asked, measured
from bitfront.processes import Processes
from bitfront.pruning import Hopeless
from bitfront.sensitivity import PROFILERS
from bitfront.study import Study
from bitfront.tasks import Task, from_recipe
from bitfront.types import Trial
from bitfront.units import Look, Pairs, Step
from bitfront.workbench import Workbench
from tests import tiny
from tests.commands import Commands
from tests.small_tasks import convolutional

SCHEMES = "w2 w4 w8"


def module(folder: Path) -> Task:
    path = folder / "net.py"
    path.write_text(tiny.CODE)
    return from_recipe({"kind": "module", "function": f"{path}:task", "arguments": {}})


def figures(trials: list[Trial]) -> dict[str, Any]:
    return {t.key: (dict(t.metrics), dict(t.costs), t.solver) for t in trials}


def everything(study: Study) -> dict[str, Any]:
    """What a search of the study measured, but for numbers and times."""
    measurements = {
        (m.profiler, m.layer, m.scheme): (
            dict(m.values), {n: v.tolist() for n, v in m.vectors.items()}
        )
        for m in study.store.measurements(study.record, vectors=True)
    }  # fmt: skip
    vectors = {
        t.key: {n: v.tolist() for n, v in study.store.trial_vectors(study.record, t.id).items()}
        for t in study.trials()
    }
    return {"measured": measurements, "trials": figures(study.trials()), "vectors": vectors}


MAKERS: dict[str, Callable[[Path], Task]] = {"module": module, "language": tiny.language_task}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_search_in_processes_is_the_search_in_this_one(kind: str, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found, answers = [], []
    executors: dict[str, Executor] = {"here": Local(), "there": Processes(2, threads=1)}
    for name, executor in executors.items():
        task = MAKERS[kind](tmp_path)
        with bitfront.open_study("s", task, tmp_path / f"{name}.db", executor) as study:
            bitfront.profile(study, SCHEMES, "perturb")
            of = bitfront.search(study, SCHEMES, ["3bpw", "4bpw"], explore=10)
            answers.append([(a.trial.key, a.predicted, a.expected, a.evaluations) for a in of])
            found.append(everything(study))
    torch.set_num_threads(threads)
    assert answers[0] == answers[1]
    assert found[0] == found[1]


def test_a_step_is_what_a_pass_keeps_of_a_batch(tmp_path: Path) -> None:
    task = module(tmp_path)
    bench = Workbench(task)
    for name in ("fisher", "mse", "lrp", "hutchinson", "eigen"):
        profiler = PROFILERS[name]()
        pairs = tuple((la, s) for la in task.layers for s in bitfront.types.parse_schemes(SCHEMES))
        kept = _Kept()
        for _ in profiler.measure(bench.subject, pairs, kept):
            pass
        assert len(kept.arrays) == len(task.calibration)
        for index, arrays in kept.arrays.items():
            alone = Step(profiler, pairs, None, index).do(bench)
            assert alone.keys() == arrays.keys()
            for key, values in arrays.items():
                np.testing.assert_array_equal(alone[key], values)
    bench.close()


class _Kept:
    def __init__(self) -> None:
        self.arrays: dict[int, Any] = {}

    def load(self) -> dict[int, Any]:
        return {}

    def save(self, index: int, arrays: Any) -> None:
        self.arrays[index] = dict(arrays)


def test_pairs_are_what_the_profiler_measures(tmp_path: Path) -> None:
    task = module(tmp_path)
    bench, profiler = Workbench(task), PROFILERS["perturb"]()
    pairs = tuple((la, s) for la in task.layers for s in bitfront.types.parse_schemes(SCHEMES))
    together = {(m.layer, m.scheme): m.values for m in Pairs(profiler, pairs, None).do(bench)}
    alone = {}
    for pair in pairs:
        (m,) = Pairs(profiler, (pair,), None).do(bench)
        alone[m.layer, m.scheme] = m.values
    assert alone == together
    bench.close()


@dataclass(frozen=True)
class Failing:
    """A unit of a test: the process it was done in, unless it fails."""

    how: str

    def do(self, bench: Workbench) -> int:
        assert bench.task.layers
        if self.how == "raises":
            raise ModelError("it cannot be", "do something else")
        if self.how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()


def test_what_fails_in_a_process_says_so_and_what_was_done_is_kept(tmp_path: Path) -> None:
    bench, executor = Workbench(module(tmp_path)), Processes(2, threads=1)
    done: list[tuple[int, int]] = []
    with pytest.raises(ModelError, match="it cannot be: do something else"):
        done.extend(executor.map(bench, [Failing("fine"), Failing("raises")]))
    assert [index for index, _ in done] == [0]
    assert done[0][1] != os.getpid()
    with pytest.raises(RuntimeError, match="a process that measured was killed"):
        list(executor.map(bench, [Failing("dies")]))
    again = dict(executor.map(bench, [Failing("fine")] * 4))  # with new processes
    assert sorted(again) == [0, 1, 2, 3]
    executor.close()
    bench.close()


def test_processes_share_the_weights_of_the_first(tmp_path: Path) -> None:
    """Those of the study, whatever became of the files since; quantizing leaves no trace."""
    task = module(tmp_path)
    bench, executor = Workbench(task), Processes(2, threads=1)
    (tmp_path / "net.py").write_text(tiny.CODE.replace("manual_seed(0)", "manual_seed(5)"))
    units = [Look({"conv": s}, ("calibration/", "")) for s in ("w2", "w4", "w8", "w2", "w4")]
    there = dict(executor.map(bench, units))
    executor.close()
    for index, unit in enumerate(units):
        assert unit.do(bench).metrics == there[index].metrics
    bench.close()


def test_a_live_task_cannot_be_made_anew(tmp_path: Path) -> None:
    with (
        bitfront.open_study("s", convolutional(), tmp_path / "b.db", Processes(2)) as study,
        pytest.raises(ModelError, match="made from a live function"),
    ):
        bitfront.profile(study, SCHEMES)


def test_the_command_line_measures_in_processes(bitfront: Commands, tmp_path: Path) -> None:
    module(tmp_path)
    words = [
        "search", "s", "--function", f"{tmp_path / 'net.py'}:task", "--schemes", SCHEMES,
        "--budget", "3bpw", "--explore", "4", "--json",
    ]  # fmt: skip
    there = bitfront.ok(*words, "--processes", "2").document["answers"][0]["trial"]
    bitfront.db = str(tmp_path / "other.db")
    here = bitfront.ok(*words).document["answers"][0]["trial"]
    for name, figure in here["metrics"].items():
        assert there["metrics"][name]["value"] == pytest.approx(figure["value"], rel=1e-5)
    assert there["schemes"] == here["schemes"]
    assert "--processes 2 with a server: give it to the server's bitfront worker" in (
        bitfront.refused("--server", "http://127.0.0.1:9", *words, "--processes", "2")
    )


def test_fewer_than_one_process(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="workers"):
        Processes(0)


def test_allocations_are_recorded_as_they_become_known(tmp_path: Path) -> None:
    """What is measured before one fails is in the database."""
    with bitfront.open_study("s", module(tmp_path), tmp_path / "b.db") as study:
        costs = bitfront.cost(study, SCHEMES)
        good = [{"conv": "w2", "head": s} for s in ("w2", "w4")]
        asked = [Asked(s, "given", costs.total(s)) for s in good]
        asked.append(Asked({"conv": "w4g64"}, "given", {}))
        with pytest.raises(bitfront.errors.SchemeError):
            measured(study, asked)
        assert {t.key for t in study.trials()} == {
            study.store.find_trial(study.record, s).key  # type: ignore[union-attr]
            for s in good
        }
        hopeless = Hopeless("kl", np.zeros(12, np.float32), least=2)
        looked = measured(
            study, [Asked({"conv": "w2", "head": "w8"}, "x", {}, False, (), hopeless)]
        )
        assert "partial/kl" in looked[0].metrics
