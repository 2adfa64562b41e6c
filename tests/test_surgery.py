"""Quantized layers come into a model and leave it without a trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bitfront.errors import ModelError
from bitfront.quant.build import Builder
from bitfront.quant.formats import dequantize
from bitfront.quant.layers import adapter_of
from bitfront.quant.quantizers import quantize
from bitfront.quant.surgery import applied, is_applied, original
from bitfront.quant.weights import QuantizedLayer
from bitfront.scratch import Scratch
from bitfront.types import Scheme
from tests.modules import CASES, layer_of, make

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
W3 = Scheme.parse("w3")


class Tied(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 8, dtype=dtype)
        self.body = nn.Linear(8, 8, dtype=dtype)
        self.head = nn.Linear(8, 10, bias=False, dtype=dtype)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.body(self.table(ids)))


def quantized(model: nn.Module, name: str, scheme: Scheme = W3) -> QuantizedLayer:
    M = adapter_of(model.get_submodule(name)).matrix(model.get_submodule(name))
    return QuantizedLayer(quantize(M, scheme))


def snapshot(model: nn.Module) -> dict[str, bytes]:
    return {
        name: tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()
        for name, tensor in model.state_dict().items()
    }


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_every_kind_is_replaced_and_restored(case: str, dtype: torch.dtype) -> None:
    module, x = make(case, dtype)
    model = nn.ModuleDict({"a": module})
    layer = quantized(model, "a")
    before, y = snapshot(model), module(x)
    with applied(model, {"a": layer}):
        inside = adapter_of(module).matrix(module)
        assert torch.equal(inside, dequantize(layer.weight, dtype))
        assert is_applied("a", module)
        assert not torch.equal(module(x), y)
    assert snapshot(model) == before
    assert not is_applied("a", module)
    assert torch.equal(module(x), y)


def test_bits_that_compare_equal_are_kept_too() -> None:
    """Negative zeros and the payload of a NaN elsewhere in the weight survive."""
    module = nn.Linear(4, 2)
    model = nn.ModuleDict({"a": module})
    layer = quantized(model, "a")
    with torch.no_grad():
        module.weight[0] = torch.tensor([-0.0, 0.0, float("nan"), 1e-45])
    before = snapshot(model)
    with applied(model, {"a": layer}):
        assert snapshot(model) != before
    assert snapshot(model) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_restored_after_whatever_ends_the_block(error: type[BaseException]) -> None:
    model = Tied()
    before = snapshot(model)
    layers = {
        "body": quantized(model, "body", Scheme.parse("w4a8")),
        "table": quantized(model, "table"),
    }

    def block() -> None:
        with applied(model, layers):
            assert snapshot(model) != before
            raise error

    with pytest.raises(error):
        block()
    assert snapshot(model) == before
    assert hooks(model) == 0


def test_restored_when_applying_fails_half_way() -> None:
    model = Tied()
    before = snapshot(model)
    wrong = QuantizedLayer(quantize(torch.randn(3, 8), W3))
    with (
        pytest.raises(
            ModelError, match="'body' has weights \\(8, 8\\), its quantized form \\(3, 8\\)"
        ),
        applied(model, {"table": quantized(model, "table"), "body": wrong}),
    ):
        pass
    assert snapshot(model) == before


def test_an_interrupt_while_restoring_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Tied()
    before = snapshot(model)
    adapter = adapter_of(model.body)
    assign, calls = adapter.assign, []

    def interrupted(module: nn.Module, M: Tensor) -> None:
        calls.append(module)
        if len(calls) == 2:  # the first attempt to restore
            raise KeyboardInterrupt
        assign(module, M)

    monkeypatch.setattr(adapter, "assign", interrupted)
    with pytest.raises(KeyboardInterrupt), applied(model, {"body": quantized(model, "body")}):
        pass
    assert snapshot(model) == before
    assert not is_applied("body", model.body)


@pytest.mark.parametrize("names", [("table",), ("head",), ("table", "head"), ("head", "table")])
def test_tied_weights(names: tuple[str, ...]) -> None:
    model = Tied()
    before = snapshot(model)
    layer = quantized(model, "table")
    with applied(model, dict.fromkeys(names, layer)):
        assert model.head.weight is model.table.weight
        assert torch.equal(model.head.weight, dequantize(layer.weight, torch.float32))
        assert torch.equal(original("head", model.head), original("table", model.table))
    assert snapshot(model) == before


def test_tied_layers_that_disagree_are_refused() -> None:
    model = Tied()
    before = snapshot(model)
    layers = {
        "table": quantized(model, "table"),
        "head": quantized(model, "head", Scheme.parse("w4")),
    }
    with (
        pytest.raises(ModelError, match="'head' and 'table' share a weight"),
        applied(model, layers),
    ):
        pass
    assert snapshot(model) == before


def test_nested_on_different_layers_only() -> None:
    model = Tied()
    before = snapshot(model)
    table, body = quantized(model, "table"), quantized(model, "body")
    with applied(model, {"table": table}):
        inside = snapshot(model)
        with applied(model, {"body": body}):
            assert torch.equal(model.body.weight, dequantize(body.weight, torch.float32))
        assert snapshot(model) == inside
        for name in ("table", "head"):
            with (
                pytest.raises(ModelError, match="is quantized already"),
                applied(model, {name: table}),
            ):
                pass
        assert snapshot(model) == inside
    assert snapshot(model) == before


def test_the_original_weight_is_found_while_another_is_in_place() -> None:
    model = Tied()
    M = original("body", model.body).clone()
    builder = Builder(model, [layer_of("body", model.body)], lambda: None)
    alone = builder.quantized("body", Scheme.parse("w4")).weight.codes.clone()
    with applied(model, {"body": quantized(model, "body", Scheme.parse("w2"))}):
        assert torch.equal(original("body", model.body), M)
        assert torch.equal(builder.quantized("body", Scheme.parse("w4")).weight.codes, alone)


def test_inputs_are_quantized_however_they_are_passed() -> None:
    module = nn.Linear(8, 4)
    model = nn.ModuleDict({"a": module})
    layer = quantized(model, "a", Scheme.parse("w8a4"))
    x = torch.randn(3, 8)
    step = x.abs().amax(-1, keepdim=True) / 7.5
    rounded = (x / step).round().clamp(-8, 7) * step
    with applied(model, {"a": layer}):
        expected = nn.functional.linear(rounded, module.weight, module.bias)
        assert torch.equal(module(x), expected)
        assert torch.equal(module(input=x), expected)
    assert hooks(model) == 0


@pytest.mark.parametrize("text", ["w8a8b", "w8a8sb"])
def test_inputs_without_tokens_have_no_first_one(text: str) -> None:
    module = nn.Linear(8, 4)
    model = nn.ModuleDict({"a": module})
    layer = replace(quantized(model, "a", Scheme.parse(text)), input_scale=torch.tensor(0.1))
    with applied(model, {"a": layer}):
        assert module(torch.randn(2, 3, 8)).shape == (2, 3, 4)
        for shape in ((3, 8), (8,)):
            with pytest.raises(ModelError, match="layer 'a' is to keep the first token of its inp"):
                module(torch.randn(*shape))
    assert hooks(model) == 0


def test_static_inputs_need_a_step() -> None:
    model = nn.ModuleDict({"a": nn.Linear(8, 4)})
    before = snapshot(model)
    layer = quantized(model, "a", Scheme.parse("w8a8s"))
    with pytest.raises(ModelError, match="without a step"), applied(model, {"a": layer}):
        pass
    assert snapshot(model) == before


def test_no_side_effects_on_autograd() -> None:
    model = Tied()
    model.head.weight.requires_grad_(False)
    model.body.weight.grad = torch.ones(8, 8)
    parameters = dict(model.named_parameters())
    with applied(model, {name: quantized(model, name) for name in ("table", "body")}):
        model(torch.tensor([[1, 2]])).sum().backward()
    assert {name: id(p) for name, p in parameters.items()} == {
        name: id(p) for name, p in model.named_parameters()
    }
    assert not model.head.weight.requires_grad
    assert model.body.weight.requires_grad
    assert model.body.weight.is_leaf


def test_originals_wait_in_scratch(tmp_path: Path) -> None:
    model = Tied()
    before = snapshot(model)
    with Scratch(limit=0, folder=tmp_path) as scratch:
        layers = {name: quantized(model, name) for name in ("table", "body")}
        with applied(model, layers, scratch):
            assert sum(f.stat().st_size for f in tmp_path.rglob("*.bin")) == 4 * (80 + 64)
        assert snapshot(model) == before
    assert not list(tmp_path.iterdir())


def test_weights_computed_on_the_fly_are_refused() -> None:
    model = nn.ModuleDict({"a": nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))})
    layer = QuantizedLayer(quantize(torch.randn(4, 4), W3))
    with (
        pytest.raises(ModelError, match="layer 'a' is not a parameter"),
        applied(model, {"a": layer}),
    ):
        pass
