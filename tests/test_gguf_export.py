"""Models as GGUF files: types, names, rows and settings, what opens them, what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bitfront
from bitfront import audit as auditing
from bitfront.errors import ExportError
from bitfront.quant import gguf_tokenizer
from bitfront.quant.export_gguf import FILE, Gguf
from bitfront.quant.exporters import predicted_bytes
from bitfront.quant.formats import dequantize
from bitfront.quant.gguf_file import GgufFile
from bitfront.quant.surgery import applied
from bitfront.quant.weights import QuantizedLayer
from bitfront.tasks import LanguageTask
from bitfront.tasks.base import Batch
from bitfront.types import Layer, Scheme, parse_schemes
from tests import exporting as ex
from tests import tiny

gguf = pytest.importorskip("gguf")

GGUF = Gguf()
POOL = parse_schemes("q8_0 q6_k q5_k q5_0 q5_1 q4_k q4_0 q4_1 q3_k q2_k fp16 bf16")
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
SIZES: dict[str, Any] = {
    "vocab_size": 48, "hidden_size": 256, "intermediate_size": 320, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "tied": ("Llama", {"tie_word_embeddings": True}),
    "biased": ("Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 32}),
    "llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "stretched": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
}


def made(name: str, dtype: torch.dtype = torch.float32, **sizes: Any) -> Any:
    """A model with random weights: biases and norms too, which start at 0 and 1."""
    import transformers

    kind, more = MODELS[name]
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **more, **sizes})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def words(count: int = 2) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 48, (count, 24), generator=generator)
    return {"input_ids": ids, "use_cache": False}


def written(
    model: Any, folder: Path, seed: int = 0, **options: Any
) -> tuple[dict[str, Scheme], Callable[[str], QuantizedLayer]]:
    layers = ex.layers_of(model)
    schemes = ex.mix(GGUF, layers, seed, POOL)  # type: ignore[arg-type]
    quantized = ex.quantized_by(model, schemes)
    GGUF.write(model, layers, schemes, quantized, folder, {"kl": 0.5}, **options)
    return schemes, quantized


def trial(model: nn.Module, schemes: dict[str, Scheme], quantized: Any) -> Tensor:
    changed = {name: quantized(name) for name, s in schemes.items() if s != ex.KEEP}
    with applied(model, changed), torch.no_grad():
        logits: Tensor = model(**words()).logits
    return logits


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.float32) for name in MODELS), ("biased", torch.bfloat16),
        ("tied", torch.float16), ("qwen3", torch.bfloat16),
    ],
)  # fmt: skip
def test_transformers_opens_what_was_measured(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = made(name, dtype)
    layers = ex.layers_of(model)
    schemes, quantized = written(model, tmp_path / "out", len(name))
    file = GgufFile(tmp_path / "out" / FILE)
    assert file.bytes == predicted_bytes(GGUF, model, layers, schemes)
    opened = GGUF.open(tmp_path / "out")
    assert next(opened.parameters()).dtype == dtype
    with torch.no_grad():
        found = opened(**words()).logits
    assert torch.equal(found, trial(model, schemes, quantized))


def test_a_name_that_transformers_takes_for_an_architecture(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    made("mistral").save_pretrained(tmp_path / "mistral")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "mistral").eval()
    GGUF.write(model, ex.layers_of(model), {}, ex.quantized_by(model, {}), tmp_path / "out", {})
    with torch.no_grad():
        assert torch.equal(GGUF.open(tmp_path / "out")(**words()).logits, model(**words()).logits)


def test_every_tensor_has_its_type_and_its_weights_to_the_bit(tmp_path: Path) -> None:
    """Read by the package alone: names and rows as llama.cpp wants them, written out here."""
    model = made("llama")
    schemes, quantized = written(model, tmp_path / "out", 3)
    tensors = {t.name: t for t in gguf.GGUFReader(tmp_path / "out" / FILE).tensors}
    names = {
        "model.embed_tokens": "token_embd", "lm_head": "output", "q_proj": "attn_q",
        "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output", "gate_proj": "ffn_gate",
        "up_proj": "ffn_up", "down_proj": "ffn_down",
    }  # fmt: skip
    seen = set()
    for layer, scheme in schemes.items():
        last = names.get(layer) or names[layer.rpartition(".")[2]]
        number = layer.split(".")[2] if layer.startswith("model.layers") else None
        tensor = tensors[f"blk.{number}.{last}.weight" if number else f"{last}.weight"]
        seen.add(tensor.name)
        types = {"keep": "F32", "fp16": "F16", "bf16": "BF16"}
        assert tensor.tensor_type.name == types.get(str(scheme), str(scheme).upper())
        weight = model.get_submodule(layer).weight.detach()
        expected = (
            weight if scheme == ex.KEEP else dequantize(quantized(layer).weight, torch.float32)
        )
        found = gguf.dequantize(tensor.data, tensor.tensor_type)
        if last in ("attn_q", "attn_k"):
            heads = 4 if last == "attn_q" else 2
            size = expected.shape[0] // heads
            # llama.cpp rotates rows 2i and 2i + 1 of a head; transformers i and i + size / 2
            order = [
                h * size + i // 2 + (i % 2) * (size // 2) for h in range(heads) for i in range(size)
            ]
            expected = expected[order]
        assert np.array_equal(found, expected.numpy())
    assert set(tensors) - seen == {
        "output_norm.weight",
        *(f"blk.{i}.{norm}.weight" for i in range(2) for norm in ("attn_norm", "ffn_norm")),
    }
    assert all(tensors[name].tensor_type.name == "F32" for name in set(tensors) - seen)


def test_settings(tmp_path: Path) -> None:
    written(made("llama3"), tmp_path / "out")
    found = GgufFile(tmp_path / "out" / FILE)
    expected = {
        "general.architecture": "llama", "llama.context_length": 64, "llama.embedding_length": 256,
        "llama.block_count": 2, "llama.feed_forward_length": 320, "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2, "llama.attention.key_length": 64,
        "llama.rope.dimension_count": 64, "llama.rope.freq_base": 500000.0,
        "llama.vocab_size": 48, "tokenizer.ggml.model": "none", "general.quantization_version": 2,
    }  # fmt: skip
    assert {key: found.metadata[key] for key in expected} == expected
    # frequencies as of Llama 3.1, one at a time
    divisors = []
    for i in range(0, 64, 2):
        length = 2 * np.pi * 500000.0 ** (i / 64)
        if length < 16 / 4.0:
            divisors.append(1.0)
        elif length > 16 / 1.0:
            divisors.append(8.0)
        else:
            smooth = (16 / length - 1.0) / (4.0 - 1.0)
            divisors.append(1 / ((1 - smooth) / 8.0 + smooth))
    reader = gguf.GGUFReader(tmp_path / "out" / FILE)
    (tensor,) = [t for t in reader.tensors if t.name == "rope_freqs.weight"]
    np.testing.assert_allclose(tensor.data, divisors, rtol=1e-5)  # float32 powers
    written(made("stretched"), tmp_path / "stretched")
    more = GgufFile(tmp_path / "stretched" / FILE).metadata
    assert (more["llama.rope.scaling.type"], more["llama.rope.scaling.factor"]) == ("linear", 2.0)


def test_audit_in_a_fresh_process(tmp_path: Path) -> None:
    model = made("tied")
    task = ex.LiveTask(model, Batch((), words(), 2))
    schemes = ex.mix(GGUF, task.layers, 4, POOL)  # type: ignore[arg-type]
    quantized = ex.quantized_by(model, schemes)
    found = auditing.export(task, GGUF, task.layers, schemes, quantized, tmp_path / "out", {})
    assert found.ok
    assert found.max_difference == 0.0
    assert found.spread > 0
    assert found.bytes == found.predicted_bytes
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "bitfront.json", "model.gguf",
    ]  # fmt: skip

    calls: list[str] = []

    def fickle(name: str) -> QuantizedLayer:
        """Another answer the second time, when the trial is compared with the file."""
        calls.append(name)
        layer = quantized(name)
        if name == "model.layers.1.mlp.up_proj" and calls.count(name) > 1:
            layer.weight.codes[0, 5] ^= 1
        return layer

    chosen = {"model.layers.1.mlp.up_proj": Scheme.parse("q4_k")}
    schemes = {**schemes, **chosen}
    quantized = ex.quantized_by(model, schemes)
    with pytest.raises(ExportError, match=r"weights of layer 'model\.layers\.1\.mlp\.up_proj'"):
        auditing.export(task, GGUF, task.layers, schemes, fickle, tmp_path / "bad", {})
    assert not (tmp_path / "bad").exists()


def test_a_trial_of_the_real_llama_from_search_to_file(assets: Path, tmp_path: Path) -> None:
    stories = json.loads((assets / "text" / "tinystories_917_clean.json").read_text())
    for name, part in (("train", stories[:20]), ("valid", stories[100:110])):
        (tmp_path / f"{name}.txt").write_text("\n".join(part))
    task = LanguageTask(
        str(assets / "stories260K_llama"), calibration=str(tmp_path / "train.txt"),
        evaluation=str(tmp_path / "valid.txt"), samples=16, eval_samples=16, length=64,
        device="cpu",
    )  # fmt: skip
    choices = bitfront.Choices(container="gguf", embeddings=True, head=True)
    with bitfront.open_study("s", task, tmp_path / "b.db") as study:
        (answer,) = bitfront.search(
            study, "q8_0 q4_0 fp16", ["7.9ebpw"], profiler="mse", choices=choices, explore=0
        )
        trial = answer.trial
        # 172 columns: no block divides them; the tied head is what its embedding is
        assert {trial.schemes[f"model.layers.{i}.mlp.down_proj"] for i in range(5)} == {"fp16"}
        assert trial.schemes["lm_head"] == trial.schemes["model.embed_tokens"]
        assert {"q8_0", "q4_0"} <= set(trial.schemes.values())
        audit = bitfront.export(study, trial, tmp_path / "out")
    assert audit.max_difference == 0.0
    assert audit.bytes == audit.predicted_bytes == trial.costs["bytes"]
    file = GgufFile(tmp_path / "out" / FILE)
    assert file.bytes == audit.bytes
    assert len(file.metadata["tokenizer.ggml.tokens"]) == 512
    assert file.metadata["tokenizer.ggml.model"] == "llama"
    with bitfront.open_study("s", db=tmp_path / "b.db") as study:
        assert study.trial(trial.id or 0).settings["container"] == "gguf"


def test_what_is_not_in_the_file_is_found(tmp_path: Path) -> None:
    model = made("llama")
    layers = ex.layers_of(model)
    schemes, _ = written(model, tmp_path / "out")
    expected = GGUF.expected(model, layers, schemes)
    assert GGUF.verify(tmp_path / "out", expected) == predicted_bytes(GGUF, model, layers, schemes)
    # a type that was silently another, a setting of another model, a tensor too many
    tensors, metadata = expected["tensors"], expected["metadata"]
    name = "blk.0.ffn_up.weight"
    other = {**expected, "tensors": {**tensors, name: ["Q4_K", tensors[name][1]]}}
    if tensors[name][0] == "Q4_K":
        other["tensors"][name][0] = "Q6_K"
    with pytest.raises(ExportError, match=r"tensor 'blk\.0\.ffn_up\.weight' in model\.gguf is"):
        GGUF.verify(tmp_path / "out", other)
    wrong = {**expected, "metadata": {**metadata, "llama.rope.freq_base": 9999.0}}
    with pytest.raises(ExportError, match=r"setting 'llama\.rope\.freq_base' .* is 10000\.0, not"):
        GGUF.verify(tmp_path / "out", wrong)
    fewer = {**expected, "tensors": {k: v for k, v in tensors.items() if k != name}}
    with pytest.raises(ExportError, match="tensors that the model has not"):
        GGUF.verify(tmp_path / "out", fewer)
    path = tmp_path / "out" / FILE
    data = bytearray(path.read_bytes())
    data[-2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ExportError, match=r"in model\.gguf is damaged"):
        GGUF.verify(tmp_path / "out", expected)
    for part in (data[: len(data) // 2], data[:100], b"no file"):
        path.write_bytes(part)
        with pytest.raises(ExportError, match=r"model\.gguf is not a whole GGUF file"):
            GGUF.verify(tmp_path / "out", expected)


def test_manifest_overwriting_and_failures(tmp_path: Path) -> None:
    model = made("llama")
    written(model, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "bitfront.json").read_text())
    assert (manifest["exporter"], manifest["about"]) == ("gguf", {"kl": 0.5})
    assert manifest["tensor_bytes"] == GgufFile(tmp_path / "out" / FILE).bytes
    assert manifest["versions"]["gguf"]
    with pytest.raises(ExportError, match="not empty"):
        written(model, tmp_path / "out")
    before = (tmp_path / "out" / FILE).read_bytes()

    def refuse(folder: Path) -> None:
        assert (folder / FILE).exists()
        raise ExportError("not the same")

    with pytest.raises(ExportError, match="not the same"):
        written(model, tmp_path / "out", 1, overwrite=True, check=refuse)
    assert (tmp_path / "out" / FILE).read_bytes() == before
    written(model, tmp_path / "out", 1, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("layer", "scheme", "line"),
    [
        (Layer("a", "linear", 8, 64), "w4g32", "GGUF has types of its own: q8_0, q6_k"),
        (Layer("a", "linear", 8, 64), "fp8", "GGUF has types of its own"),
        (Layer("a", "linear", 8, 64), "q4_k", "use q8_0, q5_0, q5_1, q4_0, q4_1"),
        (Layer("a", "linear", 8, 172), "q8_0", "use fp16 or bf16"),
        (Layer("a", "conv2d", 8, 64), "q8_0", "not a conv2d"),
        (Layer("a", "linear", 8, 64, "float64"), "keep", "no float64"),
    ],
)
def test_pairs_that_are_refused(layer: Layer, scheme: str, line: str) -> None:
    assert line in str(GGUF.reason(layer, Scheme.parse(scheme)))


def test_models_that_are_refused() -> None:
    import transformers

    def reason(kind: str, **more: Any) -> str:
        config = getattr(transformers, f"{kind}Config")(**{**SIZES, **more})
        with torch.device("meta"):
            return str(GGUF.reason_model(transformers.AutoModelForCausalLM.from_config(config)))

    assert "LlamaForCausalLM, Mistral" in str(GGUF.reason_model(ex.odd_net()))
    assert "LlamaForCausalLM, Mistral" in reason("Phi3", pad_token_id=0)
    assert "window is shorter" in reason("Mistral", sliding_window=16)
    assert reason("Mistral", sliding_window=64) == "None"
    assert "its activation is gelu" in reason("Llama", hidden_act="gelu")
    yarn = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}
    assert "scaled by yarn" in reason("Llama", rope_parameters=yarn)


def test_bytes_of_a_model_that_is_refused_are_not_counted() -> None:
    with pytest.raises(ExportError, match="gguf cannot hold a OddNet: models that are written are"):
        predicted_bytes(GGUF, ex.odd_net(), (), {})


def test_a_tokenizer_that_is_refused_is_before_anything_is_measured(tmp_path: Path) -> None:
    task = tiny.language_task(tmp_path)
    with bitfront.open_study("s", task, tmp_path / "s.db") as study:
        with pytest.raises(ExportError, match="its tokenizer is WordLevel, not BPE"):
            bitfront.search(study, "q8_0 q4_0", ["60%"], choices=bitfront.Choices(container="gguf"))
        assert not study.trials()


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ExportError, match=r"gguf is not installed: pip install 'bitfront\[gguf\]"):
        written(made("llama"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def fast(model: Any, **parts: Any) -> Any:
    """A tokenizer of transformers around a model of the tokenizers library."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(model)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_byte_level_tokenizers() -> None:
    from tokenizers import Regex, models, pre_tokenizers

    bpe = models.BPE({"a": 0, "b": 1, "ab": 2, "Ġ": 3}, [("a", "b")])
    found = gguf_tokenizer.fields(fast(bpe, pre_tokenizer=pre_tokenizers.ByteLevel(False)), 6)
    assert found["ggml.model"] == "gpt2"
    assert found["ggml.pre"] == "gpt-2"
    assert found["ggml.tokens"] == ["a", "b", "ab", "Ġ", "[PAD4]", "[PAD5]"]
    assert found["ggml.token_type"] == [1, 1, 1, 1, 5, 5]
    assert found["ggml.merges"] == ["a b"]
    qwen = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    for pattern, name in (
        (qwen, "qwen2"),
        (qwen.replace(r"|\p{N}|", r"|\p{N}{1,3}|"), "llama-bpe"),
    ):
        split = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(False, use_regex=False),
            ]
        )
        assert gguf_tokenizer.fields(fast(bpe, pre_tokenizer=split), 4)["ggml.pre"] == name
    odd = pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(False)])
    with pytest.raises(ExportError, match="splits texts in a way that has no name"):
        gguf_tokenizer.fields(fast(bpe, pre_tokenizer=odd), 4)
    with pytest.raises(ExportError, match=r"token 'Ġ' is number 3 .* and the model knows 3"):
        gguf_tokenizer.fields(fast(bpe, pre_tokenizer=pre_tokenizers.ByteLevel(False)), 3)


