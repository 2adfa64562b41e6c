"""Schemes that quantize what attention caches: who takes them, what they cost and what they do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bitfront
from bitfront.errors import BudgetError, Infeasible, SchemeError
from bitfront.quant.activations import fake_cache
from bitfront.quant.build import Builder
from bitfront.quant.exporters import EXPORTERS
from bitfront.quant.suitability import takes
from bitfront.quant.surgery import applied
from bitfront.sensitivity.mse import output_errors
from bitfront.sensitivity.scores import LayerScores
from bitfront.tasks.kvcache import with_attention
from bitfront.types import Layer, Scheme
from tests import tiny

KEY = "model.layers.0.self_attn.k_proj"


def literal(y: Tensor, bits: int, head: int) -> Tensor:
    """Every token and head by itself."""
    out = y.clone()
    for token in out.reshape(-1, y.shape[-1]):
        for first in range(0, len(token), head):
            part = token[first : first + head]
            step = part.abs().max() / ((2**bits - 1) / 2)
            step = step if step > 0 else torch.tensor(torch.finfo(y.dtype).eps)
            part.copy_((part / step).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * step)
    return out


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_rounding_is_per_token_and_head(bits: int) -> None:
    y = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(bits))
    y[0, 1, 4:8] = 0
    y[1] *= 1000
    torch.testing.assert_close(fake_cache(y, bits, 4), literal(y, bits, 4), rtol=0, atol=0)


def test_keys_and_values_are_those_that_the_model_caches(tmp_path: Path) -> None:
    task = tiny.language_task(tmp_path)
    parts = {la.name.rpartition(".")[2]: (la.attention, la.head) for la in task.layers}
    assert parts["q_proj"] == ("query", 0)
    assert parts["k_proj"] == ("key", 4)
    assert parts["v_proj"] == ("value", 4)
    assert {parts[n] for n in ("o_proj", "gate_proj", "down_proj", "lm_head")} == {("", 0)}
    with torch.no_grad():
        cache = task.model(torch.ones(1, 7, dtype=torch.long), use_cache=True).past_key_values
    tensors = [t for layer in cache.layers for t in (layer.keys, layer.values)]
    assert all(t.shape == (1, 2, 7, 4) for t in tensors)
    stored = sum(t.numel() * t.element_size() for t in tensors) / 7
    with bitfront.open_study("s", task, tmp_path / "b.db") as study:
        costs = bitfront.cost(study, "w4 w4kv8 w4kv4", bitfront.Choices(container="safetensors"))
        assert costs.full["kv"] == stored
        totals = [
            costs.total(
                {n: s if "self_attn" in n and "o_proj" not in n else "w4" for n in costs.layers}
            )
            for s in costs.schemes
        ]
    # 4 projections of 8 outputs, 2 heads with a scale of 2 bytes each
    assert [t["kv"] for t in totals] == [stored, 4 * (8 + 4), 4 * (4 + 4)]


def test_who_takes_such_schemes() -> None:
    scheme = Scheme.parse("w4kv8")
    parts = {"query": True, "key": True, "value": True, "fused": False, "": False}
    for part, good in parts.items():
        layer = Layer(
            "a", "linear", 8, 8, attention=part, head=4 if part in ("key", "value") else 0
        )
        assert (takes(layer, scheme) is None) == good
        assert takes(layer, Scheme.parse("w4")) is None
    fused = Layer("a", "linear", 24, 8, attention="fused")
    assert takes(fused, scheme) == "kv is for keys and values, and its output holds queries too"
    key = Layer("a", "linear", 8, 8, attention="key", head=4)
    reason = EXPORTERS["compressed-tensors"].reason(key, scheme)
    assert reason == "this container's files say nothing of a cache; use safetensors"
    assert EXPORTERS["safetensors"].reason(key, scheme) is None


def test_what_is_no_whole_number_of_heads_is_left() -> None:
    class Attention(nn.Module):
        head_dim = 5

    model = nn.ModuleDict({"attn": Attention()})
    layers = (Layer("attn.k_proj", "linear", 12, 8), Layer("attn.c_attn", "hf_conv1d", 36, 12))
    found = with_attention(model, layers)
    assert [la.attention for la in found] == ["", "fused"]
    assert found[0] == layers[0]


def test_the_model_caches_rounded_keys_while_applied(tmp_path: Path) -> None:
    task = tiny.language_task(tmp_path)
    batch = task.calibration[0]
    builder = Builder(task.model, task.layers, lambda: task.outputs(batch))
    query = KEY.replace("k_proj", "q_proj")
    scheme = Scheme.parse("w8kv4")
    chosen = {name: builder.quantized(name, scheme) for name in (KEY, query)}
    plain = {name: builder.quantized(name, Scheme.parse("w8")) for name in (KEY, query)}
    seen: dict[str, Tensor] = {}

    def note(name: str):  # type: ignore[no-untyped-def]
        return lambda module, args, output: seen.__setitem__(name, output.detach().clone())

    def run(layers) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
        with torch.no_grad(), applied(task.model, layers):
            handles = [task.module(n).register_forward_hook(note(n)) for n in (KEY, query)]
            z = task.outputs(batch)
            for handle in handles:
                handle.remove()
        return {**seen, "z": z}

    before, after = run(plain), run(chosen)
    assert torch.equal(after[KEY], literal(before[KEY], 4, 4))
    assert torch.equal(after[query], before[query])
    assert not torch.equal(after["z"], before["z"])
    again = run(plain)
    assert torch.equal(again["z"], before["z"])


@pytest.mark.parametrize("base", [None, "w8kv6", "w4a8"])
@pytest.mark.parametrize("bias", [True, False])
def test_profilers_see_the_change_of_what_is_cached(base: str | None, bias: bool) -> None:
    """s and e against ΔY written out, from full precision and from a quantized layer."""
    torch.manual_seed(0)
    module = nn.Linear(6, 8, bias=bias)
    net = nn.Sequential(module)
    layer = Layer("0", "linear", 8, 6, attention="key", head=4)
    x, delta = torch.randn(3, 5, 6), torch.randn(3, 5, 8)
    builder = Builder(net, [layer], lambda: net(x))
    schemes = [Scheme.parse(s) for s in ("w4", "w4kv4", "w3a8kv8", "w8a8")]
    made = [builder.quantized("0", s) for s in schemes]
    now = builder.quantized("0", Scheme.parse(base)) if base else None

    def output(q) -> Tensor:  # type: ignore[no-untyped-def]
        with torch.no_grad(), applied(net, {} if q is None else {"0": q}):
            return net(x)

    scores = LayerScores("0", module, [*made, None], 3, 1, elementwise=1.0, base=now)
    with torch.no_grad():
        scores.add(0, x, delta)
    for c, q in enumerate([*made, None]):
        dY = output(q) - output(now)
        torch.testing.assert_close(
            scores.s[0, c].float(), (delta * dY).sum((1, 2)), rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(
            scores.e[0, c].float(), (delta * dY).square().sum((1, 2)), rtol=1e-4, atol=1e-5
        )


def test_the_error_of_outputs_includes_it(tmp_path: Path) -> None:
    task = tiny.language_task(tmp_path)
    batch = task.calibration[0]
    builder = Builder(task.model, task.layers, lambda: task.outputs(batch))
    made = [builder.quantized(KEY, Scheme.parse(s)) for s in ("w8", "w8kv4")]
    arrays = output_errors(task, batch, {KEY: made})
    outputs = []
    for q in (None, *made):
        with torch.no_grad(), applied(task.model, {} if q is None else {KEY: q}):
            handle = task.module(KEY).register_forward_hook(
                lambda m, a, y: outputs.append(y.clone())
            )
            task.outputs(batch)
            handle.remove()
    full, *others = outputs
    for column, y in enumerate(others):
        squares = (y - full).double().square().sum((1, 2)).numpy()
        np.testing.assert_allclose(arrays[f"error/{KEY}"][column], squares, rtol=1e-4)


def test_a_search_within_a_cache_and_its_export(tmp_path: Path) -> None:
    choices = bitfront.Choices(container="safetensors")
    with bitfront.open_study("s", tiny.language_task(tmp_path), tmp_path / "b.db") as study:
        schemes = "w4 w8 w4kv8 w8kv8 w8kv4"
        (answer,) = bitfront.search(study, schemes, ["35%kv", "6bpw"], choices=choices, explore=4)
        full = 4 * 8 * 4
        assert answer.trial.costs["kv"] <= 0.35 * full
        for name, scheme in answer.trial.schemes.items():
            if not any(p in name for p in ("q_proj", "k_proj", "v_proj")):
                assert "kv" not in scheme
        audit = bitfront.export(study, answer.trial, tmp_path / "out")
        assert audit.bytes == audit.predicted_bytes == answer.trial.costs["bytes"]
        model = bitfront.load(study.task.model, tmp_path / "out")
        assert model is study.task.model
        with pytest.raises(
            Infeasible, match="budget 10Bkv cannot be met, the least possible is 32Bkv"
        ):
            bitfront.search(study, schemes, ["10Bkv"], choices=choices)
        with pytest.raises(Infeasible, match=r"cannot take w4kv8: this container's files say noth"):
            bitfront.search(study, "w4 w4kv8", ["50%kv"])


def test_models_without_such_projections_say_so(tmp_path: Path) -> None:
    with bitfront.open_study("s", tiny.gpt2_task(tmp_path), tmp_path / "b.db") as study:
        with pytest.raises(BudgetError, match="limits kv, which is not counted here"):
            bitfront.search(study, "w4 w8", ["50%kv"])
        with pytest.raises(SchemeError, match=r"no layer can take w4kv8 .*holds queries too"):
            bitfront.profile(study, "w4kv8")
