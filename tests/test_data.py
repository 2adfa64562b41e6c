"""Loading models and data: what works, and one clear line for what does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bitfront.errors import DataError, InvalidInput, ModelError
from bitfront.tasks import Evaluator, LanguageTask, VisionTask
from bitfront.tasks.texts import read_corpus
from tests import tiny

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tiny.llama(folder / "llama")
    tiny.text(folder / "text.txt")
    tiny.images(folder / "images.npz")
    tiny.code(folder / "net.py")
    return folder


def language(folder: Path, data: str | Path = "text.txt", **options: Any) -> LanguageTask:
    settings = {"samples": 4, "eval_samples": 3, "length": 12, "device": "cpu", **options}
    model = settings.pop("model", folder / "llama")
    return LanguageTask(model, folder / data, **settings)


def vision(folder: Path, data: Any = "images.npz", **options: Any) -> VisionTask:
    model = options.pop("model", f"{folder / 'net.py'}:Net")
    source = data if isinstance(data, tuple) else f"{folder}/{data}"
    return VisionTask(model, source, **{"samples": 5, "device": "cpu", **options})


def ids_of(task: LanguageTask, part: str = "calibration") -> list[list[int]]:
    """Real tokens of every sequence."""
    rows = []
    for batch in getattr(task, part):
        mask = batch.kwargs.get("attention_mask", torch.ones_like(batch.kwargs["input_ids"]))
        pairs = zip(batch.kwargs["input_ids"], mask.bool(), strict=True)
        rows += [row[keep].tolist() for row, keep in pairs]
    return rows


# ---------------------------------------------------------------- language


def test_text_is_joined_and_evaluation_is_a_later_part(folder: Path) -> None:
    task = language(folder, samples=50, eval_samples=50, batch=16, hold_back=0)
    stream = task.tokenizer((folder / "text.txt").read_text())["input_ids"]
    windows = [stream[i : i + 12] for i in range(0, len(stream) - 11, 12)]
    places = [
        [windows.index(row) for row in ids_of(task, p)] for p in ("calibration", "evaluation")
    ]
    assert all(sorted(p) == p and len(set(p)) == 50 for p in places)
    assert max(places[0]) < min(places[1])
    assert places[0] != list(range(50)), "drawn from all of the part"


def test_the_seed_decides_what_is_drawn(folder: Path) -> None:
    assert ids_of(language(folder)) == ids_of(language(folder))
    assert ids_of(language(folder)) != ids_of(language(folder, seed=1))


def test_documents_are_padded_and_masked(folder: Path) -> None:
    texts = ["abc", "a longer one than that", "", "xy.", "hello, you", "one more of these"] * 2
    (folder / "docs.json").write_text(json.dumps(texts))
    task = language(folder, "docs.json", samples=5, eval_samples=5, batch=5)
    assert {len(row) for row in ids_of(task)} > {4, 12}
    (batch,) = task.calibration
    assert batch.scored is not None
    assert batch.labels is not None
    assert batch.scored.sum() == sum(len(row) - 1 for row in ids_of(task))
    # a padded sequence gives what it gives alone
    z = task.outputs(batch)
    for i, row in enumerate(ids_of(task)):
        alone = task.model(torch.tensor([row])).logits[0, :-1]
        torch.testing.assert_close(z[i, : len(row) - 1], alone, rtol=1e-4, atol=1e-5)


def test_jsonl_with_a_field_of_its_own_and_either_layout(folder: Path) -> None:
    lines = "\n".join(json.dumps({"body": f"story {c} of many."}) for c in "abcdefghij")
    (folder / "docs.jsonl").write_text(lines)
    documents = language(folder, "docs.jsonl", field="body")
    assert all(row[0] == 1 for row in ids_of(documents)), "each begins with <s>"
    joined = language(folder, "docs.jsonl", field="body", layout="joined")
    assert sum(row[0] == 1 for row in ids_of(joined)) <= 1
    with pytest.raises(DataError, match="no text in 'text': it has body"):
        language(folder, "docs.jsonl")


def test_token_ids_with_lengths_need_no_tokenizer(folder: Path) -> None:
    lengths = np.array([5, 30, 9, 2, 12, 1, 20, 7, 8])
    ids = np.arange(lengths.sum()) % 30
    np.savez(folder / "ids.npz", ids=ids.astype(np.uint16), lengths=lengths)
    task = language(folder, "ids.npz", samples=4, eval_samples=4)
    assert {len(r) for r in ids_of(task) + ids_of(task, "evaluation")} == {5, 12, 9, 2, 7, 8}
    assert "tokenizer" not in task.__dict__


def test_length_is_lowered_to_the_models_context(folder: Path) -> None:
    assert language(folder, length=4096).length == 24


def test_evaluation_data_of_its_own(folder: Path) -> None:
    other = tiny.text(folder / "other.txt", 500)
    other.write_text(other.read_text().upper())
    task = language(folder, evaluation=other)
    assert all(set(row) <= {0, 1, *range(28, 32)} for row in ids_of(task, "evaluation"))


def test_sixteen_bits_are_what_transformers_loads(folder: Path) -> None:
    """Rotary frequencies stay in float32, as in the exported model that will be loaded."""
    from transformers import AutoModelForCausalLM

    task = language(folder, dtype="bfloat16")
    plain = AutoModelForCausalLM.from_pretrained(folder / "llama", dtype=torch.bfloat16)
    for name, buffer in plain.named_buffers():
        assert task.model.get_buffer(name).dtype == buffer.dtype
    batch = task.calibration[0]
    expected = plain(**batch.kwargs).logits[:, :-1]
    assert torch.equal(task.outputs(batch), expected)


def test_a_live_model_cannot_be_made_again(folder: Path) -> None:
    task = language(folder)
    np.savez(folder / "flat.npz", ids=np.arange(300) % 30)
    live = LanguageTask(task.model, folder / "flat.npz", samples=2, eval_samples=2, device="cpu")
    with pytest.raises(ModelError, match="live model"):
        live.recipe()
    with pytest.raises(ModelError, match="tokenizer"):
        LanguageTask(task.model, folder / "text.txt", device="cpu")


def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder / "llama", tmp_path / "model"))


def spoil(change: Callable[[Path], object]) -> Callable[[Path, Path], Path]:
    """A copy of the model after ``change``."""

    def make(folder: Path, tmp_path: Path) -> Path:
        model = copy(folder, tmp_path)
        change(model)
        return model

    return make


def _weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def rewrite(model: Path) -> None:
        state = load_file(model / "model.safetensors")
        change(state)
        save_file(state, model / "model.safetensors", {"format": "pt"})

    return rewrite


BAD_MODELS: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "missing folder": (lambda f, t: t / "nothing", "no folder"),
    "a file": (lambda f, t: f / "text.txt", "is a file"),
    "no config": (spoil(lambda m: (m / "config.json").unlink()), "no config.json"),
    "config of nothing": (spoil(lambda m: (m / "config.json").write_text("{")), "is not JSON"),
    "no weights": (spoil(lambda m: (m / "model.safetensors").unlink()), "no weights in"),
    "cut weights": (
        spoil(lambda m: (m / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")),
        "loading .* failed",
    ),
    "missing tensor": (
        spoil(_weights(lambda s: s.pop("model.layers.1.mlp.up_proj.weight"))),
        "no fitting weights for 'model.layers.1.mlp.up_proj.weight'",
    ),
    "NaN": (
        spoil(_weights(lambda s: s["model.layers.0.mlp.up_proj.weight"].fill_(float("nan")))),
        "weights 'model.layers.0.mlp.up_proj.weight' have 384 elements",
    ),
    "no language model": (
        spoil(lambda m: (m / "config.json").write_text('{"model_type": "resnet"}')),
        "loading .* failed",
    ),
}


@pytest.mark.parametrize("case", list(BAD_MODELS))
def test_bad_language_models_are_one_clear_line(folder: Path, tmp_path: Path, case: str) -> None:
    make, message = BAD_MODELS[case]
    with pytest.raises(ModelError, match=message) as caught:
        language(folder, model=make(folder, tmp_path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_an_unknown_name_on_the_hub_is_one_clear_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="give a local folder") as caught:
        language(folder, model="nobody/nothing-at-all")
    assert "\n" not in str(caught.value)


def test_a_missing_tokenizer_says_what_to_give(folder: Path, tmp_path: Path) -> None:
    model = copy(folder, tmp_path)
    for file in model.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="give tokenizer="):
        language(folder, model=model)
    assert language(folder, model=model, tokenizer=str(folder / "llama")).calibration


BAD_TEXTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing.txt": (lambda p: None, "does not exist"),
    "empty.txt": (lambda p: p.write_text(""), "is empty"),
    "empty.json": (lambda p: p.write_text("[]"), "is empty"),
    "short.txt": (lambda p: p.write_text("abc" * 10), r"2 windows of 12 tokens \(31 tokens in all"),
    "few.json": (lambda p: p.write_text('["a story", "another"]'), "has 2 documents"),
    "latin.txt": (lambda p: p.write_bytes(b"caf\xe9" * 100), "not UTF-8"),
    "broken.json": (lambda p: p.write_text("["), "is not JSON"),
    "broken.jsonl": (lambda p: p.write_text('{"text": "a"}\n{'), "broken.jsonl:2 is not JSON"),
    "object.json": (lambda p: p.write_text("{}"), "holds no list"),
    "zip.npz": (lambda p: p.write_bytes(b"PK"), "damaged"),
    "keys.npz": (lambda p: np.savez(p, tokens=np.zeros(9)), "no 'ids': it has tokens"),
    "float.npz": (lambda p: np.savez(p, ids=np.zeros(99)), "are float64"),
    "large.npz": (lambda p: np.savez(p, ids=np.full(999, 600)), "vocabulary of 32"),
    "sum.npz": (lambda p: np.savez(p, ids=np.ones(9, int), lengths=[4, 4]), "sum to 8"),
}


@pytest.mark.parametrize("name", list(BAD_TEXTS))
def test_bad_texts_are_one_clear_line(folder: Path, tmp_path: Path, name: str) -> None:
    make, message = BAD_TEXTS[name]
    make(tmp_path / name)
    with pytest.raises(DataError, match=message) as caught:
        language(folder, tmp_path / name)
    assert "\n" not in str(caught.value)


def test_the_hub_needs_the_package_datasets() -> None:
    try:
        import datasets  # noqa: F401
    except ImportError:
        with pytest.raises(DataError, match=r"bitfront\[datasets\]"):
            read_corpus("hub:wikitext:wikitext-2-raw-v1:test")
    with pytest.raises(DataError, match="write hub:NAME"):
        read_corpus("hub:a:b:c:d")


# ---------------------------------------------------------------- vision


def test_train_and_test_images_of_one_file_are_told_apart(folder: Path) -> None:
    task = vision(folder, batch=4)
    assert [b.samples for b in task.calibration] == [4, 1]
    assert sum(b.samples for b in task.evaluation) == 10
    assert task.metrics == ("kl", "nll", "top1", "flips", "agreement")


def test_one_set_of_images_is_split_without_overlap(folder: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (30, 3, 6, 6), dtype=np.uint8)
    task = vision(folder, (x,), samples=20)
    parts = [{b.args[0][i].numpy().tobytes() for b in p for i in range(b.samples)}
             for p in (task.calibration, task.evaluation)]  # fmt: skip
    assert [len(p) for p in parts] == [20, 10]
    assert not parts[0] & parts[1]
    assert task.metrics == ("kl", "agreement")
    with pytest.raises(ModelError, match="live calibration"):
        task.recipe()


def test_labels_may_be_on_evaluation_images_only(folder: Path) -> None:
    task = vision(folder, "images.npz:x_train", evaluation=f"{folder}/images.npz:x_test,y_test")
    assert list(Evaluator(task, task.calibration).metrics) == ["kl", "agreement"]
    assert "top1" in Evaluator(task, task.evaluation).baseline.estimates()


def test_a_single_set_of_training_images_is_split(folder: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(folder / "train.npz", x_train=rng.integers(0, 256, (9, 6, 6, 3), dtype=np.uint8))
    task = vision(folder, "train.npz")
    assert [sum(b.samples for b in p) for p in (task.calibration, task.evaluation)] == [5, 4]
    with pytest.raises(DataError, match="has 9 images for 9 to calibrate on"):
        vision(folder, "train.npz", samples=9)


def test_pixels_are_scaled_and_normalized(folder: Path) -> None:
    x = np.arange(6 * 6 * 3, dtype=np.uint8).reshape(1, 6, 6, 3).repeat(4, 0)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    task = vision(folder, (x,), samples=2, mean=mean, std=std)
    expected = ((x[0] / 255 - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(task.calibration[0].args[0][0], expected, rtol=1e-5, atol=1e-6)
    floats = vision(folder, (x.astype(np.float32).transpose(0, 3, 1, 2) / 255,), samples=2)
    torch.testing.assert_close(
        floats.calibration[0].args[0], torch.from_numpy(x[:2] / 255).permute(0, 3, 1, 2).float()
    )


def test_images_are_resized_and_grey_ones_coloured(folder: Path) -> None:
    task = vision(folder, (np.full((9, 5, 5), 51, np.uint8),), samples=2, size=8)
    x = task.calibration[0].args[0]
    assert x.shape == (2, 3, 8, 8)
    torch.testing.assert_close(x, torch.full_like(x, 0.2))


def test_a_transformers_classifier_uses_its_own_processor(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=3,  # type: ignore[call-arg]
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    plain = vision(tmp_path, (np.zeros((9, 8, 8, 3), np.uint8),), model=tmp_path / "vit")
    assert plain.calibration[0].args[0].unique().tolist() == [0]
    processor = {
        "image_processor_type": "ViTImageProcessor", "do_normalize": True, "do_rescale": True,
        "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3,
        "size": {"height": 8, "width": 8},
    }  # fmt: skip
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    tiny.images(tmp_path / "images.npz")  # 6 × 6
    task = vision(tmp_path, model=tmp_path / "vit")
    assert task.calibration[0].args[0].shape == (5, 3, 8, 8)
    assert task.layers[-1].role == "head"
    dark = vision(tmp_path, (np.zeros((9, 8, 8, 3), np.uint8),), model=tmp_path / "vit")
    assert dark.calibration[0].args[0].unique().tolist() == [-2]
    assert Evaluator(task, task.evaluation).baseline.samples == 10


BAD_VISION: dict[str, tuple[dict[str, Any], str]] = {
    "no such file": ({"data": "none.npz"}, "no images"),
    "no such key": ({"data": "images.npz:x,y"}, "keys are x_train, y_train, x_test, y_test"),
    "too few": ({"samples": 21}, "has 20 images where 21 are needed"),
    "no weights": ({"weights": "nowhere.pt"}, "no weights file"),
    "odd weights": ({"weights": __file__}, "unknown kind of weights"),
    "no function": ({"model": "net.py:Nut"}, "has no function 'Nut'.*Net"),
    "no Python file": ({"model": "not.py:Net"}, "no file"),
    "wrong argument": ({"arguments": {"depth": 3}}, "TypeError: .*depth"),
    "arguments of nothing": ({"arguments": "{"}, "not JSON"),
    "a deviation of 0": ({"std": [0.0, 1, 1]}, "positive"),
    "a mean too many": ({"mean": [1, 2]}, "one for each of 3 channels"),
    "no model": ({"model": "net.py:task"}, "returned dict"),
    "labels": ({"data": "images.npz:x_train,x_train"}, "labels of images.npz have shape"),
}


@pytest.mark.parametrize("case", list(BAD_VISION))
def test_bad_vision_input_is_one_clear_line(folder: Path, case: str) -> None:
    options, message = BAD_VISION[case]
    options = dict(options)
    if "model" in options:
        options["model"] = f"{folder}/{options['model']}"
    with pytest.raises(InvalidInput, match=message) as caught:
        vision(folder, **options)
    assert "\n" not in str(caught.value)


def test_labels_beyond_the_classes_are_refused(folder: Path) -> None:
    x = np.zeros((9, 6, 6, 3), np.uint8)
    task = vision(folder, (x, np.full(9, 7)), samples=3)
    with pytest.raises(DataError, match="labels from 7 to 7 for 3 classes"):
        task.outputs(task.calibration[0])


def test_weights_that_do_not_fit_are_named(folder: Path) -> None:
    from bitfront.tasks.boundary import function_at

    state = function_at(f"{folder / 'net.py'}:Net")().state_dict()
    cases = {
        "shape": ({**state, "head.bias": torch.zeros(4)}, "'head.bias' .* has shape"),
        "lack": ({k: v for k, v in state.items() if k != "head.bias"}, "lacks 'head.bias'"),
        "more": ({**state, "tail": torch.zeros(1)}, "has unknown 'tail'"),
    }
    for name, (weights, message) in cases.items():
        save_file(weights, folder / f"{name}.safetensors")
        with pytest.raises(ModelError, match=message):
            vision(folder, weights=folder / f"{name}.safetensors")
    torch.save({"state_dict": state}, folder / "wrapped.pt")
    assert vision(folder, weights=folder / "wrapped.pt").layers
    torch.save(nn.Linear(2, 2), folder / "pickle.pt")
    with pytest.raises(ModelError, match=r"reading weights from pickle\.pt failed"):
        vision(folder, weights=folder / "pickle.pt")
