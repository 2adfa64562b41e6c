"""compressed-tensors folders: what stands in them, what is refused, and the package as oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.format import infer_module_format
from compressed_tensors.quantization import QuantizationConfig, preset_name_to_scheme
from safetensors.torch import load_file
from torch import nn

from bitfront.errors import ExportError
from bitfront.quant.export_compressed import CompressedTensors, quantization_config, vllm_notes
from bitfront.quant.exporters import predicted_bytes, tensor_bytes
from bitfront.quant.formats import dequantize
from bitfront.quant.surgery import applied
from bitfront.types import Layer, Scheme
from tests import exporting as ex

EXPORTER = CompressedTensors()
TEXTS = "w2 w3 w4 w5 w6 w7 w8 w2g4 w3g16 w5g8 w8a8 w8a8s w4a8 w3g8a6 fp8 fp8a8 fp8a8s"
BLOCKS = "nvfp4 nvfp4a4 mxfp4 mxfp4a4 mxfp8 mxfp8a8"  # of bfloat16 models
Q, K, V, O = (f"model.layers.0.self_attn.{x}_proj" for x in "qkvo")
GATE, UP, DOWN = (f"model.layers.0.mlp.{x}_proj" for x in ("gate", "up", "down"))


def parsed(**schemes: str) -> dict[str, Scheme]:
    return {globals()[name]: Scheme.parse(text) for name, text in schemes.items()}


def write(model: Any, schemes: dict[str, Scheme], folder: Path) -> None:
    EXPORTER.write(model, ex.layers_of(model), schemes, ex.quantized_by(model, schemes), folder, {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_package_decompresses_to_our_weights(dtype: torch.dtype, tmp_path: Path) -> None:
    """Every width and format, through compressed-tensors' own functions, to the bit."""
    model = ex.tiny_llama(dtype=dtype)
    for text in (TEXTS + f" {BLOCKS}" * (dtype == torch.bfloat16)).split():
        schemes = {Q: Scheme.parse(text)}
        write(model, schemes, tmp_path / text)
        config = json.loads((tmp_path / text / "config.json").read_text())["quantization_config"]
        group = QuantizationConfig.model_validate(config).config_groups["group_0"]
        assert not isinstance(group, list)
        compressor = BaseCompressor.get_value_from_registry(str(group.format))
        tensors = load_file(tmp_path / text / "model.safetensors")
        local = {name[len(Q) + 1 :]: t for name, t in tensors.items() if name.startswith(Q + ".")}
        assert set(local) == set(EXPORTER.stored(layer(model, Q), schemes[Q]))
        if dtype == torch.float32:  # as from_pretrained casts them
            local["weight_scale"] = local["weight_scale"].float()
        found = compressor.decompress(local, group)["weight"]
        expected = dequantize(ex.quantized_by(model, schemes)(Q).weight, dtype)
        assert found.dtype == dtype
        assert torch.equal(found, expected), text


def layer(model: nn.Module, name: str) -> Layer:
    return next(layer for layer in ex.layers_of(model) if layer.name == name)


def test_config_groups_and_ignore_list() -> None:
    model = ex.tiny_llama()
    schemes = parsed(Q="w4g8", K="w4g8+gptq", V="w8a8", GATE="bf16", DOWN="keep")
    config = quantization_config(model, schemes)
    assert config is not None
    groups = config["config_groups"]
    assert [group["targets"] for group in groups.values()] == [[Q, K], [V]]
    assert [group["format"] for group in groups.values()] == ["pack-quantized", "int-quantized"]
    assert config["format"] == "mixed-precision"
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert set(config["ignore"]) == linear - {Q, K, V}
    assert quantization_config(model, parsed(GATE="bf16", DOWN="keep")) is None


@pytest.mark.parametrize(
    ("scheme", "reason"),
    [
        ("w4z", "fail to load zero points"),
        ("w8a8b", "every token alike; use schemes without b"),
        ("w8a8sb", "every token alike; use schemes without b"),
        ("w8g4a8g", "one step for a token; use activations without g"),
        ("mxfp4", "gives mxfp4 weights in bfloat16, and it is float32"),
        ("nvfp4a4", "gives nvfp4 weights in bfloat16, and it is float32"),
        ("mxfp8", "gives mxfp8 weights in bfloat16, and it is float32"),
        ("w4g3", "group size 3 does not divide 32"),
    ],
)
def test_schemes_it_cannot_hold(scheme: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=reason):
        write(ex.tiny_llama(), {Q: Scheme.parse(scheme)}, tmp_path / "out")


def test_layers_it_cannot_hold(tmp_path: Path) -> None:
    w4 = Scheme.parse("w4")
    with pytest.raises(ExportError, match="Linear layers only, not a embedding"):
        write(ex.tiny_llama(False), {"model.embed_tokens": w4}, tmp_path / "out")
    with pytest.raises(ExportError, match="Linear layers only, not a hf_conv1d"):
        write(ex.tiny_gpt2(), {"transformer.h.0.mlp.c_fc": w4}, tmp_path / "out")
    tied = {"model.embed_tokens": ex.KEEP, "lm_head": w4}
    with pytest.raises(ExportError, match=r"tied to 'model\.embed_tokens'"):
        write(ex.tiny_llama(), tied, tmp_path / "out")


