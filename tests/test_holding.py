"""Calibration data held back: split, never chosen by, measured beside, warned about."""

from __future__ import annotations

import csv
import itertools
import json
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bitfront.workbench
from bitfront.errors import InvalidInput, StudyMismatch
from bitfront.heldout import sides
from bitfront.measuring import measure
from bitfront.quant.surgery import applied
from bitfront.study import Study, recorded_task
from bitfront.tasks import Batch, ModuleTask, Task, from_recipe
from bitfront.tasks.evaluation import Evaluator, Measured
from bitfront.tasks.fingerprint import batches_digest
from bitfront.tasks.holding import HOLD_BACK, chosen, split
from bitfront.types import Scheme, Trial
from tests import tiny
from tests.commands import Commands
from tests.pages import Page
from tests.small_tasks import Conv, _seeded

SHARE = 0.4  # of the 2 or 3 batches of the tiny tasks: one


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 20, 61])
@pytest.mark.parametrize("share", [0.0, 0.125, 0.3, 0.5, 0.99])
def test_a_share_is_held_back_spread_over_the_order(count: int, share: float) -> None:
    held = chosen(count, share)
    assert len(held) == min(math.floor(share * count + 0.5), count - 1)
    assert held == chosen(count, share), "the same each time"
    for k, index in enumerate(held):  # one of each of as many equal stretches of all but the last
        assert k * (count - 1) // len(held) <= index < (k + 1) * (count - 1) // len(held)
    rest, kept = split(list(range(count)), share)
    assert list(kept) == list(held)
    assert sorted([*rest, *kept]) == list(range(count))
    assert list(rest) == sorted(rest)


def test_the_choice_is_the_same_on_every_machine() -> None:
    assert chosen(4, HOLD_BACK) == (2,)
    assert chosen(8, HOLD_BACK) == (5,)
    assert chosen(32, HOLD_BACK) == (5, 12, 19, 25)


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, math.nan, True, "half"])
def test_shares_that_are_none(share: Any) -> None:
    with pytest.raises(InvalidInput, match="give a share from 0 to below 1"):
        ModuleTask(dict, hold_back=share)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("holding")