def test_a_tokenizer_that_does_not_load(assets: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(assets / "stories260K_llama", model)
    assert gguf_tokenizer.load(model) is not None
    spec = json.loads((model / "tokenizer.json").read_text())
    model.chmod(0o755)
    for text in ("nonsense", json.dumps({**spec, "model": {"type": "other"}})):
        (model / "tokenizer.json").unlink()
        (model / "tokenizer.json").write_text(text)
        with pytest.raises(ExportError, match=r"its tokenizer does not load: .*: repair it"):
            gguf_tokenizer.load(model)
    assert gguf_tokenizer.load(tmp_path) is None


def test_tokenizers_that_llama_cpp_would_not_follow() -> None:
    from tokenizers import models, normalizers

    spaces = normalizers.Replace(" ", "▁")

    def refused(vocabulary: list[str], merges: list[tuple[str, str]]) -> str:
        ids = {token: i for i, token in enumerate(vocabulary)}
        model = models.BPE(ids, merges, byte_fallback=True)
        with pytest.raises(ExportError) as caught:
            gguf_tokenizer.fields(fast(model, normalizer=spaces), len(ids))
        return str(caught.value)

    # "abc" could be made of a and bc, which is no merge
    assert "'abc' is not merged from 'a'" in refused(
        ["a", "b", "c", "ab", "bc", "abc"], [("a", "b"), ("b", "c"), ("ab", "c")]
    )
    # the second way to "abc" has a rank of its own
    assert "'abc' are of several ranks" in refused(
        ["a", "b", "c", "ab", "bc", "abc", "ca"],
        [("a", "b"), ("b", "c"), ("ab", "c"), ("c", "a"), ("a", "bc")],
    )
    with pytest.raises(ExportError, match="is WordLevel, not BPE"):
        gguf_tokenizer.fields(fast(models.WordLevel({"a": 0}, "a")), 1)
    with pytest.raises(ExportError, match="neither bytes to fall back on"):
        gguf_tokenizer.fields(fast(models.BPE({"a": 0}, [])), 1)
