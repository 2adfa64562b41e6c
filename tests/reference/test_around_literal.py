"""The expansion around a quantized model against finite differences in float64."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from torch import Tensor

from bitfront.quant.activations import fake_quantize
from bitfront.quant.build import Builder
from bitfront.quant.formats import dequantize
from bitfront.quant.layers import adapter_of
from bitfront.quant.suitability import takes
from bitfront.quant.surgery import applied
from bitfront.quant.weights import QuantizedLayer
from bitfront.scratch import Scratch
from bitfront.sensitivity import NoCheckpoints, Subject
from bitfront.sensitivity.around import Around, gradient
from bitfront.tasks import ModuleTask
from bitfront.types import Layer, Measurement, Scheme
from tests.contracts.test_profilers import Kept
from tests.small_tasks import TASKS, uneven, with_weights

CANDIDATES = [Scheme.parse(s) for s in ("w2", "w4", "w8", "keep")]


def subject_of(task: ModuleTask, scratch: Scratch) -> Subject:
    def run() -> None:
        with torch.no_grad():
            for batch in task.calibration:
                task.outputs(batch)

    return Subject(task, Builder(task.model, task.layers, run, scratch), scratch)


def at_three_bits(task: ModuleTask) -> dict[str, Scheme]:
    """Every layer at 3 bits but the first, which stays in full precision."""
    return {layer.name: Scheme.parse("w3") for layer in task.layers[1:]}


def expanded(
    subject: Subject, at: dict[str, Scheme], pairs: list[tuple[Layer, Scheme]], draws: int
) -> list[Measurement]:
    around = Around(at=tuple((name, str(s)) for name, s in at.items()), draws=draws)
    (found,) = around.measure(subject, pairs, NoCheckpoints())
    return found


def outputs(task: ModuleTask) -> list[Tensor]:
    with torch.no_grad():
        return [task.outputs(batch) for batch in task.calibration]


def weights(task: ModuleTask, full: list[Tensor]) -> list[Tensor]:
    given = [batch.weights for batch in task.calibration]
    pairs = zip(full, given, strict=True)
    return [torch.ones(z.shape[:2]).double() if w is None else w.double() for z, w in pairs]


def mean_kl(full: list[Tensor], now: list[Tensor], weights: list[Tensor]) -> float:
    total, count = 0.0, 0.0
    for z, y, w in zip(full, now, weights, strict=True):
        log_p, log_q = torch.log_softmax(z, -1), torch.log_softmax(y, -1)
        total += float((w[..., None] * log_p.exp() * (log_p - log_q)).sum())
        count += float(w.sum())
    return total / count


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", list(TASKS))
def test_orders_are_derivatives_of_kl_at_the_quantized_model(kind: str, weighted: bool) -> None:
    task = TASKS[kind](dtype="float64")
    task = with_weights(task, uneven) if weighted else task
    step, draws = 1e-4, 256
    with Scratch() as scratch:
        subject = subject_of(task, scratch)
        at = at_three_bits(task)
        pairs = [
            (la, s)
            for la in task.layers
            for s in CANDIDATES
            if s != at.get(la.name) and takes(la, s) is None
        ]
        found = expanded(subject, at, pairs, draws)
        full = outputs(task)
        w = weights(task, full)
        quantized = {name: subject.builder.quantized(name, s) for name, s in at.items()}
        originals = {
            la.name: adapter_of(task.module(la.name)).matrix(task.module(la.name)).clone()
            for la in task.layers
        }
        for m in found:
            module = task.module(m.layer)
            adapter = adapter_of(module)
            with applied(task.model, quantized, scratch):
                here = outputs(task)
                now = adapter.matrix(module).clone()
                if m.scheme == "keep":
                    there = originals[m.layer]
                else:
                    candidate = subject.builder.quantized(m.layer, Scheme.parse(m.scheme))
                    there = dequantize(candidate.weight, now.dtype)
                sides = []
                for sign in (1, -1):
                    adapter.assign(module, now + sign * step * (there - now))
                    sides.append(outputs(task))
                adapter.assign(module, now)
            slope = (mean_kl(full, sides[0], w) - mean_kl(full, sides[1], w)) / (2 * step)
            quadratic, count = 0.0, 0.0
            for z, up, down, each in zip(here, *sides, w, strict=True):
                q, dz = torch.softmax(z, -1), (up - down) / (2 * step)
                form = (q * dz**2).sum(-1) - (q * dz).sum(-1) ** 2
                quadratic += 0.5 * float((each * form).sum())
                count += float(each.sum())
            first, change = m.values["first"].value, m.values["change"].value
            # scores are float32; sums over samples of either sign lose some digits
            assert first == pytest.approx(slope, rel=1e-3, abs=1e-6)
            # as in test_fisher_literal: a chi-square's spread over draws, four sigma
            spread = 4 * (2 / draws) ** 0.5
            assert change - first == pytest.approx(quadratic / count, rel=spread)


@pytest.mark.parametrize("kind", list(TASKS))
def test_first_order_where_activations_are_quantized(kind: str) -> None:
    """⟨gradient at a layer's output, change of that output⟩, from activations of either model."""
    task = TASKS[kind](dtype="float64")
    schemes = [
        Scheme.parse(s)
        for s in (
            "w4",
            "w4a8",
            "w3a4",
            "w3a4b",
            "w2",
            "keep",
            "w4a8s",
            "w4a8sb",
            "w4g2a4g",
            "fp8a8",
            "fp8a8s",
        )
    ]
    with Scratch() as scratch:
        subject = subject_of(task, scratch)
        base = Scheme.parse("w3a4")
        at = {la.name: base for la in task.layers if takes(la, base) is None}
        pairs = [
            (la, s)
            for la in task.layers
            for s in schemes
            if la.name in at and s != base and takes(la, s) is None
        ]
        assert len(pairs) > 4
        found = expanded(subject, at, pairs, 1)
        full = outputs(task)
        quantized = {name: subject.builder.quantized(name, s) for name, s in at.items()}
        for m in found:
            scheme = Scheme.parse(m.scheme)
            candidate = None
            if m.scheme != "keep":
                candidate = subject.builder.quantized(m.layer, scheme)
            value = literal_first_order(task, full, quantized, m.layer, candidate, scratch)
            assert m.values["first"].value == pytest.approx(value, rel=1e-3, abs=1e-6)


