"""The builder: few passes, the full-precision model's statistics, clear refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bitfront.errors import ModelError, SchemeError, UnknownName
from bitfront.quant.build import Builder
from bitfront.quant.quantizers import quantize
from bitfront.quant.statistics import collect
from bitfront.quant.surgery import applied
from bitfront.types import Scheme, parse_schemes
from tests.modules import layer_of

GPTQ = Scheme.parse("w3g4+gptq")
STATIC = Scheme.parse("w4a8s")
BOS = Scheme.parse("w4a8sb")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 8)
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.table.weight
        self.passes = 0

    def forward(self, ids: Tensor) -> Tensor:
        self.passes += 1
        return self.head(self.b(torch.relu(self.a(self.table(ids)))))


def net() -> tuple[Net, list[Tensor]]:
    torch.manual_seed(0)
    model = Net()
    return model, [torch.randint(0, 10, (16, 5)) for _ in range(2)]


def build(limit: int = 1 << 30) -> tuple[Net, Builder]:
    model, batches = net()
    layers = [layer_of(name, model.get_submodule(name)) for name in ("table", "a", "b")]
    layers.append(layer_of("head", model.head, shares="table"))
    return model, Builder(model, layers, lambda: [model(x) for x in batches], moments_limit=limit)


def test_everything_wanted_comes_from_one_pass() -> None:
    model, builder = build()
    wanted = [
        ("a", GPTQ), ("b", GPTQ), ("b", STATIC), ("b", BOS),
        ("a", Scheme.parse("w4")),
    ]  # fmt: skip
    builder.prepare([*wanted, ("a", GPTQ)])
    assert model.passes == 2  # batches
    for name, scheme in wanted:
        builder.quantized(name, scheme)
    assert model.passes == 2
    builder.quantized("a", STATIC)
    assert model.passes == 4
    builder.quantized("a", BOS)
    builder.quantized("a", STATIC)
    assert model.passes == 6


def test_round_to_nearest_needs_no_pass() -> None:
    model, builder = build()
    builder.prepare(
        [("a", Scheme.parse("w4")), ("table", Scheme.parse("w2")), ("b", Scheme.parse("w8a8"))]
    )
    builder.quantized("a", Scheme.parse("w4"))
    assert model.passes == 0


def test_moments_beyond_the_limit_take_more_passes_and_change_nothing() -> None:
    model, builder = build(limit=8 * 8 * 4)
    builder.prepare([("a", GPTQ), ("b", GPTQ), ("a", STATIC)])
    assert model.passes == 4
    _, other = build()
    for name in ("a", "b"):
        assert torch.equal(
            builder.quantized(name, GPTQ).weight.codes, other.quantized(name, GPTQ).weight.codes
        )


def test_a_pair_does_not_depend_on_how_it_was_reached() -> None:
    _, one = build()
    model, two = build()
    one.prepare([(name, s) for name in ("a", "b") for s in (GPTQ, STATIC, BOS)])
    with applied(model, {"a": two.quantized("a", Scheme.parse("w2"))}):
        pass
    for scheme in (GPTQ, STATIC, BOS, Scheme.parse("w2z")):
        x, y = one.quantized("b", scheme), two.quantized("b", scheme)
        assert torch.equal(x.weight.codes, y.weight.codes)
        assert (x.input_scale is None) == (y.input_scale is None) == (scheme not in (STATIC, BOS))
        assert x.input_scale is None or torch.equal(x.input_scale, y.input_scale)  # type: ignore[arg-type]


def test_a_static_step_without_first_tokens_is_that_of_the_others() -> None:
    layer, x = nn.Linear(8, 4), torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(0))
    x[:, 0] *= 500
    model = nn.ModuleDict({"a": layer})
    whole = Builder(model, [layer_of("a", layer)], lambda: layer(x))
    others = Builder(model, [layer_of("a", layer)], lambda: layer(x[:, 1:]))
    step, plain = (whole.quantized("a", s).input_scale for s in (BOS, STATIC))
    expected = others.quantized("a", STATIC).input_scale
    assert step is not None
    assert plain is not None
    assert expected is not None
    assert torch.equal(step, expected)
    assert plain > 50 * step


@pytest.mark.parametrize("text", ["w8a8szo", "w4a8so"])
@pytest.mark.parametrize("six", [False, True])
def test_what_a_relu_lets_through_is_what_the_next_layer_reads(text: str, six: bool) -> None:
    """So both have the same grid, and a runtime need not leave it between them."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)
    model = nn.Sequential(first, nn.ReLU6(inplace=True) if six else nn.ReLU(inplace=True), second)
    x, scheme = (20 if six else 1) * torch.randn(5, 3, 9, 9), Scheme.parse(text)
    layers = {
        rectified: [
            replace(layer_of("0", first), rectified=rectified, ceiling=6.0 if six else 0.0),
            layer_of("2", second),
        ]
        for rectified in (False, True)
    }  # fmt: skip
    for rectified, given in layers.items():
        builder = Builder(model, given, lambda: model(x))
        builder.prepare([("0", scheme), ("2", scheme)])
        a, b = builder.quantized("0", scheme), builder.quantized("2", scheme)
        assert a.output_scale is not None
        assert b.input_scale is not None
        assert torch.equal(a.output_scale, b.input_scale) == rectified
        assert (a.output_zero == b.input_zero) == (rectified or scheme == Scheme.parse("w4a8so"))
        assert (a.output_zero == 0) == (rectified and text == "w8a8szo")
        if six and rectified and a.output_zero is not None:  # a graph's Clip has nothing to do
            assert 5.5 < float(a.output_scale * 255) <= 6


