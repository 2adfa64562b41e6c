"""Models of transformers, and weights, that cannot be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.commands import Commands
from tests.malformed.cases import (
    LANGUAGE,
    UP,
    VISION,
    Case,
    Spoil,
    Trap,
    configured,
    cut,
    nothing_is_begun,
    refusal,
    search,
    weighted,
    written,
)


def removed(glob: str) -> Spoil:
    def spoil(folder: Path) -> None:
        for path in folder.glob(glob):
            path.unlink()

    return spoil


def trapped(folder: Path) -> None:
    (folder / "llama" / "model.safetensors").unlink()
    torch.save({"a": Trap(folder)}, folder / "llama" / "pytorch_model.bin")


def with_code(folder: Path) -> None:
    configured(model_type="mine", auto_map={"AutoModelForCausalLM": "mine.Model"})(folder)
    (folder / "llama" / "mine.py").write_text(f"open({str(folder / 'sprung')!r}, 'w')\n")


MODELS: dict[str, Case] = {
    "no such folder": (
        search(LANGUAGE, model="@/nothing"),
        "no folder '.*nothing': give a folder with config.json and weights",
    ),
    "a file for a folder": (
        search(LANGUAGE, model="@/text.txt"),
        r"'.*text\.txt' is a file: give the folder",
    ),
    "no config": (
        search(LANGUAGE, removed("llama/config.json")),
        "no config.json in '.*llama': give a transformers model's folder",
    ),
    "config is not JSON": (
        search(LANGUAGE, written("llama/config.json", "{'a': 1}")),
        r"config\.json' is not JSON .*line 1.*: restore the file",
    ),
    "config without a type": (
        search(LANGUAGE, written("llama/config.json", "{}")),
        "loading '.*llama' failed: .*model_type.*: correct the folder until transformers",
    ),
    "unknown model type": (
        search(LANGUAGE, configured(model_type="perceptron")),
        "no AutoModelForCausalLM is of model_type 'perceptron': use .*newer transformers",
    ),
    "a language model as a classifier": (
        search(VISION, model="@/llama", arguments=None, weights=None),
        "no AutoModelForImageClassification is of model_type 'llama': use another kind of task",
    ),
    "impossible configuration": (
        search(LANGUAGE, configured(num_attention_heads=3)),
        r"loading '.*llama' failed: .*attention heads \(3\): correct the folder",
    ),
    "no weights": (
        search(LANGUAGE, removed("llama/*.safetensors")),
        "no weights in '.*llama': it needs model.safetensors",
    ),
    "truncated weights": (
        search(LANGUAGE, cut("llama/model.safetensors", 5000)),
        r"reading model\.safetensors failed: .*not fully covered: download or copy it again",
    ),
    "garbage for weights": (
        search(LANGUAGE, written("llama/model.safetensors", b"\xff" * 500)),
        r"reading model\.safetensors failed: .*header.*: download or copy it again",
    ),
    "empty weights": (
        search(LANGUAGE, written("llama/model.safetensors", b"")),
        r"reading model\.safetensors failed: .*header.*: download or copy it again",
    ),
    "a shard is missing": (
        search(
            LANGUAGE,
            written("llama/model.safetensors.index.json", '{"weight_map": {"a": "b.safetensors"}}'),
        ),
        r"no b\.safetensors in '.*llama', which model\.safetensors\.index\.json asks for: restore",
    ),
    "a tensor is missing": (
        search(LANGUAGE, weighted(lambda tensors: tensors.pop(UP))),
        f"no fitting weights for '{UP}': use the complete weights of a LlamaForCausalLM",
    ),
    "tensors of other shapes": (
        search(LANGUAGE, configured(intermediate_size=32)),
        r"'model\.layers\.0.*' and 5 more, of shape \(16, 24\): config.json asks for \(16, 32\)",
    ),
    "NaN in weights": (
        search(LANGUAGE, weighted(lambda tensors: tensors[UP][0].fill_(float("nan")))),
        f"weights '{UP}' have 16 elements that are NaN or infinite: .*use other weights",
    ),
    "infinite weights": (
        search(LANGUAGE, weighted(lambda tensors: tensors[UP][0, :3].fill_(float("inf")))),
        f"weights '{UP}' have 3 elements that are NaN or infinite: .*use other weights",
    ),
    "quantized already": (
        search(LANGUAGE, configured(quantization_config={"quant_method": "gptq", "bits": 4})),
        "'.*llama' is quantized already: use the model that it was made from",
    ),
    "weights with code in them": (
        search(LANGUAGE, trapped),
        "loading '.*llama' failed: .*other things than tensors.*: correct the folder",
    ),
    "a model with code of its own": (
        search(LANGUAGE, with_code),
        "it runs code of its own: allow it with --trust-remote-code",
    ),
    "no tokenizer": (
        search(LANGUAGE, removed("llama/tokenizer*")),
        "loading the tokenizer of '.*llama' failed: .*: give tokenizer=, or token ids in an .npz",
    ),
    "code for a language model": (
        search(LANGUAGE, model="@/net.py"),
        r"net\.py' is no folder: give one of transformers, or bring Python code as a vision or",
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_nothing_is_begun_with(case: str, bitfront: Commands, folder: Path) -> None:
    nothing_is_begun(MODELS[case], bitfront, folder)


def test_a_name_on_the_hub_without_a_network(
    bitfront: Commands, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for task in (LANGUAGE, {**VISION, "arguments": None, "weights": None}):
        words = search(task, model="no-such-org/no-such-model")(folder)
        line = "loading 'no-such-org/no-such-model' from the hub failed: .*: .* give a local folder"
        refusal(bitfront, words, line)