def test_models_it_cannot_hold(tmp_path: Path) -> None:
    from transformers import LlamaModel

    for model, reason in [
        (ex.odd_net(), "causal language models"),
        (LlamaModel(ex.tiny_llama().config), "would not load its class"),
    ]:
        with pytest.raises(ExportError, match=reason):
            EXPORTER.write(model, (), {}, ex.quantized_by(model, {}), tmp_path / "out", {})
    model = ex.tiny_llama()
    model.config.quantization_config = {"quant_method": "gptq"}
    with pytest.raises(ExportError, match="quantized already"):
        write(model, {}, tmp_path / "out")


def test_an_untied_head_can_be_quantized(tmp_path: Path) -> None:
    model, schemes = ex.tiny_llama(False), {"lm_head": Scheme.parse("w4g8")}
    write(model, schemes, tmp_path / "out")
    quantized = ex.quantized_by(model, schemes)("lm_head")
    with torch.no_grad(), applied(model, {"lm_head": quantized}):
        expected = model(ex.token_ids()).logits
    with torch.no_grad():
        assert torch.equal(EXPORTER.open(tmp_path / "out")(ex.token_ids()).logits, expected)


def test_loads_offline_with_its_own_dtype(tmp_path: Path) -> None:
    write(ex.tiny_llama(dtype=torch.bfloat16), parsed(Q="w4", O="fp16"), tmp_path / "out")
    opened: Any = EXPORTER.open(tmp_path / "out")
    assert opened.dtype == torch.bfloat16


def test_vllm_notes() -> None:
    assert vllm_notes(parsed(Q="w4", K="w4", V="w4+gptq", GATE="w8", UP="w8", DOWN="keep")) == []
    notes = vllm_notes(parsed(Q="w4", K="w4", V="w3", GATE="keep", UP="w8", DOWN="w6a8"))
    assert len(notes) == 4
    assert "model.layers.0.self_attn" in notes[0]
    assert "q_proj w4, k_proj w4, v_proj w3" in notes[0]
    assert "model.layers.0.mlp" in notes[1]
    assert notes[2].startswith("w3: ")
    assert notes[3].startswith("w6a8: ")


def test_vllm_notes_of_floats() -> None:
    assert vllm_notes(parsed(Q="fp8", K="fp8", V="fp8", O="nvfp4", DOWN="mxfp8a8")) == []
    notes = vllm_notes(parsed(Q="nvfp4a4", K="nvfp4a4", V="nvfp4a4", GATE="mxfp4", UP="mxfp4"))
    assert len(notes) == 3
    assert "largest of their global scales" in notes[0]
    assert notes[1].startswith("nvfp4a4: inputs stay as they are")
    assert notes[2].startswith("mxfp4: vLLM rounds inputs too")
    assert [note.split(":")[0] for note in vllm_notes(parsed(O="fp8a8s", DOWN="mxfp8"))] == [
        "fp8a8s",
        "mxfp8",
    ]


def test_a_config_group_of_each_float() -> None:
    """The words of compressed-tensors' own presets, as far as they say how to load."""
    model = ex.tiny_llama(dtype=torch.bfloat16)
    names = {"fp8a8": "FP8_DYNAMIC", "nvfp4": "NVFP4A16", "nvfp4a4": "NVFP4", "mxfp4": "MXFP4A16",
             "mxfp4a4": "MXFP4", "mxfp8": "MXFP8A16", "mxfp8a8": "MXFP8"}  # fmt: skip
    for text, preset in names.items():
        config = quantization_config(model, parsed(Q=text))
        group = QuantizationConfig.model_validate(config).config_groups["group_0"]
        theirs = preset_name_to_scheme(preset, [Q])
        for part in ("weights", "input_activations"):
            ours, expected = getattr(group, part), getattr(theirs, part)
            assert (ours is None) == (expected is None), text
            if ours is not None:
                skipped = {"observer", "observer_kwargs"}
                assert ours.model_dump(exclude=skipped) == expected.model_dump(exclude=skipped)
        assert infer_module_format(nn.Linear, theirs) == group.format


def test_the_real_llama(assets: Path, tmp_path: Path) -> None:
    """2, 3, 4 and 8 bits in groups of 32, some layers kept: plain ``from_pretrained``, 0.0 off."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = assets / "stories260K_llama"
    model = AutoModelForCausalLM.from_pretrained(source).eval()
    layers = ex.layers_of(model)
    pool = [Scheme.parse(text) for text in ("w2g32", "w3g32", "w4g32", "w8", "w4", "w3g43")]
    schemes = ex.mix(EXPORTER, layers, 11, pool=pool)
    assert len(set(schemes.values())) >= 6
    write(model, schemes, tmp_path / "out")
    assert tensor_bytes(tmp_path / "out") == predicted_bytes(EXPORTER, model, layers, schemes)

    ids = torch.arange(2, 202).reshape(2, 100)
    quantized = ex.quantized_by(model, schemes)
    chosen = {name: quantized(name) for name, scheme in schemes.items() if scheme != ex.KEEP}
    with torch.no_grad(), applied(model, chosen):
        expected = model(ids).logits
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        assert float((opened(ids).logits - expected).abs().max()) == 0.0

    text = "Once upon a time there was a cat."
    words = [AutoTokenizer.from_pretrained(folder)(text) for folder in (source, tmp_path / "out")]
    assert words[0]["input_ids"] == words[1]["input_ids"]
    assert opened.generation_config.eos_token_id == model.generation_config.eos_token_id
