"""A module that runs thrice: what profilers say of it against copies, measurement, definitions.

``tests/reference/test_hessian_exact.py`` does the same for traces and eigenvalues.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitfront.quant.build import Builder
from bitfront.quant.formats import dequantize
from bitfront.quant.layers import adapter_of
from bitfront.sensitivity.fisher import Fisher
from bitfront.sensitivity.lrp import LRP, relevances
from bitfront.sensitivity.mse import MSE
from bitfront.sensitivity.perturb import Perturb
from bitfront.tasks import ModuleTask
from bitfront.types import Scheme
from tests import bad_models as bad
from tests.contracts.test_profiler_bad_cases import run


def looped(copies: int) -> ModuleTask:
    return bad.task_of(lambda: bad.Looped(copies), dtype="float64")


def test_fisher_adds_up_the_calls_of_a_module() -> None:
    """Σ δ ΔY over calls is the sum over copies of the module, one for each call."""
    once, copies = (run(Fisher(), looped(n), ("w4",)) for n in (1, 3))
    for key in ("s@1", "s@2"):
        total = sum(copies[f"loop.{i}", "w4"].vectors[key] for i in range(3))
        scale = float(np.abs(total).max())
        found = once["loop.0", "w4"].vectors[key]
        np.testing.assert_allclose(found, total, rtol=1e-4, atol=1e-5 * scale)


def test_fisher_of_a_module_that_runs_thrice_is_what_measuring_finds() -> None:
    measured = run(Perturb(), looped(1), ("w8",))
    for m in run(Fisher(temperatures=(1.0,), draws=256), looped(1), ("w8",)).values():
        # four sigma of 256 draws as in test_fisher_literal, and 2 % for the third order at 8 bits
        expected = measured[m.layer, "w8"].values["kl"].value
        assert m.values["sample@1"].value == pytest.approx(
            expected, rel=4 * (2 / 256) ** 0.5 + 0.02
        )


def test_mse_adds_up_the_calls_of_a_module() -> None:
    task = looped(1)
    layer = task.module("loop.0")
    builder = Builder(task.model, task.layers, lambda: None)
    quantized = builder.quantized("loop.0", Scheme.parse("w4"))
    W = adapter_of(layer).matrix(layer).clone()
    dW = dequantize(quantized.weight, W.dtype) - W
    error = energy = 0.0
    for batch in task.calibration:
        x = batch.args[0].double()
        for _ in range(3):
            error += float((x @ dW.T).square().sum())
            energy += float((x @ W.T).square().sum())
            x = torch.tanh(layer(x)).detach()
    found = run(MSE(), task, ("w4",))["loop.0", "w4"]
    # outputs are taken in float32
    assert found.values["mse"].value == pytest.approx(error / energy, rel=1e-5)


def test_lrp_adds_up_the_calls_of_a_module() -> None:
    found = []
    for task in (looped(1), looped(3)):
        composite = LRP().composite(task)
        found.append([relevances(task, batch, composite)[0] for batch in task.calibration])
    for once, copies in zip(*found, strict=True):
        total = sum(copies[f"loop.{i}"] for i in range(3))
        np.testing.assert_allclose(once["loop.0"], total, rtol=1e-9)
