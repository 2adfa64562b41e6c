"""Float formats and activations in compressed-tensors, with those of integers in one checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from bitfront.audit import Audit, export
from bitfront.quant.build import Builder
from bitfront.quant.export_compressed import CompressedTensors
from bitfront.quant.surgery import applied
from bitfront.quant.weights import QuantizedLayer
from bitfront.tasks.base import Batch
from bitfront.types import Layer, Scheme
from tests import exporting as ex

EXPORTER = CompressedTensors()
INTEGERS = "w4g32 w2g32 w3 w8 w8a8 w8a8s w4a8"
FLOATS = "fp8 fp8a8 fp8a8s nvfp4 nvfp4a4 mxfp4 mxfp4a4 mxfp8 mxfp8a8"
IDS = torch.randint(0, 96, (2, 40), generator=torch.Generator().manual_seed(1))
MIXED = tuple(map(Scheme.parse, f"{INTEGERS} {FLOATS}".split()))


def wide_llama() -> Any:
    """Widths that 16 and 32 divide; random weights."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=96, hidden_size=128, intermediate_size=352, num_hidden_layers=3,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=128,
        tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def turns(layers: Sequence[Layer], pool: Sequence[Scheme]) -> dict[str, Scheme]:
    """The schemes of ``pool`` by turns, each where it can be."""
    schemes: dict[str, Scheme] = {}
    waiting = list(pool)
    for layer in layers:
        able = next((s for s in waiting if EXPORTER.reason(layer, s) is None), None)
        if able is not None:
            schemes[layer.name] = able
            waiting.remove(able)
            waiting.append(able)
    return schemes


def audited(model: Any, ids: torch.Tensor, schemes: dict[str, Scheme], folder: Path) -> Audit:
    """Calibrated on ``ids``, exported, opened in a fresh process."""
    task = task_of(model, ids)
    return export(
        task, EXPORTER, task.layers, schemes, calibrated(task, schemes), folder, {},
    )  # fmt: skip


def task_of(model: Any, ids: torch.Tensor) -> ex.LiveTask:
    return ex.LiveTask(model, Batch((), {"input_ids": ids, "use_cache": False}, len(ids)))


def calibrated(task: ex.LiveTask, schemes: dict[str, Scheme]) -> Callable[[str], QuantizedLayer]:
    builder = Builder(task.model, task.layers, lambda: task.outputs(task.calibration[0]))
    builder.prepare(schemes.items())
    return lambda name: builder.quantized(name, schemes[name])


def check(found: Audit) -> None:
    assert found.ok
    assert found.max_difference == 0.0
    assert found.bytes == found.predicted_bytes
    assert found.spread > 0


@pytest.mark.parametrize("text", FLOATS.split())
def test_each_alone(text: str, tmp_path: Path) -> None:
    model = wide_llama()
    schemes = {
        layer.name: Scheme.parse(text)
        for layer in ex.layers_of(model)
        if EXPORTER.reason(layer, Scheme.parse(text)) is None
    }
    assert len(schemes) == 22  # 7 in each of 3 blocks, and the head
    task = task_of(model, IDS)
    quantized = calibrated(task, schemes)
    EXPORTER.write(model, task.layers, schemes, quantized, tmp_path / "out", {})
    with torch.no_grad():
        full = task.outputs(task.calibration[0])
        with applied(model, {name: quantized(name) for name in schemes}):
            expected = task.outputs(task.calibration[0])
        opened = EXPORTER.open(tmp_path / "out")(IDS).logits
    assert torch.equal(opened, expected)
    assert not torch.equal(opened, full)


def test_all_in_one_checkpoint(tmp_path: Path) -> None:
    model = wide_llama()
    schemes = turns(ex.layers_of(model), MIXED)
    assert set(schemes.values()) == set(MIXED)
    check(audited(model, IDS, schemes, tmp_path / "out"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_real_llama(dtype: torch.dtype, assets: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    source = assets / "stories260K_llama"
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype).eval()
    layers = ex.layers_of(model)
    schemes = turns(layers, MIXED)
    blocks = {"nvfp4", "mxfp4", "mxfp8"}
    possible = {s for s in MIXED if dtype == torch.bfloat16 or s.format not in blocks}
    assert set(schemes.values()) == possible
    ids = torch.arange(2, 402).reshape(2, 200)
    check(audited(model, ids, schemes, tmp_path / "out"))
