"""Module tasks: the contract of docs/tasks.md, and one clear line for what breaks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bitfront.errors import BitfrontError, ModelError
from bitfront.tasks import Evaluator, ModuleTask
from bitfront.tasks.brought import Brought

ROOT = Path(__file__).resolve().parents[1]


def module(**changes: Any) -> ModuleTask:
    def bring() -> Any:
        model = nn.Linear(3, 4)
        given: dict[str, Any] = {"model": model, "calibration": [torch.zeros(2, 3)]}
        given["evaluation"] = given["calibration"]
        given.update(changes)
        return {k: v for k, v in given.items() if v is not None}

    return ModuleTask(bring, device="cpu")


def test_batches_may_be_tensors_tuples_and_dicts() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, a: torch.Tensor, b: Any = 0) -> Any:
            return {"ignored": 1}, self.layer(a + b)

    x = torch.ones(2, 3)
    forward = lambda model, batch: model(batch["a"])[1]  # noqa: E731
    task = module(model=Two(), calibration=[{"a": x}], evaluation=[{"a": x}], forward=forward)
    assert task.outputs(task.calibration[0]).shape == (2, 1, 4)
    for batch in (x, (x,), [x], {"input": x}):
        assert module(calibration=[batch]).outputs is not None
        task = module(calibration=[batch])
        assert task.outputs(task.calibration[0]).shape == (2, 1, 4)


def test_labels_from_a_dict_or_a_function_with_ignored_positions() -> None:
    x, y = torch.zeros(2, 5, 3), torch.tensor([[0, 1, -100, 2, 3], [-100] * 5])
    task = module(calibration=[{"input": x, "labels": y}], evaluation=[{"input": x, "labels": y}])
    assert task.metrics == ("kl", "nll", "perplexity", "top1", "agreement")
    counts = Evaluator(task, task.calibration).measure().counts["nll"]
    assert counts.tolist() == [4, 0]
    pairs = [(torch.zeros(2, 3), torch.tensor([1, 2]))]
    task = module(
        calibration=pairs, evaluation=pairs,
        forward=lambda model, batch: model(batch[0]), labels=lambda batch: batch[1],
    )  # fmt: skip
    assert task.metrics == ("kl", "nll", "top1", "flips", "agreement")
    assert Evaluator(task, task.calibration).baseline.estimates()["nll"].value > 0


def test_gaussian_outputs_of_any_shape() -> None:
    x = [torch.zeros(2, 3, 8, 8)]
    metrics = {"mean": (_spatial, "lower")}
    task = module(
        model=nn.Conv2d(3, 5, 3), calibration=x, evaluation=x, output="gaussian", metrics=metrics
    )
    assert task.metrics == ("kl", "mean")
    evaluator = Evaluator(task, task.calibration)
    task.model.bias.data.add_(0.5)  # type: ignore[operator]
    assert evaluator.measure().estimates()["kl"].value == pytest.approx(0.125 * 5 * 36, rel=1e-4)


def _spatial(outputs: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    assert outputs.shape == (2, 5, 6, 6), "the model's own shape"
    assert batch.shape == (2, 3, 8, 8), "the user's own batch"
    return outputs.mean((1, 2, 3))


def test_hand_groups_and_objects_with_attributes() -> None:
    class Bag:
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
        calibration = evaluation = (torch.zeros(2, 3),)
        groups = (("0", "3"),)

    assert ModuleTask(Bag, device="cpu").groups == (("0", "3"),)


def test_no_evaluation_batches_is_a_warning() -> None:
    with pytest.warns(UserWarning, match="no evaluation batches"):
        task = module(evaluation=None)
    assert task.evaluation is task.calibration


X = [torch.zeros(2, 3)]
BAD_MODULES: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": None}, "returned no 'model'"),
    "model of another kind": ({"model": 3}, "'model' is a int"),
    "unknown key": ({"data": 3}, "returned 'data': known keys"),
    "no batches": ({"calibration": []}, "'calibration' has no batches"),
    "one batch": ({"calibration": X[0]}, "is one Tensor"),
    "a batch of nothing": ({"calibration": [3]}, "calibration batch 0 is a int"),
    "unknown output": ({"output": "loud"}, "use categorical or gaussian"),
    "metric without direction": ({"metrics": {"m": len}}, "give a pair"),
    "metric of a taken name": ({"metrics": {"kl": (len, "lower")}}, "is built in"),
    "float labels": ({"labels": lambda b: torch.zeros(2)}, "give class indices"),
    "failing labels": ({"labels": lambda b: b["y"]}, "calling 'labels' failed"),
    "forward of another kind": ({"forward": 3}, "'forward' is a int"),
}


@pytest.mark.parametrize("case", list(BAD_MODULES))
def test_bad_modules_are_one_clear_line(case: str) -> None:
    changes, message = BAD_MODULES[case]
    with pytest.raises(BitfrontError, match=message) as caught:
        module(**changes)
    assert "\n" not in str(caught.value)


def test_bad_outputs_and_metrics_are_one_clear_line() -> None:
    x = X[0]
    cases: dict[str, dict[str, Any]] = {
        "inputs of shape|mat1": {"calibration": [torch.zeros(2, 9)]},
        "returned str": {"forward": lambda m, b: "hello"},
        "not finite": {"forward": lambda m, b: m(b) / 0},
        "for 1 samples of a batch of 2": {"forward": lambda m, b: m(b)[:1]},
        "have shape": {"forward": lambda m, b: m(b)[:, 0]},
        "1 of them not finite": {
            "metrics": {"m": (lambda z, b: torch.tensor([1, float("nan")]), "lower")}
        },
        "gave values of shape": {"metrics": {"m": (lambda z, b: z.sum(), "lower")}},
        "metric 'm' failed": {"metrics": {"m": (lambda z, b: z.nothing, "lower")}},
    }
    for message, changes in cases.items():
        task = module(**{"calibration": [x], **changes})
        with pytest.raises(ModelError, match=message) as caught:
            Evaluator(task, task.calibration).measure()
        assert "\n" not in str(caught.value)


def test_errors_of_user_code_say_where(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import helper_of_mine\n\ndef bring():\n    return helper_of_mine.data()\n"
    )
    (tmp_path / "helper_of_mine.py").write_text("def data():\n    return {}['x']\n")
    with pytest.raises(ModelError, match=r"helper_of_mine.py:2: KeyError: 'x'") as caught:
        ModuleTask(f"{tmp_path / 'mine.py'}:bring")
    assert isinstance(caught.value.__cause__, KeyError), "kept for BITFRONT_DEBUG"
    (tmp_path / "syntax.py").write_text("\n\ndef bring(:\n")
    with pytest.raises(ModelError, match=r"syntax.py:3: SyntaxError"):
        ModuleTask(f"{tmp_path / 'syntax.py'}:bring")
    (tmp_path / "imports.py").write_text("import no_such_package_at_all\n")
    with pytest.raises(ModelError, match=r"imports.py:1: ModuleNotFoundError"):
        ModuleTask(f"{tmp_path / 'imports.py'}:bring")
    with pytest.raises(ModelError, match="write it like"):
        ModuleTask("mine.bring")


def test_the_example_of_the_documentation_runs() -> None:
    pytest.importorskip("sklearn")
    task = ModuleTask(str(ROOT / "examples" / "module_task.py:digits"), {"epochs": 4}, device="cpu")
    found = Evaluator(task, task.evaluation).baseline.estimates()
    assert found["top1"].value > 0.4, "four epochs; chance is 0.1"
    assert found["margin"].value > 0
    assert [layer.role for layer in task.layers] == ["body", "body", "head"]


def test_the_documentation_lists_every_key() -> None:
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    part = text.partition("## Module")[2].partition("**Batches.**")[0]
    rows = [line.split("`")[1] for line in part.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(Brought.__dataclass_fields__)
