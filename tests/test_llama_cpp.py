"""Exported GGUF files in llama.cpp itself: loaded, split into tokens, run, compared with the trial.

``BITFRONT_TEST_LLAMA_CPP`` names a Python that has llama_cpp (``make .venv-llama/.installed``).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import gguf as benchmark
from benchmarks import llama
from bitfront.quant.export_gguf import FILE, Gguf
from bitfront.quant.formats import dequantize
from bitfront.quant.ggml_types import BLOCK_BYTES
from bitfront.quant.gguf_file import GgufFile
from bitfront.quant.quantizers import quantize
from bitfront.quant.weights import QuantizedWeight
from bitfront.types import Scheme
from tests import exporting
from tests.test_gguf_export import MODELS, made, words, written

installed = pytest.mark.skipif(
    llama.python() is None, reason=f"{llama.VARIABLE} names no Python with llama_cpp"
)

LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {"gpt-2": None, "llama-bpe": r"\p{N}{1,3}", "qwen2": r"\p{N}"}
ODD = [
    "I don't WE'LL, 1234567 and 12.5%\n\n  two  spaces\tand a tab",
    "Ünïcödé — “quotes” … 東京 🙂🙂",
    "\r\nif (x[0] != 'a') { return; }   ", "a", " ",
]  # fmt: skip


def test_the_comparison_by_hand() -> None:
    """Two windows of three tokens, a vocabulary of two."""
    windows = torch.tensor([[0, 1, 0], [1, 1, 0]])
    ours = torch.zeros(2, 3, 2)  # every token has probability 1/2
    theirs = torch.zeros(2, 3, 2)
    theirs[0, 0] = torch.tensor([0.0, 3.0]).log1p()  # 1/5 and 4/5 before the token 1
    found = llama.compare(ours, theirs, windows)
    assert found.perplexity == pytest.approx(2.0)
    assert found.theirs == pytest.approx((2.0**3 * 1.25) ** (1 / 4))
    assert found.largest == pytest.approx(torch.tensor(2.5).log().item())
    assert found.kl == pytest.approx(
        0.5 * (torch.tensor(2.5).log() + torch.tensor(0.625).log()) / 6
    )
    assert found.same == pytest.approx(5 / 6)


@pytest.fixture(scope="module")
def text(assets: Path) -> Tensor:
    return benchmark.windows(assets, 6, 96)


@installed
@pytest.mark.parametrize("name", benchmark.MODELS)
def test_a_mixed_file_gives_what_was_measured(
    name: str, assets: Path, text: Tensor, tmp_path: Path
) -> None:
    folder = benchmark.folders(assets, tmp_path)[name]
    stories = json.loads((assets / "text" / "tinystories_917_clean.json").read_text())[:20] + ODD
    kept, _ = benchmark.written(folder, tmp_path / "kept", True, text)
    ours, schemes = benchmark.written(folder, tmp_path / "out", False, text)
    assert len(schemes) >= 6
    exact = llama.compare(kept, llama.run(tmp_path / "kept" / FILE, text).logits, text)
    ran = llama.run(tmp_path / "out" / FILE, text, stories)
    found = llama.compare(ours, ran.logits, text)
    # float32 throughout: sums in another order
    assert exact.largest < 2e-3
    # inputs of products are rounded to 8 bits there, in blocks of 32 or 256: some parts in a
    # hundred of a logit, and evenly around what was measured
    assert abs(found.theirs / found.perplexity - 1) < 0.01
    assert found.kl < 5e-3
    assert found.same > 0.9  # a random network has many near ties
    # and it is this trial: the full model is much further away
    assert llama.compare(kept, ran.logits, text).kl > 4 * found.kl
    assert len(ran.generated) == 16
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert ran.texts == [tokenizer(story)["input_ids"] for story in stories]


@installed
@pytest.mark.parametrize("name", MODELS)
def test_every_family_runs_as_in_transformers(name: str, tmp_path: Path) -> None:
    """Kept in float32: rotation, biases, norms and scaled positions are llama.cpp's own."""
    model, ids = made(name), words()["input_ids"]
    layers = exporting.layers_of(model)
    Gguf().write(model, layers, {}, exporting.quantized_by(model, {}), tmp_path / "out", {})
    with torch.no_grad():
        ours = model(ids).logits
    found = llama.compare(ours, llama.run(tmp_path / "out" / FILE, ids, tokens=4).logits, ids)
    assert found.largest < 2e-3
    assert float(ours.std()) > 0.2
    schemes, _ = written(model, tmp_path / "mixed")
    assert len(set(schemes.values())) > 3
    assert len(llama.run(tmp_path / "mixed" / FILE, ids, tokens=4).generated) == 4


@installed
@pytest.mark.parametrize("split", SPLITS)
def test_byte_level_tokenizers_split_as_in_transformers(
    split: str, assets: Path, tmp_path: Path
) -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    stories = json.loads((assets / "text" / "tinystories_917_clean.json").read_text())
    tokenizer = Tokenizer(models.BPE())
    numbers = SPLITS[split]
    tokenizer.pre_tokenizer = (
        pre_tokenizers.ByteLevel(add_prefix_space=False)
        if numbers is None
        else pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(f"{LETTERS}|{numbers}|{REST}"), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    )
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|begin|>", "<|end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([*stories[:300], *(2 * ODD)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", 0)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>"
    )
    model = made("llama", vocab_size=610)
    model.save_pretrained(tmp_path / "model")
    fast.save_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    layers = exporting.layers_of(model)
    Gguf().write(model, layers, {}, exporting.quantized_by(model, {}), tmp_path / "out", {})
    texts = [*stories[-20:], *ODD]
    ran = llama.run(tmp_path / "out" / FILE, words()["input_ids"], texts, 4)
    assert ran.metadata["tokenizer.ggml.pre"] == split
    assert ran.texts == [fast(text)["input_ids"] for text in texts]


@installed
@pytest.mark.parametrize("name", BLOCK_BYTES)
def test_ggml_itself_leaves_no_less_error(name: str, assets: Path) -> None:
    weights = benchmark.matrices(assets)
    some = {n: weights[n][:64] for n in (*list(weights)[:2], "random/normal", "random/tails")}
    theirs = llama.blocks(some)
    scheme = Scheme.parse(name)
    for n, M in some.items():
        errors = [
            float((dequantize(q, torch.float32) - M).double().square().sum())
            for q in (quantize(M, scheme), QuantizedWeight(scheme, theirs[name, n]))
        ]
        assert errors[0] < errors[1], n


@installed
def test_llama_quantize_follows_a_recipe(assets: Path, text: Tensor, tmp_path: Path) -> None:
    folder = benchmark.folders(assets, tmp_path)["wide"]
    _, schemes = benchmark.written(folder, tmp_path / "ours", False, text)
    benchmark.written(folder, tmp_path / "kept", True, text)
    target = tmp_path / "theirs.gguf"
    llama.requantize(tmp_path / "kept" / FILE, target, benchmark.recipe(folder))
    ours, theirs = GgufFile(tmp_path / "ours" / FILE), GgufFile(target)
    assert theirs.types == ours.types
    assert theirs.shapes == ours.shapes
    assert len(schemes) == 7
    assert theirs.digests != ours.digests  # its own rounding
