"""The contract of tasks, over every registered kind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bitfront.errors import InvalidInput, ModelError, UnknownName
from bitfront.quant.layers import adapter_of
from bitfront.tasks import TASKS, Evaluator, Task, from_recipe, task_class
from tests.tiny import MAKERS

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(params=[kind for kind in TASKS if kind in MAKERS], scope="module")
def task(request: pytest.FixtureRequest, folder: Path) -> Task:
    return MAKERS[request.param](folder)


def test_is_registered_under_its_kind(task: Task) -> None:
    assert task_class(task.kind) is type(task)


def test_outputs_are_samples_by_positions_by_classes(task: Task) -> None:
    for batch in (*task.calibration, *task.evaluation):
        z = task.outputs(batch)
        assert z.dim() == 3
        assert len(z) == batch.samples
        assert z.requires_grad
        if batch.labels is not None:
            assert batch.labels.shape == z.shape[:2]
            assert batch.labels.dtype == torch.int64
        if batch.scored is not None:
            assert batch.scored.shape == z.shape[:2]


def test_batches_hold_the_same_samples_each_time(task: Task) -> None:
    for batches in (task.calibration, task.evaluation):
        first = [task.outputs(b) for b in batches]
        again = [task.outputs(batches[i]) for i in range(len(batches))]
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        with pytest.raises(IndexError):
            batches[len(batches)]


def test_the_model_is_in_evaluation_mode(task: Task) -> None:
    assert not any(module.training for module in task.model.modules())


def test_layers_describe_their_modules(task: Task) -> None:
    names = [layer.name for layer in task.layers]
    assert len(names) == len(set(names))
    for layer in task.layers:
        module = task.module(layer.name)
        assert adapter_of(module).kind == layer.kind
        assert tuple(adapter_of(module).matrix(module).shape) == (layer.rows, layer.cols)
        assert layer.shares is None or layer.shares in names
        assert layer.role in ("body", "embedding", "head")


def test_groups_are_disjoint_sets_of_layers(task: Task) -> None:
    members = [name for group in task.groups for name in group]
    assert len(members) == len(set(members))
    assert set(members) <= {layer.name for layer in task.layers}
    assert all(len(group) > 1 for group in task.groups)


def test_metrics_are_known_and_the_full_model_is_the_origin(task: Task) -> None:
    evaluator = Evaluator(task, task.evaluation)
    assert set(evaluator.baseline.estimates()) == set(task.metrics)
    worse = evaluator.worsening(evaluator.measure())
    assert all(estimate.value == 0 for estimate in worse.values())
    with pytest.raises(UnknownName):
        task.metric("blue")


def test_looking_at_the_layers_changes_nothing(task: Task) -> None:
    before = task.fingerprint()
    del task.__dict__["survey"], task.__dict__["layers"]
    assert task.layers
    assert task.fingerprint() == before


def test_a_recipe_makes_the_same_task(task: Task) -> None:
    recipe = json.loads(json.dumps(task.recipe()))
    again = from_recipe(recipe)
    assert again.fingerprint() == task.fingerprint()
    assert again.layers == task.layers
    assert again.groups == task.groups
    assert again.recipe() == task.recipe()


def test_the_fingerprint_names_what_differs(task: Task) -> None:
    before = task.fingerprint()
    assert {"weights", "calibration", "evaluation", "task", "dtype"} <= set(before)
    layer = task.layers[-1].name
    weight = task.module(layer).weight
    assert isinstance(weight, torch.Tensor)
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.view(-1)[-1] += 1e-3
        changed = task.fingerprint()
        weight.copy_(kept)
    assert [k for k in before if before[k] != changed[k]] == ["weights"]
    assert task.fingerprint() == before


@pytest.mark.parametrize("kind", list(MAKERS))
def test_sixteen_bits(kind: str, folder: Path) -> None:
    task = MAKERS[kind](folder, dtype="bfloat16")
    assert {layer.dtype for layer in task.layers} == {"bfloat16"}
    assert task.outputs(task.calibration[0]).dtype == torch.bfloat16
    assert task.fingerprint()["dtype"] == "bfloat16"
    assert Evaluator(task, task.evaluation).measure().estimates()["kl"].value == 0


@pytest.mark.parametrize("kind", list(MAKERS))
def test_wrong_places_are_refused(kind: str, folder: Path) -> None:
    recipe = MAKERS[kind](folder).recipe()
    with pytest.raises(ModelError, match="unknown dtype 'int3'"):
        from_recipe({**recipe, "dtype": "int3"})
    with pytest.raises(ModelError, match="unknown device 'toaster'"):
        from_recipe({**recipe, "device": "toaster"})
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="not available"):
            from_recipe({**recipe, "device": "cuda"})


def test_nan_weights_are_named(task: Task) -> None:
    weight = task.module(task.layers[-1].name).weight
    assert isinstance(weight, torch.Tensor)
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
        try:
            with pytest.raises(ModelError, match="outputs are not finite"):
                task.outputs(task.calibration[0])
        finally:
            weight.copy_(kept)


def test_unknown_kinds_and_bare_recipes_are_refused() -> None:
    with pytest.raises(UnknownName, match="language, vision, diffusion, module"):
        from_recipe({"kind": "sculpture"})
    with pytest.raises(InvalidInput, match="without its kind"):
        from_recipe({})


def test_naming_tasks_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "diffusers")
    code = f"import sys, bitfront.tasks; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
