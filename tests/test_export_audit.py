"""The audit: passes what is right, and names what is wrong, through the real fresh process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from bitfront import audit as auditing
from bitfront.audit import audit, compare, export
from bitfront.errors import ExportError
from bitfront.quant.export_compressed import CompressedTensors
from bitfront.quant.export_safetensors import Safetensors
from bitfront.quant.tensorfiles import read_header
from bitfront.quant.weights import QuantizedLayer, QuantizedWeight
from bitfront.tasks.base import Batch
from bitfront.types import Scheme
from tests import exporting as ex

PACKED, PLAIN = CompressedTensors(), Safetensors()
GATE, DOWN = (f"model.layers.1.mlp.{x}_proj" for x in ("gate", "down"))


@pytest.fixture
def llama() -> ex.LiveTask:
    return ex.LiveTask(
        ex.tiny_llama(), Batch((), {"input_ids": ex.token_ids(), "use_cache": False}, 2)
    )


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> ex.LiveTask:
    """A plain network; its fresh process is this one, with a task made anew all the same."""
    monkeypatch.setattr(auditing, "ask", lambda room, module: auditing.respond(room))
    monkeypatch.setattr(auditing, "from_recipe", lambda recipe: ex.odd_task(3))
    return ex.odd_task(0)


def exported(
    task: ex.LiveTask, exporter: Any, schemes: Mapping[str, Scheme], folder: Path, **options: Any
) -> Callable[[str], QuantizedLayer]:
    quantized = ex.quantized_by(task.model, schemes)
    exporter.write(task.model, task.layers, schemes, quantized, folder, {}, **options)
    return quantized


def test_language_model_in_a_fresh_process(llama: ex.LiveTask, tmp_path: Path) -> None:
    schemes = ex.mix(PACKED, llama.layers, 2)
    before = {name: tensor.clone() for name, tensor in llama.model.state_dict().items()}
    quantized = ex.quantized_by(llama.model, schemes)
    found = export(llama, PACKED, llama.layers, schemes, quantized, tmp_path / "out", {})
    assert found.ok
    assert found.max_difference == 0.0
    assert found.bytes == found.predicted_bytes
    assert found.spread > 0
    assert (tmp_path / "out" / "config.json").exists()
    for name, tensor in llama.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_an_export_that_fails_does_not_appear(llama: ex.LiveTask, tmp_path: Path) -> None:
    """The quantizer gives another answer the second time: the export is not what was measured."""
    schemes = {GATE: Scheme.parse("w4"), DOWN: Scheme.parse("w3")}
    made = ex.quantized_by(llama.model, schemes)
    calls: list[str] = []

    def fickle(name: str) -> QuantizedLayer:
        calls.append(name)
        layer = made(name)
        if name == DOWN and calls.count(name) > 1:
            return wrong_scale(layer)
        return layer

    with pytest.raises(
        ExportError, match=rf"weights of layer '{DOWN}' differ by up to 0\."
    ) as caught:
        export(llama, PACKED, llama.layers, schemes, fickle, tmp_path / "out", {})
    assert GATE not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def wrong_scale(layer: QuantizedLayer) -> QuantizedLayer:
    q = layer.weight
    assert q.scale is not None
    scale = q.scale.clone()
    scale[0] *= 1.01
    return QuantizedLayer(QuantizedWeight(q.scheme, q.codes, scale), layer.input_scale)


def test_another_models_config(
    llama: ex.LiveTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schemes = {GATE: Scheme.parse("w4")}
    quantized = exported(llama, PACKED, schemes, tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "num_hidden_layers": 5, "hidden_size": 64}))
    with pytest.raises(ExportError, match="does not open"):
        audit(llama, PACKED, tmp_path / "out", llama.layers, schemes, quantized)

    # the same shapes, other arithmetic: only the outputs can tell
    path.write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    monkeypatch.setattr(auditing, "ask", lambda room, module: auditing.respond(room))
    found = compare(llama, PACKED, tmp_path / "out", llama.layers, schemes, quantized)
    assert "outputs differ by up to" in found.failures[0]
    assert "the first layer to differ is 'model.layers.0.self_attn.q_proj'" in found.failures[0]


def test_plain_network_in_a_fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    kind = "from bitfront.tasks import TASKS\nTASKS['odd'] = 'tests.exporting:odd_task'\n"
    (site / "sitecustomize.py").write_text(kind)
    monkeypatch.syspath_prepend(str(site))
    task = ex.odd_task()
    schemes = ex.mix(PLAIN, task.layers, 8)
    quantized = ex.quantized_by(task.model, schemes)
    found = export(task, PLAIN, task.layers, schemes, quantized, tmp_path / "out", {})
    assert found.max_difference == 0.0
    assert found.bytes == found.predicted_bytes


def test_plain_network(odd: ex.LiveTask, tmp_path: Path) -> None:
    schemes = ex.mix(PLAIN, odd.layers, 7)
    quantized = exported(odd, PLAIN, schemes, tmp_path / "out")
    found = audit(odd, PLAIN, tmp_path / "out", odd.layers, schemes, quantized)
    assert found.max_difference == 0.0
    assert found.bytes == found.predicted_bytes


def flipped(folder: Path, schemes: dict[str, Scheme]) -> str:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(bytes(data))
    return "is damaged"


def lost_shard(folder: Path, schemes: dict[str, Scheme]) -> str:
    shard = sorted(folder.glob("model-*.safetensors"))[-1]
    shard.unlink()
    return f"{shard.name} is missing"


def scheme_not_measured(folder: Path, schemes: dict[str, Scheme]) -> str:
    schemes["narrow"] = Scheme.parse("w3")
    return r"bytes of tensors where .* were predicted; weights of layer 'narrow' differ"


def no_activation(folder: Path, schemes: dict[str, Scheme]) -> str:
    schemes["mix"] = Scheme.parse("w8a4")
    return "outputs differ by up to .* the first layer to differ is 'mix'"


@pytest.mark.parametrize("damage", [flipped, lost_shard, scheme_not_measured, no_activation])
def test_what_is_wrong_is_named(
    odd: ex.LiveTask, tmp_path: Path, damage: Callable[[Path, dict[str, Scheme]], str]
) -> None:
    schemes = {"narrow": Scheme.parse("w4"), "mix": Scheme.parse("w8a8")}
    options = {"shard_bytes": 4_000} if damage is lost_shard else {}
    exported(odd, PLAIN, schemes, tmp_path / "out", **options)
    message = damage(tmp_path / "out", schemes)
    quantized = ex.quantized_by(odd.model, schemes)
    with pytest.raises(ExportError, match=message) as caught:
        audit(odd, PLAIN, tmp_path / "out", odd.layers, schemes, quantized)
    assert "\n" not in str(caught.value)


def test_other_data_in_the_task_made_anew(
    odd: ex.LiveTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantized = exported(odd, PLAIN, {}, tmp_path / "out")
    other = ex.odd_task(3)
    other.evaluation[0].args[0].add_(1)
    monkeypatch.setattr(auditing, "from_recipe", lambda recipe: other)
    found = compare(odd, PLAIN, tmp_path / "out", odd.layers, {}, quantized)
    assert "another first evaluation batch" in found.failures[0]


def test_a_damaged_scale_is_found_by_its_weights(odd: ex.LiveTask, tmp_path: Path) -> None:
    """An exporter that wrote a wrong scale, with digests to match."""
    schemes = {"narrow": Scheme.parse("w4")}
    made = ex.quantized_by(odd.model, schemes)
    PLAIN.write(
        odd.model, odd.layers, schemes, lambda name: wrong_scale(made(name)), tmp_path / "out", {}
    )
    assert "narrow.weight_scale" in read_header(tmp_path / "out" / "model.safetensors")
    found = compare(odd, PLAIN, tmp_path / "out", odd.layers, schemes, made)
    assert found.failures[0].startswith("weights of layer 'narrow' differ by up to")
