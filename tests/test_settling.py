"""Profiling until allocations settle: when it stops, what it says, and that it repeats nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bitfront
from bitfront.errors import Infeasible, InvalidInput
from bitfront.instability import instability
from bitfront.pipeline import Choices, selected
from bitfront.problems import points
from bitfront.sensitivity import PROFILERS
from bitfront.settling import Settled
from bitfront.storage import Store
from bitfront.tasks import ModuleTask
from bitfront.tasks.selection import Selection
from bitfront.types import Budget, Costs, Sensitivities
from tests.commands import Commands
from tests.profiling import MEASURING

SCHEMES, BUDGET = "w2 w8", "5bpw"  # two layers of one size: one takes w2, the other w8
BATCHES, SIZE = 24, 4


class Sum(nn.Module):
    """Two layers of the same weights side by side, each with inputs of its own."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.a, self.b, self.scale = nn.Linear(8, 4), nn.Linear(8, 4), scale
        self.b.load_state_dict(self.a.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.a(x[:, :8]) + self.b(x[:, 8:])


def task(scale: float, batches: int = BATCHES, within: int = SIZE) -> ModuleTask:
    """Layer ``b`` gets the inputs of ``a`` in reverse order within blocks of samples: with scale 1,
    outputs too are the same backwards, and over a block no layer matters more than the other."""
    x = torch.randn(batches * SIZE, 8, generator=torch.Generator().manual_seed(0))
    both = torch.cat([x, torch.cat([block.flip(0) for block in x.split(within)])], 1)

    def make() -> dict[str, Any]:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = Sum(scale).eval()
        return {"model": model, "calibration": list(both.split(SIZE)), "evaluation": [both[:SIZE]]}

    return ModuleTask(make, hold_back=0)


def clear() -> ModuleTask:
    """Layer ``a`` matters far more than ``b``."""
    return task(5.0)


def tied() -> ModuleTask:
    """Both layers matter the same in every batch; which one more is luck of the samples in it."""
    return task(1.0)


def tied_at_last() -> ModuleTask:
    """Both layers matter the same in all of the data; in each batch one of them more, by luck."""
    return task(1.0, within=BATCHES * SIZE)


# by profiler: eigen draws nothing within a batch, hutchinson little
TIED = dict.fromkeys(PROFILERS, tied) | dict.fromkeys(("eigen", "hutchinson"), tied_at_last)


def until(
    db: Path, make: Callable[[], ModuleTask], name: str = "fisher", **options: Any
) -> Settled:
    """By the solver that is quick; of two layers of one size, it is exact."""
    with bitfront.open_study("s", make(), db) as study:
        return bitfront.profile_until(study, SCHEMES, [BUDGET], name, solver="lagrange", **options)


def figures(found: Settled) -> Any:
    """All that a step says, comparable."""
    return [
        (s.batches, s.samples, s.profiler, s.errors,
         [(p.budgets, p.changed, p.excess, str(p.moved), p.allocation) for p in s.points])
        for s in found.steps
    ]  # fmt: skip


# mse and lrp see relative errors of outputs, in which these layers are alike
@pytest.mark.parametrize("name", ["fisher", "perturb", "hutchinson", "eigen"])
def test_a_clear_case_ends_before_all_data_are_used(name: str, tmp_path: Path) -> None:
    found = until(tmp_path / "b.db", clear, name)
    assert found.reached
    assert [s.batches for s in found.steps] == [4, 8]
    assert found.batches == BATCHES
    assert found.last.samples == 8 * SIZE
    assert found.last.points[0].allocation == {"a": "w8", "b": "w2"}
    assert found.last.points[0].moved == 0.0
    assert next(iter(found.tables.values())).samples == 8 * SIZE


@pytest.mark.parametrize("name", MEASURING)
def test_a_tie_is_never_settled_and_all_data_count_as_in_profile(name: str, tmp_path: Path) -> None:
    found = until(tmp_path / "b.db", TIED[name], name, until=0.02)
    assert not found.reached
    assert found.last.points[0].changed > 0.02
    assert [s.batches for s in found.steps][:4] == [4, 8, 16, 24]
    with (
        bitfront.open_study("s", TIED[name](), tmp_path / "b.db") as study,
        bitfront.open_study("s", TIED[name](), tmp_path / "plain.db") as plain,
    ):
        kind = PROFILERS[name]()
        plainly = bitfront.profile(plain, SCHEMES, name)
        recorded = study.measurements(name, kind.settings_key, vectors=True)
        again = kind.tables(recorded.values(), ["a", "b"], ["w2", "w8"])
        for table_name, table in plainly.items():
            assert np.array_equal(again[table_name].values, table.values)
            assert np.array_equal(again[table_name].stderr, table.stderr)
            assert again[table_name].samples == table.samples


def test_where_all_data_are_used_probes_are_drawn_more_finely(tmp_path: Path) -> None:
    found = until(tmp_path / "b.db", tied, "fisher", until=0.0)
    assert [s.profiler.settings()["draws"] for s in found.steps] == [1, 1, 1, 1, 2, 4]
    assert [s.batches for s in found.steps] == [4, 8, 16, 24, 24, 24]


def test_what_is_recorded_of_all_data_is_where_it_begins(tmp_path: Path) -> None:
    with bitfront.open_study("s", clear(), tmp_path / "b.db") as study:
        bitfront.profile(study, SCHEMES)
        found = bitfront.profile_until(study, SCHEMES, [BUDGET])
    assert [s.batches for s in found.steps] == [BATCHES]
    assert found.reached


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """``log``: each unit that is handed to the database; raises once there are ``left`` of them."""
    state: dict[str, Any] = {"log": [], "left": math.inf}
    add, part, finish = Store.add_measurements, Store.add_checkpoint, Store.finish_pass

    def note(*units: Any) -> None:
        if state["left"] <= 0:
            raise KeyboardInterrupt
        state["left"] -= 1
        state["log"] += units

    def of(measurements: Any) -> list[Any]:
        return [(m.profiler, m.settings, m.layer, m.scheme) for m in measurements]

    def add_measurements(self: Store, study: Any, measurements: Any) -> int:
        measurements = list(measurements)
        note(*of(measurements))
        return add(self, study, measurements)

    def add_checkpoint(self: Store, study: Any, key: str, index: int, arrays: Any) -> None:
        note((key, index))
        part(self, study, key, index, arrays)

    def finish_pass(self: Store, study: Any, key: str, measurements: Any) -> int:
        measurements = list(measurements)
        note(*of(measurements))
        return finish(self, study, key, measurements)

    monkeypatch.setattr(Store, "add_measurements", add_measurements)
    monkeypatch.setattr(Store, "add_checkpoint", add_checkpoint)
    monkeypatch.setattr(Store, "finish_pass", finish_pass)
    return state


@pytest.mark.parametrize("name", MEASURING)
def test_a_killed_run_goes_on_and_repeats_nothing(
    name: str, tmp_path: Path, writes: dict[str, Any]
) -> None:
    """Killed every so often: no batch is passed twice, no pair measured twice."""
    make = TIED[name]
    straight = until(tmp_path / "straight.db", make, name)
    planned = list(writes["log"])
    assert len(planned) == len(set(planned))

    writes["log"].clear()
    killed, found = 0, None
    while found is None:
        writes["left"] = len(planned) // 5
        try:
            found = until(tmp_path / "killed.db", make, name)
        except KeyboardInterrupt:
            killed += 1
    assert killed >= 3
    assert sorted(map(str, writes["log"])) == sorted(map(str, planned))
    assert figures(found) == figures(straight)

    writes["log"].clear()
    again = until(tmp_path / "killed.db", make, name)
    assert writes["log"] == []
    assert figures(again) == figures(straight)


def test_profile_goes_on_with_a_pass_that_ended_early(
    tmp_path: Path, writes: dict[str, Any]
) -> None:
    until(tmp_path / "b.db", clear)
    parts = [unit for unit in writes["log"] if len(unit) == 4]
    assert {unit[0] for unit in parts} == {"fisher/0-4", "fisher/0-8"}  # no one takes them for all
    writes["log"].clear()
    with bitfront.open_study("s", clear(), tmp_path / "b.db") as study:
        bitfront.profile(study, SCHEMES)
        assert len(study.store.measurements(study.record, "fisher")) == 4
    assert [unit[1] for unit in writes["log"] if len(unit) == 2] == list(range(8, BATCHES))


def test_one_batch_of_eigenvalues_has_no_known_error(tmp_path: Path) -> None:
    found = until(tmp_path / "b.db", lambda: task(1.0, batches=1), "eigen")
    assert found.last.errors == "unknown"
    assert math.isnan(found.last.points[0].changed)
    assert not found.reached


def test_unsuitable_requests_are_refused_before_anything_is_profiled(
    tmp_path: Path, writes: dict[str, Any]
) -> None:
    with bitfront.open_study("s", clear(), tmp_path / "b.db") as study:
        with pytest.raises(InvalidInput, match="until 1"):
            bitfront.profile_until(study, SCHEMES, [BUDGET], until=1.0)
        with pytest.raises(Infeasible, match="least possible is 2bpw"):
            bitfront.profile_until(study, SCHEMES, ["1bpw"])
    assert writes["log"] == []


def two_layers(values: Any) -> tuple[Sensitivities, Costs]:
    """Layers of 30 and 10 weights under w2 and w8."""
    layers, schemes = ("a", "b"), ("w2", "w8")
    values = np.array(values, dtype=float)
    bits = np.array([[60.0, 240.0], [20.0, 80.0]])
    costs = Costs(layers, schemes, {"bits": bits}, {"bits": 0.0}, {"bits": 1280.0}, 40)
    return Sensitivities("kl", layers, schemes, values, np.zeros((2, 2)), 9), costs


def test_instability_is_by_weights_and_excess_by_the_tables_own_values(tmp_path: Path) -> None:
    """By hand: with 6.5 bits only ``a`` (30 of 40 weights) may be w8, or ``b``, not both."""
    with bitfront.open_study("s", clear(), tmp_path / "b.db") as study:
        layers = selected(study, Choices()).layers
    sized = [la.__class__(la.name, la.kind, n, 1) for la, n in zip(layers, (30, 10), strict=True)]
    selection = Selection(tuple(sized), {}, {}, ())
    table, costs = two_layers([[4.0, 1.0], [2.0, 1.0]])  # a at w8: 1 + 2; b at w8: 4 + 1
    other = [[2.0, 1.0], [9.0, 1.0]]  # here b at w8
    draws = np.array([table.values, table.values, table.values, other])
    (point,) = points(["6.5bpw"])
    found = instability(table, draws, costs, selection, point, "ilp")
    assert found.allocation == {"a": "w8", "b": "w2"}
    assert found.changed == pytest.approx(1 / 4)  # one replica of four changes all weights
    assert found.excess == pytest.approx((5 - 3) / 3 / 4)
    assert math.isnan(found.moved)
    assert instability(table, draws, costs, selection, point, "ilp", found).moved == 0.0
    pinned = Selection(tuple(sized), {}, {"a": "w2"}, ())
    (loose,) = points(["8bpw"])
    assert instability(table, draws, costs, pinned, loose, "ilp").changed == 0.0  # b: w8 always
    assert isinstance(point[0], Budget)


MODULE = """
from tests.test_settling import {name}


def task():
    made = {name}()
    return {{"model": made.model, "calibration": [b.args[0] for b in made.calibration],
            "evaluation": [b.args[0] for b in made.evaluation]}}
"""


def command(bitfront: Commands, folder: Path, name: str, *words: object) -> Any:
    (folder / f"{name}.py").write_text(MODULE.format(name=name))
    given = ["--function", folder / f"{name}.py:task", "--schemes", SCHEMES, "--budget", BUDGET]
    given += ["--hold-back", 0]
    return bitfront.ok("profile", name, *given, *words)


def test_the_command_says_how_it_ended(tmp_path: Path, bitfront: Commands) -> None:
    printed = command(bitfront, tmp_path, "clear", "--until", 0.05).out
    assert "--until 0.05 reached with 32 calibration samples (8 of 24 batches)" in printed
    words = ("--until", 0.02, "--solver", "lagrange")
    printed = command(bitfront, tmp_path, "tied", *words).out
    assert "--until 0.02 not reached: with all 96 calibration samples" in printed
    assert "more --samples" in printed

    document = command(bitfront, tmp_path, "tied", *words, "--json").document
    assert document["settings"]["draws"] == 4
    end = document["until"]
    assert (end["reached"], end["share"], end["samples"]) == (False, 0.02, 96)
    (budget,) = end["budgets"]
    assert budget["budgets"] == [BUDGET]
    assert budget["changed"] > 0.02
    assert set(budget["allocation"]) == {"a", "b"}
    assert [step["settings"]["draws"] for step in end["steps"]] == [1, 1, 1, 1, 2, 4]

    clear = command(bitfront, tmp_path, "clear", "--until", 0.05, "--json").document["until"]
    assert (clear["reached"], clear["batches"], clear["all_batches"]) == (True, 8, 24)
    assert clear["steps"][0]["budgets"][0]["moved"] is None


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--until", "0.05"], "without a budget"),
        (["--budget", "4bpw"], "without --until"),
        (["--exclude", "a"], "without --until"),
        (["--solver", "ilp"], "without --until"),
        (["--until", "1", "--budget", "4bpw"], "--until 1.0"),
        (["--until", "nan", "--budget", "4bpw"], "--until nan"),
        (["--until", "0.05", "--budget", "4cats"], "unknown unit"),
        (["--until", "0.05", "--budget", "4bpw", "--solver", "luck"], "luck"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    words: list[str], what: str, bitfront: Commands
) -> None:
    assert what in bitfront.refused("profile", "s", "--schemes", "w4", *words)
