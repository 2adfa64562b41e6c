"""Fisher scores against per-sample Jacobians in float64, one sample and one pair at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bitfront.quant.activations import fake_quantize
from bitfront.quant.build import Builder
from bitfront.quant.formats import dequantize
from bitfront.quant.layers import Adapter, adapter_of
from bitfront.quant.suitability import takes
from bitfront.quant.weights import QuantizedLayer
from bitfront.scratch import Scratch
from bitfront.sensitivity import NoCheckpoints, Subject
from bitfront.sensitivity.fisher import Fisher
from bitfront.sensitivity.probes import probe
from bitfront.tasks import ModuleTask
from bitfront.tasks.base import Batch
from bitfront.types import Scheme, parse_schemes
from tests.small_tasks import TASKS, uneven, with_weights

SCHEMES = [Scheme.parse(s) for s in ("w2", "w4", "w8", "w4g4z")]


def exact_kl(z: Tensor, dz: Tensor, w: Tensor) -> float:
    """½ Σ_p w Δzᵀ (diag p - p pᵀ) Δz over the positions of one sample; z (P, K), w (P,)."""
    p = torch.softmax(z, -1)
    return float(0.5 * (w * ((p * dz**2).sum(-1) - (p * dz).sum(-1) ** 2)).sum())


def task_of(kind: str, weighted: bool, dtype: str = "auto") -> ModuleTask:
    task = TASKS[kind](dtype=dtype)
    return with_weights(task, uneven) if weighted else task


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", list(TASKS))
def test_many_draws_approach_the_exact_quadratic_form(kind: str, weighted: bool) -> None:
    task = task_of(kind, weighted, "float64")
    with Scratch() as scratch:
        subject = Subject(task, Builder(task.model, task.layers, lambda: None, scratch), scratch)
        pairs = [(la, s) for la in task.layers for s in SCHEMES if takes(la, s) is None]
        draws = 256
        profiler = Fisher(temperatures=(1.0,), draws=draws, elementwise=1.0)
        (found,) = profiler.measure(subject, pairs, NoCheckpoints())
        for m in found:
            module = task.module(m.layer)
            adapter = adapter_of(module)
            W = adapter.matrix(module).clone()
            dW = dequantize(
                subject.builder.quantized(m.layer, Scheme.parse(m.scheme)).weight, W.dtype
            ) - W  # fmt: skip
            total, count = 0.0, 0.0
            for batch in task.calibration:
                step = 1e-5
                with torch.no_grad():
                    z = task.outputs(batch)
                    adapter.assign(module, W + step * dW)
                    dz = (task.outputs(batch) - z) / step
                    adapter.assign(module, W)
                w = torch.ones(z.shape[:2]) if batch.weights is None else batch.weights
                total += sum(exact_kl(z[i], dz[i], w[i]) for i in range(len(z)))
                count += float(w.sum())
            estimate = m.values["sample@1"].value
            # one draw of s² has at most a chi-square's relative spread √2, averaged over draws
            # and samples whose shares are unequal: four sigma with no help from the samples
            assert estimate == pytest.approx(total / count, rel=4 * (2 / draws) ** 0.5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", list(TASKS))
def test_scores_are_those_of_their_definitions(kind: str, weighted: bool) -> None:
    """One draw, every sample by itself: s and e from gradients at outputs and changed outputs."""
    task = task_of(kind, weighted)
    schemes = parse_schemes("w2 w4z w8a4 w8a4b w8g2a4g w8a4sz w4a6szo w8a4so")
    seed, T = 3, 2.0
    with Scratch() as scratch:

        def run() -> None:
            for batch in task.calibration:
                task.outputs(batch)

        subject = Subject(task, Builder(task.model, task.layers, run, scratch), scratch)
        pairs = [(la, s) for la in task.layers for s in schemes if takes(la, s) is None]
        profiler = Fisher(temperatures=(T,), elementwise=1.0, seed=seed)
        (found,) = profiler.measure(subject, pairs, NoCheckpoints())
        for m in found:
            q = subject.builder.quantized(m.layer, Scheme.parse(m.scheme))
            s, e = [], []
            for index, batch in enumerate(task.calibration):
                sums = literal_scores(task, batch, index, m.layer, q, T, seed)
                s.append(sums[0])
                e.append(sums[1])
            # float32 against float64; sums of products of either sign lose some digits
            scale = float(np.abs(np.concatenate(s)).max())
            assert m.vectors["s@2"][0] == pytest.approx(
                np.concatenate(s), rel=1e-3, abs=1e-4 * scale
            )
            assert m.vectors["e@2"] == pytest.approx(np.concatenate(e), rel=1e-3)


def literal_scores(
    task: ModuleTask, batch: Batch, index: int, name: str, q: QuantizedLayer, T: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Σ δ ΔY and Σ (δ ΔY)² over the calls of a layer, by sample, in float64."""
    module, adapter = task.module(name), adapter_of(task.module(name))
    W = adapter.matrix(module).clone()
    What = dequantize(q.weight, W.dtype)
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def listen(_: torch.nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        kept = output if output.requires_grad else output.detach().requires_grad_()
        kept.retain_grad()
        calls.append((args[0].detach(), kept))
        return kept * 1

    handle = module.register_forward_hook(listen)
    z = task.outputs(batch)
    handle.remove()
    generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
    u = probe(z, "categorical", kind="rademacher", temperature=T, generator=generator)
    z.backward(u if batch.weights is None else u * batch.weights[..., None] ** 0.5)
    N = batch.samples
    s, e = np.zeros(N), np.zeros(N)
    for x, output in calls:
        delta = output.grad
        assert delta is not None
        activation, full = q.weight.scheme.activation, x
        if activation is not None:
            full = fake_quantize(name, x, activation, adapter.kind, q.input_scale, q.input_zero)
        if x.is_floating_point():
            x, full = x.double(), full.double()
        y = adapter.apply(module, full, What.double())
        if activation is not None and activation.output:
            y = literal_output(module, adapter, q, y)
        dY = y - adapter.apply(module, x, W.double())
        products = (dY * delta.double()).reshape(N, -1)
        s += products.sum(1).numpy()
        e += products.square().sum(1).numpy()
    return s, e


def literal_output(
    module: Any, adapter: type[Adapter], q: QuantizedLayer, y: torch.Tensor
) -> torch.Tensor:
    """y + b rounded to the grid of outputs, b of products; without the bias as it is."""
    activation, step = q.weight.scheme.activation, q.output_scale
    assert activation is not None
    assert step is not None
    assert q.weight.scale is not None
    assert q.input_scale is not None
    zero = 2 ** (activation.bits - 1) if q.output_zero is None else q.output_zero
    unit = (q.weight.scale[:, 0].float() * q.input_scale).double()
    b = module.bias.detach().double()
    shape = (-1, 1, 1) if adapter.kind == "conv2d" else (-1,)
    codes = (y + ((b / unit).round() * unit).reshape(shape)) / step.double()
    codes = codes.round().clamp(-zero, 2**activation.bits - 1 - zero)
    return codes * step.double() - b.reshape(shape)


@pytest.mark.parametrize("kind", ["rademacher", "labels"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_probes_have_the_fisher_matrix_as_second_moment(kind: str, temperature: float) -> None:
    z = torch.tensor([[[2.0, 0.5, -1.0, 0.0]]])
    draws = 40_000
    generator = torch.Generator().manual_seed(5)
    u = probe(
        z.expand(draws, 1, 4),
        "categorical",
        kind=kind,
        temperature=temperature,
        generator=generator,
    )[:, 0].double()
    p = torch.softmax(z[0, 0].double() / temperature, -1)
    expected = torch.diag(p) - torch.outer(p, p)
    found = u.T @ u / draws
    # |u_i u_j| <= 1, so a mean of so many draws is within 5 / sqrt(draws) at five sigma
    assert torch.allclose(found, expected, rtol=0, atol=5 / draws**0.5)


def test_positions_that_are_not_scored_are_not_probed() -> None:
    z = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    scored = torch.tensor([[True, False, True], [False, True, True]])
    u = probe(
        z, "categorical", kind="rademacher", temperature=1.0,
        generator=torch.Generator().manual_seed(0), scored=scored,
    )  # fmt: skip
    assert torch.equal(u.abs().sum(-1) > 0, scored)