def test_same_as_quantizing_by_hand() -> None:
    model, builder = build()
    _, batches = net()
    stats = collect(model, ["b"], [], lambda: [model(x) for x in batches])["b"]
    expected = quantize(model.b.weight.detach(), GPTQ, stats)
    assert torch.equal(builder.quantized("b", GPTQ).weight.codes, expected.codes)


def test_statistics_are_refused_while_anything_is_quantized() -> None:
    model, builder = build()
    layer = builder.quantized("a", Scheme.parse("w2"))
    with applied(model, {"a": layer}):
        builder.quantized("b", Scheme.parse("w4"))  # needs none
        with pytest.raises(ModelError, match="while layer 'a' is quantized: prepare them before"):
            builder.quantized("b", GPTQ)


def test_tied_layers_are_quantized_once() -> None:
    _, builder = build()
    w4 = Scheme.parse("w4")
    table = builder.quantized("table", w4)
    assert builder.quantized("head", w4).weight is table.weight


def test_what_is_kept_is_quantized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, builder = build()
    w4 = Scheme.parse("w4")
    codes = builder.quantized("head", w4).weight.codes.clone()
    kept = builder.kept("head", w4).weight
    assert torch.equal(kept.codes, codes)
    del kept
    monkeypatch.setattr("bitfront.quant.build.quantize", None)  # would fail if it were called
    for weight in (builder.kept("table", w4).weight, builder.quantized("head", w4).weight):
        assert torch.equal(weight.codes, codes)


@pytest.mark.parametrize(
    ("name", "scheme", "reason"),
    [
        ("a", "w4g3", "'a' cannot take w4g3: group size 3 does not divide 8 inputs"),
        ("table", "w4a8", "indices"),
        ("table", "w4a8b", "indices"),
        ("table", "w4+gptq", "an embedding has none"),
        ("head", "w4+gptq", "'table' cannot take w4\\+gptq"),
        ("a", "nvfp4", "group size 16 does not divide 8 inputs"),
    ],
)
def test_unsuitable_pairs(name: str, scheme: str, reason: str) -> None:
    _, builder = build()
    for act in (builder.quantized, lambda n, s: builder.prepare([(n, s)])):
        with pytest.raises(SchemeError, match=reason):
            act(name, Scheme.parse(scheme))


def test_unknown_layers() -> None:
    _, builder = build()
    with pytest.raises(UnknownName, match="no layer named 'c'"):
        builder.quantized("c", GPTQ)


def test_weights_that_are_not_finite() -> None:
    model, builder = build()
    with torch.no_grad():
        model.b.weight[1, 2] = float("nan")
    with pytest.raises(ModelError, match="layer 'b' has weights that are not finite: repair"):
        builder.quantized("b", Scheme.parse("w4"))


def test_weights_beyond_a_format_name_layer_and_scheme() -> None:
    model, builder = build()
    with torch.no_grad():
        model.b.weight[1, 2] = 1e9
    with pytest.raises(SchemeError, match="layer 'b' under w4: weights as large as 1e\\+09"):
        builder.quantized("b", Scheme.parse("w4"))


def test_every_scheme_of_a_layer_is_finite() -> None:
    model, builder = build()
    _, batches = net()
    full = model(batches[0])
    for scheme in parse_schemes(
        "w2 w8 w4a4 w8a8s w8a8b w4a8sb w4g2a8g w3z w3g2+gptq:act bf16 fp16 fp8 keep"
    ):
        with applied(model, {"a": builder.quantized("a", scheme)}):
            y = model(batches[0])
        assert torch.isfinite(y).all()
        assert torch.equal(y, full) == (scheme.format == "keep")
