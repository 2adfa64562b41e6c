"""Which layers of a traced model meet, told from what ONNX Runtime itself does with its layouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import bitfront
from bitfront.quant.export_onnx import Onnx
from bitfront.quant.weights import QuantizedLayer
from bitfront.study import Study
from bitfront.targets import aimed
from bitfront.targets.stand_ins import stand_in
from bitfront.tasks import ModuleTask
from bitfront.tasks.deployed import signature
from bitfront.tasks.running import ModelTask
from bitfront.timingbench import Bench
from bitfront.types import Scheme
from tests.small_tasks import TASKS


class Residual(nn.Module):
    """Two blocks with a sum behind each, a pool between, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.one = nn.Conv2d(16, 16, 3, padding=1)
        self.two = nn.Conv2d(16, 16, 3, padding=1)
        self.three = nn.Conv2d(16, 32, 3, padding=1)
        self.norm = nn.GroupNorm(4, 32)
        self.four = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        x = functional.relu(x + self.two(functional.relu(self.one(x))))
        x = self.three(functional.max_pool2d(x, 2))
        return self.head(self.four(self.norm(x)).mean((2, 3)))


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    def make() -> dict[str, Any]:
        torch.manual_seed(0)
        x = torch.randn(4, 3, 8, 8)
        return {"model": Residual().eval(), "calibration": [x], "evaluation": [x]}

    with bitfront.open_study("s", ModuleTask(make), tmp_path / "s.db") as opened:
        yield opened


def test_neighbours_of_a_residual_network(study: Study) -> None:
    """By hand: values of 8 x 8 and 4 x 4, two samples; a norm, and a mean, part what they are
    between."""
    bench = Bench(study, aimed("ort-cpu:b2t1"))
    assert sorted(bench.handovers) == sorted(
        [
            ("stem", "one", 2 * 16 * 64), ("one", "two", 2 * 16 * 64),
            ("stem", "two", 2 * 16 * 64),  # are added
            ("stem", "three", 2 * 16 * 16 / 2), ("two", "three", 2 * 16 * 16 / 2),  # their sum
        ]
    )  # fmt: skip
    assert bench.moved({}) == 0
    assert bench.moved({"two": "w8a8szo"}) == 2 * (2 * 16 * 64) + 2 * 16 * 16 / 2
    assert bench.moved({"one": "w8a8szo"}) == 2 * (2 * 16 * 64)
    assert bench.moved({"head": "w8a8", "four": "w8a8szo"}) == 0
    assert bench.moved(dict.fromkeys(["stem", "one", "two", "three"], "w8a8szo")) == 0


def test_no_neighbours_where_no_layout_differs(tmp_path: Path) -> None:
    with bitfront.open_study("s", TASKS["attentive"](), tmp_path / "s.db") as opened:
        assert Bench(opened, aimed("ort-cpu:b2t1")).handovers == []


@pytest.mark.parametrize(
    "integer", [(), ("one",), ("stem", "one", "two"), ("stem", "one", "two", "three")]
)
def test_the_runtime_changes_layouts_where_it_is_said_to(
    study: Study, tmp_path: Path, integer: tuple[str, ...]
) -> None:
    """In the graph that ONNX Runtime makes of it, where no sum is of both layouts. ``four``, and
    what ``three`` gives, meet none."""
    assert isinstance(study.task, ModelTask)
    model, layers = study.task.model, {layer.name: layer for layer in study.task.layers}
    schemes = {n: Scheme.parse("w8a8szo" if n in integer else "keep") for n in layers}
    bench = Bench(study, aimed("ort-cpu:b2t1"))

    def quantized(name: str) -> QuantizedLayer:
        return stand_in(layers[name], model.get_submodule(name), schemes[name])

    frame = bench.target.frame(study.task, signature(study.task))
    graph = Onnx().graph(frame, model, study.task.layers, schemes, quantized)
    source, made = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(graph, str(source))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(made)
    options.log_severity_level = 3  # it warns that the file is for this machine only
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(str(made)).graph.node)
    parts = {("stem", "three"): 0.5, ("two", "three"): 0.5}
    differing = sum(
        parts.get((one, other), 1)
        for one, other, _ in bench.handovers
        if (one in integer) != (other in integer)
    )
    ends = 2 + ("three" not in integer)
    assert found["ReorderInput"] + found["ReorderOutput"] == differing + ends
    assert found["QLinearConv"] == len(integer)