@pytest.fixture(params=list(tiny.MAKERS), scope="module")
def recipe(request: pytest.FixtureRequest, folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = tiny.MAKERS[request.param](folder).recipe()
    return made


def digests(batches: Any) -> list[str]:
    return [batches_digest([batch]) for batch in batches]


def test_used_and_held_back_are_all_of_it(recipe: dict[str, Any]) -> None:
    whole = from_recipe({**recipe, "hold_back": 0})
    task, again = (from_recipe({**recipe, "hold_back": SHARE}) for _ in range(2))
    every, used, held = map(digests, (whole.calibration, task.calibration, task.held_back))
    assert not whole.held_back
    assert used
    assert held
    assert not set(used) & set(held)
    assert [d for d in every if d in used] == used
    assert [d for d in every if d in held] == held
    assert set(used) | set(held) == set(every)
    assert len(used) + len(held) == len(every)
    assert digests(again.held_back) == held
    assert digests(task.evaluation) == digests(whole.evaluation)
    assert task.layers == whole.layers


def test_the_fingerprint_names_it_and_is_as_before_without_it(recipe: dict[str, Any]) -> None:
    old = {name: value for name, value in recipe.items() if name != "hold_back"}
    whole = from_recipe({**recipe, "hold_back": 0})
    task = from_recipe({**recipe, "hold_back": SHARE})
    assert from_recipe(old).fingerprint() == whole.fingerprint()
    assert from_recipe(old).recipe()["hold_back"] == 0
    assert "held_back" not in whole.fingerprint()
    found = task.fingerprint()
    assert from_recipe(json.loads(json.dumps(task.recipe()))).fingerprint() == found
    both = {**found, **whole.fingerprint()}
    assert {n for n in found if both[n] != found[n]} <= {"calibration"}
    assert "held_back" in found


def test_too_few_batches_are_said(recipe: dict[str, Any]) -> None:
    task = from_recipe({**recipe, "hold_back": 0.1})
    assert not task.held_back
    assert task.fingerprint() == from_recipe({**recipe, "hold_back": 0}).fingerprint()
    [note] = [n for n in task.notes if "held back" in n]
    count = 2 if recipe["kind"] in ("language", "diffusion") else 3
    assert note.startswith(f"nothing is held back of {count} calibration batches: ")
    assert ("--batch" in note) == (recipe["kind"] != "module")
    for share in (0, SHARE):
        silent = from_recipe({**recipe, "hold_back": share})
        assert not [n for n in silent.notes if "held back" in n]


def test_whole_trajectories_are_held_back(folder: Path) -> None:
    recipe = tiny.diffusion_task(folder).recipe()
    task = from_recipe({**recipe, "samples": 8, "hold_back": 0.5})
    for batches in (task.calibration, task.held_back):
        parts = torch.cat([batch.part for batch in batches if batch.part is not None])
        assert torch.bincount(parts).tolist() == [4, 4]  # 4 images, one call in each half


# ---------------------------------------------------------------- studies


def network(spread: float = 1.0) -> Task:
    """8 batches of 6 images to calibrate; those of the one held back are ``spread`` as bright."""
    x = torch.randn(54, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    calibration = list(x[:48].split(6))
    (held,) = chosen(8, HOLD_BACK)
    calibration[held] = calibration[held] * spread
    parts = {"model": _seeded(Conv), "calibration": calibration, "evaluation": [x[48:]]}
    return ModuleTask(lambda: parts)


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    with bitfront.open_study("s", network(), tmp_path / "b.db") as opened:
        yield opened


class Watched(Evaluator):
    """Says while it looks at the data held back."""

    looking = False

    def __init__(self, task: Task, batches: Any, *rest: Any) -> None:
        Watched.looking = batches is task.held_back
        super().__init__(task, batches, *rest)
        Watched.looking = False

    def measure(self, *given: Any, **named: Any) -> Measured:
        Watched.looking = self.batches is self.task.held_back
        found = super().measure(*given, **named)
        Watched.looking = False
        return found


def test_nothing_is_chosen_by_what_is_held_back(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = study.task
    held = torch.cat([batch.args[0] for batch in task.held_back])
    seen: list[bool] = []  # of every pass over held-back data: whether the judge made it

    def check(x: Any) -> None:
        images = x if isinstance(x, Tensor) and x.shape[1:] == held.shape[1:] else held[:0]
        if any(torch.equal(image, other) for image, other in itertools.product(images, held)):
            seen.append(Watched.looking)

    outputs = task.outputs

    def spied(batch: Batch) -> Tensor:
        check(batch.args[0])
        return outputs(batch)

    def hook(module: nn.Module, args: Any) -> None:
        if args:
            check(args[0])

    monkeypatch.setattr(task, "outputs", spied)
    monkeypatch.setattr(bitfront.workbench, "Evaluator", Watched)
    handle = nn.modules.module.register_module_forward_pre_hook(hook)
    try:
        for profiler in ("fisher", "perturb", "mse", "hutchinson"):
            bitfront.profile(study, "w2 w4a8s w4+gptq", profiler)
        assert seen == []
        (answer,) = bitfront.search(study, "w2 w4a8s w4+gptq w8", ["4bpw"])
    finally:
        handle.remove()
    assert seen
    assert all(seen)
    assert answer.trial.metrics["held-back/kl"].samples == 6
    assert answer.trial.metrics["calibration/kl"].samples == 42


def test_trials_have_the_loss_on_what_was_held_back(study: Study, tmp_path: Path) -> None:
    schemes = {layer.name: "w3" for layer in study.task.layers}
    costs = bitfront.cost(study, "w3")
    seen = measure(study, schemes, "refine", costs.total(schemes), evaluation=False)
    assert {n.partition("/")[0] for n in seen.metrics} == {"calibration", "held-back"}

    with torch.no_grad():
        [batch] = study.task.held_back
        z = study.task.outputs(batch).double()
        w3 = Scheme.parse("w3")
        with applied(
            study.task.model, {name: study.builder.quantized(name, w3) for name in schemes}
        ):
            y = study.task.outputs(batch).double()
    p, q = z.softmax(-1), y.softmax(-1)
    kl = (p * (p / q).log()).sum(-1).squeeze(1)
    found = seen.metrics["held-back/kl"]
    assert found.value == pytest.approx(float(kl.mean()), rel=1e-5)
    assert found.stderr == pytest.approx(float(kl.std()) / math.sqrt(6), rel=1e-5)

    whole = measure(study, schemes, "refine", costs.total(schemes))
    assert whole.id == seen.id
    assert "kl" in whole.metrics
    assert {n: whole.metrics[n] for n in seen.metrics} == seen.metrics
    assert set(study.store.trial_vectors(study.record, seen.id)) >= {"kl"}
    front = bitfront.front("s", metrics=("held-back/agreement",), db=tmp_path / "b.db")
    assert front.senses == ("min", "max")


def clipped(spread: float, folder: Path) -> tuple[Trial, Page]:
    """Activations' steps are fitted to the calibration images; how the others fare."""
    db, page = folder / "b.db", folder / "out.html"
    with bitfront.open_study("s", network(spread), db) as study:
        schemes = {layer.name: "w8a8s" for layer in study.task.layers}
        costs = bitfront.cost(study, "w8a8s")
        trial = measure(study, schemes, "by hand", costs.total(schemes))
    found = bitfront.report("s", page, db=db)
    assert found.parted == {"held-back": [1] if spread > 1 else [], "evaluation": []}
    return trial, Page(page.read_text(encoding="utf-8"))


def test_a_trial_that_fits_its_calibration_data_alone_is_warned_about(tmp_path: Path) -> None:
    trial, page = clipped(20.0, tmp_path)
    both = sides(trial, "kl")
    assert both.held_back is not None
    assert both.calibration is not None
    assert both.held_back.value > 10 * both.calibration.value
    assert both.part == ("held-back",)
    [row] = page.rows
    assert row["held-back kl"].startswith(f"{both.held_back.value:.4g}")
    assert row["warning"] == "held-back is worse"
    assert "Trial 1: held-back kl is above calibration kl" in page.text
    assert "surer" not in page.text


def test_an_honest_trial_is_not(tmp_path: Path) -> None:
    trial, page = clipped(1.0, tmp_path)
    assert sides(trial, "kl").part == ()
    assert "warning" not in page.rows[0]
    assert "held-back kl" in page.rows[0]
    assert '<p class="warning">' not in page.text


# ---------------------------------------------------------------- command line


def words(files: Path) -> list[object]:
    return ["--task", "module", "--function", f"{tiny.code(files / 'bring.py')}:task"]


SEARCH = ["--schemes", "w2 w4 w8", "--budget", "4bpw"]


def test_commands_show_it(bitfront: Commands, folder: Path, tmp_path: Path) -> None:
    done = bitfront.ok("search", "m", *words(folder), "--hold-back", SHARE, *SEARCH, "--json")
    assert "held back" not in done.err
    [answer] = done.document["answers"]
    figure = answer["trial"]["metrics"]["held-back/kl"]
    sheet, front, report = (tmp_path / name for name in ("a.csv", "a.html", "b.html"))
    bitfront.ok("front", "m", "--csv", sheet, "--html", front)
    rows = {row["trial"]: row for row in csv.DictReader(sheet.read_text().splitlines())}
    number = str(answer["trial"]["id"])
    assert float(rows[number]["held-back/kl"]) == figure["value"]
    assert float(rows[number]["held-back/kl stderr"]) == figure["stderr"]
    for row in Page(front.read_text(encoding="utf-8")).rows:
        assert row["held-back/kl"]
    bitfront.ok("report", "m", "--html", report)
    shown = {row["trial"]: row for row in Page(report.read_text(encoding="utf-8")).rows}
    assert shown[number]["held-back kl"].startswith(f"{figure['value']:.4g}")
    printed = bitfront.ok("show", "m", number).out.splitlines()
    [head] = [line for line in printed if "held back" in line]
    assert head.split() == ["metric", "calibration", "held", "back", "evaluation", "warning"]
    [line] = [line for line in printed if line.split()[:1] == ["kl"]]
    assert f"{figure['value']:.4g}" in line


def test_what_parts_is_said(bitfront: Commands, tmp_path: Path) -> None:
    clipped(20.0, tmp_path)
    page = tmp_path / "front.html"
    db = ["--db", tmp_path / "b.db"]
    line = "trial 1: held-back kl is above calibration kl by more than twice"
    assert line in bitfront.ok("show", "s", 1, *db).out
    assert "kl" in bitfront.ok("show", "s", 1, *db, "--json").document["parted"]
    assert line in bitfront.ok("front", "s", *db, "--html", page).out
    [row] = Page(page.read_text(encoding="utf-8")).rows
    assert row["warning"] == "held-back is worse"
    printed = bitfront.ok("report", "s", "--html", page, *db).out
    assert line in printed


def test_nothing_held_back_is_noted(bitfront: Commands, folder: Path) -> None:
    done = bitfront.ok("profile", "m", *words(folder), "--schemes", "w4")
    assert "note: nothing is held back of 3 calibration batches: let the function" in done.err
    refusal = bitfront.refused(
        "profile", "n", *words(folder), "--schemes", "w4", "--hold-back", "1.5"
    )
    assert "hold_back 1.5" in refusal


def test_a_study_of_before_goes_on_as_it_was_begun(bitfront: Commands, folder: Path) -> None:
    tiny.language_task(folder)
    task = [
        "--task", "language", "--model", folder / "llama", "--calibration", folder / "text.txt",
        "--samples", 8, "--eval-samples", 4, "--length", 12, "--batch", 2,
    ]  # fmt: skip
    search = ["--schemes", "w4 w8", "--budget", "6bpw", "--explore", 2, "--json"]
    first = bitfront.ok("search", "s", *task, "--hold-back", 0, *search).document
    with sqlite3.connect(bitfront.db) as db:
        (text,) = db.execute("SELECT settings FROM study").fetchone()
        settings = json.loads(text)
        assert settings["recipe"].pop("hold_back") == 0
        db.execute("UPDATE study SET settings = ?", (json.dumps(settings),))
    assert bitfront.ok("search", "s", *search).document == first
    assert bitfront.ok("search", "s", *task, *search).document == first
    assert not recorded_task("s", bitfront.db).held_back
    refusal = bitfront.refused("search", "s", *search, "--hold-back", HOLD_BACK)
    assert "calibration was" in refusal
    assert "held_back was absent" in refusal
    begun = bitfront.ok("search", "t", *task, *search).document["answers"][0]["trial"]
    assert begun["metrics"]["held-back/kl"]["samples"] == 2


def test_another_share_is_another_study(tmp_path: Path) -> None:
    db = tmp_path / "b.db"
    bitfront.open_study("s", network(), db).close()
    given = {"model": _seeded(Conv), "calibration": list(torch.zeros(8, 2, 3, 6, 6))}
    with pytest.warns(bitfront.errors.BitfrontWarning, match="brings no evaluation"):
        task = ModuleTask(lambda: given, hold_back=0.5)
    with pytest.raises(StudyMismatch, match="held_back was"):
        bitfront.open_study("s", task, db)