def literal_first_order(
    task: ModuleTask,
    full: list[Tensor],
    quantized: dict[str, QuantizedLayer],
    name: str,
    candidate: QuantizedLayer | None,
    scratch: Scratch,
) -> float:
    module, adapter = task.module(name), adapter_of(task.module(name))
    W = adapter.matrix(module).clone()

    def rounded(x: Tensor, q: QuantizedLayer | None) -> Tensor:
        if q is None or q.weight.scheme.activation is None:
            return x
        return fake_quantize(name, x, q.weight.scheme.activation, adapter.kind, q.input_scale)

    def weight(q: QuantizedLayer | None) -> Tensor:
        return W if q is None else dequantize(q.weight, W.dtype)

    total, count = 0.0, 0
    for batch, p in zip(task.calibration, full, strict=True):
        raw: list[Tensor] = []
        outs: list[Tensor] = []
        with ExitStack() as stack:
            before = module.register_forward_pre_hook(
                lambda _, a, raw=raw: raw.append(a[0].detach())
            )
            stack.callback(before.remove)
            stack.enter_context(applied(task.model, quantized, scratch))

            def keep(_: object, __: object, y: Tensor, outs: list[Tensor] = outs) -> Tensor:
                y = y if y.requires_grad else y.detach().requires_grad_()
                y.retain_grad()
                outs.append(y)
                return y * 1

            stack.callback(module.register_forward_hook(keep).remove)
            z = task.outputs(batch)
            z.backward(torch.softmax(z.detach(), -1) - torch.softmax(p, -1))
        for x, y in zip(raw, outs, strict=True):
            assert y.grad is not None
            then = adapter.apply(module, rounded(x, candidate), weight(candidate))
            now = adapter.apply(module, rounded(x, quantized[name]), weight(quantized[name]))
            total += float(((then - now).reshape(y.shape) * y.grad).sum())
        count += z.shape[0] * z.shape[1]
    return total / count


def test_at_the_full_model_there_is_no_first_order() -> None:
    task = TASKS["convolutional"]()
    with Scratch() as scratch:
        subject = subject_of(task, scratch)
        pairs = [(la, CANDIDATES[0]) for la in task.layers]
        for m in expanded(subject, {}, pairs, 1):
            assert m.values["first"].value == 0
            assert m.values["change"].value > 0


def test_the_scheme_that_a_layer_has_changes_nothing() -> None:
    task = TASKS["convolutional"]()
    with Scratch() as scratch:
        subject = subject_of(task, scratch)
        at = at_three_bits(task)
        found = expanded(subject, at, [(task.layers[1], CANDIDATES[0])], 1)
        around = Around(at=tuple((name, str(s)) for name, s in at.items()))
        names = [la.name for la in task.layers[:2]]
        table = around.tables(found, names, ["w2", "w3", "keep"])["change"]
        assert table.at(names[1], "w3") == table.at(names[0], "keep") == 0
        assert table.at(names[1], "w2") == found[0].values["change"].value


@pytest.mark.parametrize("kind", list(TASKS))
def test_a_pass_that_is_stopped_leaves_the_model_as_it_was_and_goes_on(kind: str) -> None:
    task = TASKS[kind]()
    state = {k: v.clone() for k, v in task.model.state_dict().items()}
    with Scratch() as scratch:
        subject = subject_of(task, scratch)
        at = {la.name: Scheme.parse("w3") for la in task.layers}
        pairs = [(la, CANDIDATES[0]) for la in task.layers]
        around = Around(at=tuple((name, str(s)) for name, s in at.items()))
        kept = Kept(until=1)
        with pytest.raises(KeyboardInterrupt):
            next(around.measure(subject, pairs, kept))
        assert all(torch.equal(v, state[k]) for k, v in task.model.state_dict().items())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in task.model.modules())
        kept.until = None
        (resumed,) = around.measure(subject, pairs, kept)
        assert kept.saved == list(range(len(subject.batches)))  # each batch once
        (whole,) = around.measure(subject, pairs, NoCheckpoints())
        assert [m.values for m in resumed] == [m.values for m in whole]


@pytest.mark.parametrize("output", ["categorical", "gaussian"])
def test_the_probe_of_the_first_order_is_the_gradient_of_kl(output: str) -> None:
    from bitfront.tasks.metrics import kl

    generator = torch.Generator().manual_seed(0)
    p, z = torch.randn(2, 3, 4, 5, generator=generator)
    z.requires_grad_()
    scored = torch.tensor([[True, True, False, True]] * 3)
    (kl(p, z, None, output) * scored).sum().backward()
    assert torch.allclose(gradient(z, p, output, scored), z.grad, atol=1e-6)
