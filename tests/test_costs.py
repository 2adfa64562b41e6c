"""Costs counted by hand, and against the tensors of a real module."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import nn

from bitfront.budget import Budget
from bitfront.errors import ProblemError
from bitfront.quant.costs import cost_tables, layer_costs, other_bytes
from bitfront.quant.exporters import EXPORTERS, Exporter
from bitfront.quant.quantizers import quantize
from bitfront.types import Layer, Scheme, parse_schemes
from tests.modules import with_made_up_grids

SCHEMES = parse_schemes("w4g32 w8a8 w3 keep w4g32+gptq")


def stored(layer: Layer, scheme: Scheme) -> Mapping[str, tuple[str, tuple[int, ...]]]:
    """A container with bytes of bits and 16-bit scales."""
    if scheme.format == "keep":
        return {"weight": ("F32" if layer.dtype == "float32" else "F16", (layer.rows, layer.cols))}
    groups = layer.cols // (scheme.group or layer.cols)
    return {
        "packed": ("U8", (layer.rows, math.ceil(layer.cols * scheme.bits / 8))),
        "scale": ("F16", (layer.rows, groups)),
    }


EMBED = Layer("embed", "embedding", 100, 32, role="embedding")
BODY = Layer("body", "linear", 16, 32, bias=16, macs=5 * 512)
ODD = Layer("odd", "conv2d", 8, 27, bias=8, macs=216 * 9, dtype="float16")
HEAD = Layer("head", "linear", 100, 32, macs=5 * 3200, role="head", shares="embed")


def test_by_hand() -> None:
    costs = cost_tables([BODY, ODD], SCHEMES, stored, other_bytes=1000)
    body, odd = 0, 1
    w4, w8a8, w3, keep = range(4)
    t = costs.tables
    assert t["bytes"][body].tolist() == [256 + 32, 512 + 32, 192 + 32, 2048, 256 + 32]
    assert t["stored_bits"][body, w4] == 8 * 288
    assert t["bits"][body].tolist() == [2048, 4096, 1536, 16384, 2048]
    assert t["bops"][body, w4] == 4 * 32 * 2560
    assert t["bops"][body, w8a8] == 8 * 8 * 2560
    assert t["bops"][body, keep] == 32 * 32 * 2560
    assert t["bytes"][odd, keep] == 432
    assert t["bits"][odd, keep] == 16 * 216
    assert t["bops"][odd, w3] == 3 * 16 * 216 * 9
    for table in t.values():
        assert [math.isnan(x) for x in table[odd]] == [True, False, False, False, True]
    assert costs.reasons["odd", "w4g32"] == "group size 32 does not divide 27 inputs"
    assert set(costs.reasons) == {("odd", "w4g32"), ("odd", "w4g32+gptq")}
    assert costs.weights == 512 + 216
    assert costs.fixed == {"bytes": 1000, "bops": 0, "bits": 0, "stored_bits": 0}
    assert costs.full["bytes"] == 2048 + 432 + 1000
    assert costs.full["bits"] == 16384 + 3456
    assert costs.total({"body": "w3", "odd": "w8a8"})["bytes"] == 224 + (8 * 27 + 16) + 1000


def test_average_bits_of_a_group_scheme_count_only_weights_or_scales_too() -> None:
    costs = cost_tables([BODY], SCHEMES[:1], stored, 0)
    assert costs.total({"body": "w4g32"})["bits"] / costs.weights == 4.0
    assert costs.total({"body": "w4g32"})["stored_bits"] / costs.weights == 4.5
    assert Budget.parse("4bpw").limit(costs.full, costs.weights) == costs.tables["bits"][0, 0]
    assert (
        Budget.parse("4.5ebpw").limit(costs.full, costs.weights)
        == costs.tables["stored_bits"][0, 0]
    )


def test_denominators() -> None:
    allocated = cost_tables([BODY], SCHEMES, stored, 10, kept=[EMBED, HEAD])
    everything = cost_tables([BODY], SCHEMES, stored, 10, kept=[EMBED, HEAD], average_over="all")
    assert allocated.weights == 512
    assert everything.weights == 512 + 3200  # the tied head is no weight of its own
    assert allocated.fixed["bits"] == allocated.fixed["stored_bits"] == 0
    assert everything.fixed["bits"] == everything.fixed["stored_bits"] == 32 * 3200
    for costs in (allocated, everything):
        assert costs.fixed["bytes"] == 10 + 4 * 3200
        assert costs.fixed["bops"] == 32 * 32 * HEAD.macs
        assert costs.full["bytes"] == 10 + 4 * 3200 + 2048


def test_tied_layers_are_counted_where_they_are_owned() -> None:
    costs = cost_tables([EMBED, BODY, HEAD], SCHEMES, stored, 0)
    head = costs.tables
    for resource in ("bytes", "bits", "stored_bits"):
        assert head[resource][2, 2] == head[resource][2, 3] == 0
    assert head["bops"][2, 2] == 3 * 32 * HEAD.macs
    assert costs.weights == 3200 + 512
    # what the owner cannot take, the tied layer cannot take
    assert "indices" in costs.reasons["head", "w8a8"]
    assert "embedding has none" in costs.reasons["head", "w4g32+gptq"]
    with pytest.raises(
        ProblemError, match="'head' uses the weight of 'embed', which is not counted"
    ):
        cost_tables([HEAD], SCHEMES, stored, 0)


class Odds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 10)
        self.head.weight = self.embed.weight
        self.norm = nn.LayerNorm(4)
        self.tied_norm = nn.LayerNorm(4)
        self.tied_norm.weight = self.norm.weight
        steps = torch.zeros(3, dtype=torch.int64)
        self.register_buffer("kept", steps)
        self.register_buffer("same", steps)
        self.register_buffer("gone", torch.zeros(99), persistent=False)


def test_other_bytes() -> None:
    layers = [
        Layer("embed", "embedding", 10, 4),
        Layer("body", "linear", 4, 4, bias=4),
        Layer("head", "linear", 10, 4, bias=10, shares="embed"),
    ]
    model = Odds()
    # biases 4 + 10, norm weight once and two biases, one buffer of 8-byte integers once
    assert other_bytes(model, layers) == 4 * (4 + 10 + 4 + 4 + 4) + 3 * 8
    assert other_bytes(model, layers[:1]) == other_bytes(model, layers) + 4 * 16
    assert other_bytes(model.bfloat16(), layers) == 2 * 26 + 24


@pytest.mark.parametrize("name", ["safetensors", "compressed-tensors"])
@pytest.mark.parametrize(
    "scheme",
    parse_schemes(
        "w2 w3g8 w4 w5g16 w8 w8a8 w8a8s w8a8sb w8a8sz w4a8so w8a8szo w4g8a8g w3z fp8 mxfp4 keep"
    ),
)
def test_predicted_bytes_are_those_of_the_packed_tensors(name: str, scheme: Scheme) -> None:
    exporter = EXPORTERS[name]
    assert isinstance(exporter, Exporter)
    layer = Layer("a", "linear", 24, 64, macs=1)
    if scheme.format == "keep" or exporter.reason(layer, scheme) is not None:
        return
    weight = quantize(torch.randn(24, 64, generator=torch.Generator().manual_seed(0)), scheme)
    packed = exporter.pack(layer, with_made_up_grids(weight))
    size = sum(t.numel() * t.element_size() for t in packed.values())
    assert layer_costs(layer, scheme, exporter.stored)["bytes"] == size
