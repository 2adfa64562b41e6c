"""Recipes given to the tools themselves, where these are installed; compressed-tensors always is.

Each tool quantizes a small network whose layers have names that are prefixes of others, or are full
of what means something in patterns; then every layer is looked at.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from compressed_tensors.utils import match_named_modules
from torch import Tensor, nn

from bitfront.recipes import RECIPES
from bitfront.types import Layer, Scheme
from tests import oracles

NAMES = (
    "layers.1", "layers.10", "layers.11.up", "layers.1.up", "xlayers.1", "a[0].b", "a0.b", "a*.b",
    "ab.b", "a?.b", "a+b.c", "aab.c", "(a|b).c", "a.c", "re:a", "Linear", "1", "10", "$.^",
)  # fmt: skip
SCHEMES = {
    "torchao": ("w4g32", "keep", "w3g16", "w8", "w2g32z", "w5", "fp8", "nvfp4", "w8a8"),
    "llm-compressor": (
        "w4g32", "keep", "w3g16z", "w8a8", "w8a8s", "w4g32a8", "fp8", "nvfp4", "mxfp4",
        "w4g32+gptq", "w4+gptq:act",
    ),
    "modelopt": ("w4g32", "keep", "w3", "w8a8", "w8a8s", "w4g16a4", "w5", "w6g32"),
}  # fmt: skip


class Net(nn.Module):
    """Linear layers side by side, under the odd names, and a convolution that no scheme is for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name in NAMES:
            at: nn.Module = self
            *parents, last = name.split(".")
            for parent in parents:
                if parent not in at._modules:
                    at.add_module(parent, Holder())
                at = at._modules[parent] or at
            at.add_module(last, Holder(64, 48))
        self.conv = nn.Conv1d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, T, 64)."""
        found = [m(x) for m in self.modules() if isinstance(m, nn.Linear)]
        return torch.stack(found).sum(0)


class Holder(nn.Linear):
    """A Linear that may have children, or is only there for these."""

    def __init__(self, cols: int = 64, rows: int = 48) -> None:
        super().__init__(cols, rows)


def allocated(tool: str) -> tuple[str, dict[str, Scheme]]:
    """A recipe that keeps some layers, and the schemes of all of them."""
    layers = [Layer(n, "linear", 48, 64) for n, _ in linears(Net())]
    texts = SCHEMES[tool]
    schemes = {la.name: Scheme.parse(texts[i % len(texts)]) for i, la in enumerate(layers)}
    return RECIPES[tool].text([*layers, Layer("conv", "conv1d", 4, 9)], schemes), schemes


def linears(net: nn.Module) -> list[tuple[str, Any]]:
    return [(name, m) for name, m in net.named_modules() if isinstance(m, nn.Linear)]


def is_plain(module: Any, name: str) -> bool:
    before = dict(linears(Net()))[name].weight
    return type(module.weight.data) is Tensor and torch.equal(module.weight, before)


def levels(weight: Tensor, group: int | None) -> int:
    """The most different values that a group of a weight has."""
    return max(len(row.unique()) for row in weight.detach().reshape(-1, group or weight.shape[1]))


def check_compressed(module: Any, scheme: Scheme) -> None:
    """That compressed-tensors would make ``scheme`` of a module."""
    weights = module.quantization_scheme.weights
    inputs = module.quantization_scheme.input_activations
    assert weights.num_bits == scheme.bits
    assert weights.type == ("int" if scheme.format == "int" else "float")
    assert (weights.group_size or None) == scheme.group
    assert weights.symmetric == scheme.symmetric
    assert (inputs is None) == (scheme.activation is None)
    if scheme.activation is not None:
        assert (inputs.num_bits, inputs.symmetric) == (scheme.activation.bits, True)
        assert inputs.dynamic != scheme.activation.static
        assert inputs.strategy == ("tensor" if scheme.activation.static else "token")
    assert module.weight_scale.shape == (48, 64 // (scheme.group or 64))


def test_compressed_tensors_finds_the_layers() -> None:
    text, schemes = allocated("llm-compressor")
    net = Net()
    seen: dict[str, str] = {}
    for group in yaml.safe_load(text)["default_stage"].values():
        for words in group.values():
            for spelled, config in words["config_groups"].items():
                matched = match_named_modules(net, config["targets"], words["ignore"])
                seen |= {name: spelled for name, _ in matched}
                for args in (config["weights"], config.get("input_activations", {})):
                    args.pop("observer", None)
            settings = {"config_groups": words["config_groups"], "ignore": words["ignore"]}
            apply_quantization_config(net, QuantizationConfig.model_validate(settings))
    assert seen == {name: str(s) for name, s in schemes.items() if str(s) != "keep"}
    for name, module in linears(net):
        if name in seen:
            check_compressed(module, schemes[name])
        else:
            assert not hasattr(module, "quantization_scheme")
    assert not hasattr(net.conv, "quantization_scheme")


@pytest.mark.filterwarnings("ignore")
def test_llm_compressor_reads_the_recipe(tmp_path: Path) -> None:
    [recipes] = oracles.tools("llmcompressor.recipe")
    text, schemes = allocated("llm-compressor")
    (tmp_path / "recipe.yaml").write_text(text)
    found = recipes.Recipe.create_instance(str(tmp_path / "recipe.yaml"))
    net = Net()
    for modifier in found.modifiers:
        modifier.initialize_quantization(net)
    kinds = [(type(m).__name__, getattr(m, "actorder", None)) for m in found.modifiers]
    assert kinds == [
        ("QuantizationModifier", None), ("GPTQModifier", None), ("GPTQModifier", "static"),
    ]  # fmt: skip
    for name, module in linears(net):
        if str(schemes[name]) == "keep":
            assert not hasattr(module, "quantization_scheme")
        else:
            check_compressed(module, schemes[name])
            order = module.quantization_scheme.weights.actorder
            assert order == ("static" if schemes[name].quantizer == "gptq:act" else None)


@pytest.mark.filterwarnings("ignore")
def test_torchao_quantizes_by_the_recipe() -> None:
    quantization, config = oracles.tools("torchao.quantization", "torchao.core.config")
    text, schemes = allocated("torchao")
    net = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization.quantize_(net, config.config_from_dict(json.loads(text)), filter_fn=None)
    kinds = {"fp8": "Float8Tensor", "nvfp4": "NVFP4Tensor", "w8a8": "Int8Tensor"}
    for name, module in linears(net):
        scheme, weight = schemes[name], module.weight
        if str(scheme) == "keep":
            assert is_plain(module, name)
        elif str(scheme) in kinds:
            assert type(weight.data).__name__ == kinds[str(scheme)]
        else:
            assert weight.target_dtype == getattr(torch, f"int{scheme.bits}")
            assert tuple(weight.block_size) == (1, scheme.group or 64)
            assert weight.qdata.min() >= -(2 ** (scheme.bits - 1))
            assert weight.qdata.max() <= 2 ** (scheme.bits - 1) - 1
            assert bool(weight.zero_point.any()) == (not scheme.symmetric)
            assert levels(weight.qdata, scheme.group) > 2 ** (scheme.bits - 1) or scheme.bits > 4
    assert type(net.conv.weight.data) is Tensor


@pytest.mark.filterwarnings("ignore")
def test_modelopt_quantizes_by_the_recipe(tmp_path: Path) -> None:
    recipes, mtq = oracles.tools("modelopt.recipe", "modelopt.torch.quantization")
    text, schemes = allocated("modelopt")
    (tmp_path / "recipe.yaml").write_text(text)
    settings = recipes.load_recipe(str(tmp_path / "recipe.yaml")).quantize
    net = mtq.quantize(Net(), settings, lambda model: model(torch.randn(2, 5, 64)))
    for name, module in linears(net):
        scheme, weights, inputs = schemes[name], module.weight_quantizer, module.input_quantizer
        kept = str(scheme) == "keep"
        assert weights.is_enabled != kept, name
        assert inputs.is_enabled == (scheme.activation is not None), name
        assert not module.output_quantizer.is_enabled
        if not kept:
            assert weights.num_bits == scheme.bits
            assert (weights.block_sizes or {}).get(-1) == scheme.group
            rows = weights(module.weight).reshape(-1, scheme.group or 64)
            codes = (rows / weights.amax.reshape(-1, 1)).round(decimals=4)
            assert levels(codes, None) <= 2**scheme.bits
            assert scheme.bits > 4 or levels(codes, None) > 2 ** (scheme.bits - 1)
        if scheme.activation is not None:
            assert inputs.num_bits == scheme.activation.bits
            assert inputs._dynamic != scheme.activation.static
    assert not net.conv.weight_quantizer.is_enabled
