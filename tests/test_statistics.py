"""Input statistics, against what the same inputs give in one piece in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from bitfront.errors import ModelError
from bitfront.quant import statistics as module
from bitfront.quant.layers import adapter_of
from bitfront.quant.statistics import BINS, Histogram, collect, moment_bytes
from tests.modules import CASES, make

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def feed(layer: nn.Module, batches: Sequence[Tensor]) -> None:
    for batch in batches:
        layer(batch)


def exact(layer: nn.Module, batches: list[Tensor]) -> Tensor:
    P = torch.cat([adapter_of(layer).patches(layer, x).flatten(0, 1) for x in batches]).double()
    return torch.einsum("ngi,ngj->gij", P, P) / len(P)


@pytest.mark.parametrize("chunk", [1, 1 << 24])
@pytest.mark.parametrize("case", [c for c in CASES if not c.startswith("embedding")])
def test_second_moments(case: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    layer, x = make(case)
    batches = [x, 2 * x, x - 1]
    model = nn.ModuleDict({"a": layer})
    found = collect(model, ["a"], [], lambda: [layer(b) for b in batches])["a"]
    assert found.H is not None
    expected = exact(layer, batches)
    torch.testing.assert_close(found.H.double(), expected, rtol=1e-5, atol=1e-5)
    assert moment_bytes(layer) == found.H.numel() * 4
    assert not layer._forward_hooks


def check(found: Histogram | None, inputs: Tensor) -> None:
    """``found`` counts ``inputs``, and its width is the least power of two that holds them."""
    assert found is not None
    expected = torch.bincount((inputs.abs() / found.width).long().flatten(), minlength=BINS)
    assert torch.equal(found.counts, expected)
    below = inputs[inputs < 0].abs()
    negative = torch.bincount((below / found.width).long(), minlength=BINS)
    assert torch.equal(found.negative, negative)
    assert BINS / 2 <= float(inputs.abs().max()) / found.width < BINS


class Attention(nn.Module):
    def __init__(self, share: bool = True) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(6, 6) for _ in range(4))
        self.share, self.calls = share, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        other = x if self.share or self.calls == 1 else x + 1
        return self.o(input=self.q(x) + self.k(other) + self.v(x * 1.0))


def test_layers_with_the_same_input_share_one_moment() -> None:
    model, x = Attention(), torch.randn(4, 6)
    found = collect(model, ["q", "k", "v", "o"], [], lambda: [model(x), model(2 * x)])
    assert found["q"].H is found["k"].H
    assert found["v"].H is not found["q"].H
    assert found["v"].H is not None
    assert found["q"].H is not None
    torch.testing.assert_close(found["v"].H, found["q"].H)
    assert found["o"].rows == 8


def test_inputs_that_only_looked_the_same_are_told_apart() -> None:
    model = Attention(share=False)
    passes = []

    def run() -> None:
        model.calls = 0
        passes.append(1)
        for scale in (1.0, 2.0):
            model(scale * torch.ones(4, 6))

    found = collect(model, ["q", "k"], ["k"], run)
    assert len(passes) == 2
    for name, inputs in (("q", [1.0, 2.0]), ("k", [1.0, 3.0])):
        H = found[name].H
        assert H is not None
        expected = sum(v * v for v in inputs) / 2
        torch.testing.assert_close(H, torch.full((1, 6, 6), expected))
    magnitudes = found["k"].magnitudes
    assert magnitudes is not None
    assert int(magnitudes.counts.sum()) == 48


def test_inputs_that_float32_hardly_tells_from_zero_are_zero() -> None:
    layer = nn.Linear(8, 2)
    model = nn.ModuleDict({"a": layer})
    tiny, one = torch.full((4, 8), 1e-43), torch.ones(4, 8)
    for batches, width in (([tiny], 0.0), ([tiny, one], 2.0 / BINS), ([one, tiny], 2.0 / BINS)):
        found = collect(model, [], ["a"], partial(feed, layer, batches))["a"].magnitudes
        assert found is not None
        assert found.width == width
        assert found.counts[0] == 32
        assert found.counts.sum() == 32 * len(batches)


def test_an_input_changed_in_place_is_another_input() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            x.mul_(2)
            return y + self.b(x)

    model = Net()
    found = collect(model, ["a", "b"], [], lambda: model(torch.ones(2, 3)))
    assert found["a"].H is not None
    assert found["b"].H is not None
    torch.testing.assert_close(found["b"].H, 4 * found["a"].H)


def test_histogram_does_not_depend_on_order() -> None:
    layer = nn.Linear(8, 2)
    generator = torch.Generator().manual_seed(0)
    batches = [s * torch.randn(16, 8, generator=generator) for s in (1e-3, 1.0, 40.0, 0.1)]
    batches.insert(2, torch.zeros(4, 8))
    model = nn.ModuleDict({"a": layer})
    found = [
        collect(model, [], ["a"], partial(feed, layer, order))["a"].magnitudes
        for order in (batches, batches[::-1])
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].width == found[1].width
    assert torch.equal(found[0].counts, found[1].counts)
    check(found[0], torch.cat([b.flatten() for b in batches]))


@pytest.mark.parametrize("case", ["linear", "linear-4d", "hf_conv1d"])
def test_a_layer_may_be_counted_with_and_without_first_tokens(case: str) -> None:
    layer, x = make(case)
    batches = [x, 3 * x, x[..., :1, :]]  # the last has no other token
    for batch in batches:
        batch[..., 0, :] *= 500
    model = nn.ModuleDict({"a": layer})
    run = partial(feed, layer, batches)
    found = collect(model, ["a"], ["a"], run, ["a"])["a"]
    check(found.magnitudes, torch.cat([b.flatten() for b in batches]))
    check(found.after_first, torch.cat([b[..., 1:, :].flatten() for b in batches]))
    alone = collect(model, [], [], run, ["a"])["a"]
    assert alone.magnitudes is None
    assert alone.H is None
    plain = collect(model, ["a"], [], run)["a"].H
    assert found.H is not None
    assert plain is not None
    assert torch.equal(found.H, plain)  # second moments are of all tokens
    assert alone.after_first is not None
    assert found.after_first is not None
    assert torch.equal(alone.after_first.counts, found.after_first.counts)


@pytest.mark.parametrize("read", [(-math.inf, math.inf), (0, math.inf), (0, 0.4)])
@pytest.mark.parametrize("case", ["linear", "conv2d", "conv1d-unbatched"])
def test_outputs_are_counted_as_they_are_read(case: str, read: tuple[float, float]) -> None:
    layer, x = make(case)
    batches = [x, 3 * x]
    model = nn.ModuleDict({"a": layer})
    found = collect(model, [], [], partial(feed, layer, batches), (), {"a": read})["a"]
    assert found.magnitudes is None
    with torch.no_grad():
        outputs = torch.cat([layer(b).flatten() for b in batches])
    check(found.outputs, outputs.clamp(*read))
    nn.init.constant_(layer.bias, torch.nan)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="outputs of layer 'a' are not finite"):
        collect(model, [], [], partial(feed, layer, batches), (), {"a": read})


def test_inputs_without_tokens_have_no_first_one() -> None:
    layer = nn.Linear(3, 3)
    model = nn.ModuleDict({"a": layer})
    with pytest.raises(
        ModelError, match=r"layer 'a' is to keep the first .* \(4, 3\) has no tokens"
    ):
        collect(model, [], [], lambda: layer(torch.ones(4, 3)), ["a"])
    with pytest.raises(ModelError, match="layer 'a' gets no token but the first"):
        collect(model, [], [], lambda: layer(torch.ones(4, 1, 3)), ["a"])
    with pytest.raises(ModelError, match="inputs of layer 'a' are not finite"):
        collect(model, [], [], lambda: layer(torch.full((4, 2, 3), torch.nan)), ["a"])
    assert not layer._forward_hooks


def test_experts_without_tokens_and_layers_never_called() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})

    def run() -> None:
        model["a"](torch.ones(0, 3))
        model["a"](torch.ones(5, 3))

    assert collect(model, ["a"], ["a"], run)["a"].rows == 5
    with pytest.raises(ModelError, match="layer 'b' is never called on the calibration data"):
        collect(model, ["a", "b"], [], run)
    assert not model["a"]._forward_hooks


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_are_named(bad: float) -> None:
    layer = nn.Linear(3, 3)
    model = nn.ModuleDict({"a": layer})
    x = torch.tensor([[1.0, bad, 0.0]])
    for moments, magnitudes in ((["a"], []), ([], ["a"])):
        with pytest.raises(ModelError, match="inputs of layer 'a' are not finite"):
            collect(model, moments, magnitudes, lambda: layer(x))
        assert not layer._forward_hooks


def test_no_gradients_are_recorded_and_half_precision_is_summed_in_float32() -> None:
    layer = nn.Linear(4, 4).bfloat16()
    outputs: list[Tensor] = []
    x = torch.randn(300, 4).bfloat16()
    model = nn.ModuleDict({"a": layer})
    found = collect(model, ["a"], [], lambda: outputs.append(layer(x)))["a"]
    assert not outputs[0].requires_grad
    assert found.H is not None
    assert found.H.dtype == torch.float32
    torch.testing.assert_close(found.H.double(), exact(layer, [x]), rtol=1e-5, atol=1e-6)
