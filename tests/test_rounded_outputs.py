"""Rounded outputs in what profilers say: the error of outputs, and of nothing that nobody reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bitfront.quant.build import Builder
from bitfront.quant.formats import dequantize
from bitfront.quant.surgery import applied
from bitfront.scratch import Scratch
from bitfront.sensitivity import PROFILERS, NoCheckpoints, Subject
from bitfront.tasks import ModuleTask
from bitfront.types import Scheme, Sensitivities, parse_schemes


class Net(nn.Module):
    """A convolution that only a ReLU reads, and one that more reads."""

    def __init__(self) -> None:
        super().__init__()
        self.rectified = nn.Conv2d(3, 8, 3, padding=1)
        self.plain = nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.plain(torch.relu(self.rectified(x)))
        return self.head((torch.tanh(y) + y).mean((2, 3)))


@pytest.fixture
def subject() -> Iterator[Subject]:
    x = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net().eval()
    task = ModuleTask(
        lambda: {"model": model, "calibration": [x[:8], x[8:16]], "evaluation": [x[16:]]},
        hold_back=0, device="cpu",
    )  # fmt: skip
    assert {la.name for la in task.layers if la.rectified} == {"rectified"}

    def run() -> None:
        for batch in task.calibration:
            task.outputs(batch)

    with Scratch() as scratch:
        yield Subject(task, Builder(task.model, task.layers, run, scratch), scratch)


def table(name: str, subject: Subject, schemes: tuple[Scheme, ...]) -> Sensitivities:
    layers = [la for la in subject.task.layers if la.name != "head"]
    pairs = [(la, s) for la in layers for s in schemes]
    profiler = PROFILERS[name]()
    measured = [m for part in profiler.measure(subject, pairs, NoCheckpoints()) for m in part]
    names = [la.name for la in layers]
    return next(iter(profiler.tables(measured, names, list(map(str, schemes))).values()))


@pytest.mark.parametrize("name", ["mse", "fisher", "perturb"])
def test_profilers_see_the_rounding_of_outputs(name: str, subject: Subject) -> None:
    found = table(name, subject, parse_schemes("w8 w8a8sz w8a8szo w8a4sz w8a4szo w8a4so"))
    for layer in found.layers:
        assert found.at(layer, "w8a8szo") < 0.1 * found.at(layer, "w8a4szo")
        assert found.at(layer, "w8a4szo") > 1.05 * found.at(layer, "w8a4sz")
        assert found.at(layer, "w8a4so") > found.at(layer, "w8a4szo")
        assert found.at(layer, "w8a8szo") > found.at(layer, "w8")


@pytest.mark.parametrize("text", ["w4a8szo", "w3a4so"])
def test_mse_is_that_of_what_is_read(text: str, subject: Subject) -> None:
    """Negative outputs that a ReLU drops have the error that they had before they were clipped."""
    scheme = Scheme.parse(text)
    found = table("mse", subject, (scheme,))
    inputs: dict[str, list[Tensor]] = {"rectified": [], "plain": []}
    task = subject.task
    for name in inputs:
        with torch.no_grad():
            handle = task.module(name).register_forward_pre_hook(
                lambda _, args, to=inputs[name]: to.append(args[0])
            )
            for batch in task.calibration:
                task.outputs(batch)
            handle.remove()
        module: Any = task.module(name)
        x = torch.cat(inputs[name])
        q = subject.builder.quantized(name, scheme)
        assert scheme.activation is not None
        assert q.input_scale is not None
        with torch.no_grad():
            y = module(x).double()
            with applied(task.model, {name: q}):
                rounded = module(x).double()
            lo, hi = (-(2 ** (scheme.activation.bits - 1)), 2 ** (scheme.activation.bits - 1) - 1)
            if q.input_zero is not None:
                lo, hi = -q.input_zero, 2**scheme.activation.bits - 1 - q.input_zero
            given = (x / q.input_scale).round().clamp(lo, hi) * q.input_scale
            weight = dequantize(q.weight, torch.float32).reshape(module.weight.shape)
            unrounded = nn.functional.conv2d(given, weight, module.bias, padding=module.padding)
        rounding = rounded - unrounded
        if name == "rectified":
            rounding = rounded.relu() - unrounded.relu()
        bias = module.bias.detach().double().reshape(-1, 1, 1)
        expected = (unrounded - y + rounding).square().sum() / (y - bias).square().sum()
        assert found.at(name, text) == pytest.approx(float(expected), rel=1e-4)
