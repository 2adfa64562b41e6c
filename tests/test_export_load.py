"""``load``: what it gives back, and one clear error for everything that does not fit."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bitfront.errors import BitfrontError, ExportError, ModelError
from bitfront.quant.export_safetensors import Safetensors
from bitfront.quant.exporters import predicted_bytes, tensor_bytes
from bitfront.quant.load import load
from bitfront.quant.surgery import applied
from bitfront.types import Scheme
from tests import exporting as ex

SCHEMES = {
    "stem": Scheme.parse("w3"),
    "depthwise": Scheme.parse("w4z"),
    "mix": Scheme.parse("w8a8s"),
    "narrow": Scheme.parse("w4g16a8"),
    "table": Scheme.parse("w5"),
    "head": Scheme.parse("w5"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = ex.odd_net()
    Safetensors().write(
        model, ex.layers_of(model), SCHEMES, ex.quantized_by(model, SCHEMES), tmp_path / "out", {}
    )
    return tmp_path / "out"


def expected() -> torch.Tensor:
    model = ex.odd_net()
    quantized = ex.quantized_by(model, SCHEMES)
    with applied(model, {name: quantized(name) for name in SCHEMES}), torch.no_grad():
        out: torch.Tensor = model(*ex.odd_inputs())
    return out


def test_gives_the_quantized_model_even_twice(folder: Path) -> None:
    model = ex.odd_net(7)
    assert load(model, folder) is model
    load(model, str(folder))  # activations are not quantized twice
    with torch.no_grad():
        assert torch.equal(model(*ex.odd_inputs()), expected())
    assert model.head.weight is model.table.weight


def test_first_tokens_stay_as_they_are(tmp_path: Path) -> None:
    names = [layer.name for layer in ex.layers_of(ex.tiny_gpt2()) if layer.kind == "hf_conv1d"]
    found = {}
    for text in ("w6a4b", "w6a4sb", "w6a4s"):
        model, schemes = ex.tiny_gpt2(), dict.fromkeys(names, Scheme.parse(text))
        layers = [layer for layer in ex.layers_of(model) if layer.name in names]
        quantized = ex.quantized_by(model, schemes)
        Safetensors().write(model, layers, schemes, quantized, tmp_path / text, {})
        ids = ex.token_ids()
        with applied(model, {name: quantized(name) for name in names}), torch.no_grad():
            found[text] = model(ids).logits
        other = ex.tiny_gpt2()
        with torch.no_grad():
            for p in other.parameters():
                p.add_(1)
            assert torch.equal(load(other, tmp_path / text)(ids).logits, found[text])
    assert not torch.equal(found["w6a4sb"], found["w6a4s"])
    # causal: what the first position says depends on the first token alone, whatever the step
    assert torch.equal(found["w6a4sb"][:, 0], found["w6a4b"][:, 0])


def test_a_model_that_does_not_tie_gets_the_same_numbers(folder: Path) -> None:
    model = ex.odd_net(7)
    model.head.weight = nn.Parameter(torch.zeros(11, 45))
    load(model, folder)
    with torch.no_grad():
        assert torch.equal(model(*ex.odd_inputs()), expected())


def wider(model: ex.OddNet) -> None:
    model.narrow = nn.Linear(50, 45, bias=False)


def without_a_layer(model: ex.OddNet) -> None:
    del model.up


def another_kind(model: ex.OddNet) -> None:
    model.mix = nn.Embedding(48, 5)  # type: ignore[assignment]


def one_tensor_more(model: ex.OddNet) -> None:
    model.register_buffer("extra", torch.zeros(2))


def no_bias(model: ex.OddNet) -> None:
    model.signal = nn.Conv1d(45, 7, 3, bias=False)


def another_dtype(model: ex.OddNet) -> None:
    model.double()


def other_norm(model: ex.OddNet) -> None:
    model.norm = nn.BatchNorm2d(8)


def on_meta(model: ex.OddNet) -> None:
    model.norm = nn.BatchNorm2d(6, device="meta")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wider, r"layer 'narrow' has weights \(45, 50\), in the export \(45, 48\)"),
        (without_a_layer, "no layer 'up'"),
        (another_kind, "layer 'mix' is a embedding, in the export a linear"),
        (one_tensor_more, "the export has no tensor 'extra'"),
        (no_bias, "it has no tensor 'signal.bias'"),
        (another_dtype, r"layer 'stem' is torch\.float64, in the export float32"),
        (other_norm, r"tensor 'norm\.\w+' is"),
        (on_meta, "meta device"),
    ],
)
def test_wrong_models(folder: Path, change: Callable[[ex.OddNet], None], message: str) -> None:
    model = ex.odd_net(3)
    change(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(BitfrontError, match=message) as caught:
        load(model, folder)
    assert isinstance(caught.value, ExportError if change is on_meta else ModelError)
    assert "\n" not in str(caught.value)
    for name, tensor in model.state_dict().items():
        assert tensor.is_meta or torch.equal(tensor, before[name])


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def flipped_code(folder: Path) -> None:
    flip(folder / "model.safetensors", -1)


def flipped_header(folder: Path) -> None:
    flip(folder / "model.safetensors", 8)


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])


def emptied(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def removed(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def without_manifest(folder: Path) -> None:
    (folder / "bitfront.json").unlink()


def broken_manifest(folder: Path) -> None:
    path = folder / "bitfront.json"
    path.write_text(path.read_text()[:100])


def edited(field: str, value: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / "bitfront.json").read_text())
        content[field] = value
        (folder / "bitfront.json").write_text(json.dumps(content))

    edit.__name__ = f"edited_{field}"
    return edit


def another_scheme(folder: Path) -> None:
    content = json.loads((folder / "bitfront.json").read_text())
    content["layers"]["stem"]["scheme"] = "w4"
    (folder / "bitfront.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flipped_code, r"tensor '.*' in model\.safetensors is damaged"),
        (flipped_header, "the header of model.safetensors is damaged"),
        (cut, "bytes, not those of its header"),
        (emptied, "not a whole safetensors file"),
        (removed, "model.safetensors is missing"),
        (without_manifest, "no bitfront.json in 'out'"),
        (broken_manifest, "bitfront.json in 'out' is damaged"),
        (edited("format_version", 99), "format version 99: this Bitfront reads 1"),
        (edited("layers", 3), "bitfront.json in 'out' is damaged"),
        (edited("exporter", "compressed-tensors"), "open it with the runtime it was made for"),
        (another_scheme, r"'stem\.weight_codes' is missing or not U8"),
    ],
)
def test_damaged_folders(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder)
    model = ex.odd_net(3)
    before = model.stem.weight.clone()
    with pytest.raises(ExportError, match=message) as caught:
        load(model, folder)
    assert "\n" not in str(caught.value)
    assert torch.equal(model.stem.weight, before)


def test_every_bit_is_guarded(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for place in range(-len(whole) + 8, 0, 997):
        flip(path, place)
        with pytest.raises(ExportError):
            load(ex.odd_net(3), folder)
        path.write_bytes(whole)


def test_a_missing_shard(tmp_path: Path) -> None:
    model = ex.odd_net()
    Safetensors().write(
        model, ex.layers_of(model), SCHEMES, ex.quantized_by(model, SCHEMES), tmp_path / "out", {},
        shard_bytes=2_000,
    )  # fmt: skip
    shard = sorted((tmp_path / "out").glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ExportError, match=f"{shard.name} is missing"):
        load(ex.odd_net(), tmp_path / "out")


def test_two_tensors_of_one_name(tmp_path: Path) -> None:
    model = ex.odd_net()
    model.stem.register_buffer("weight_codes", torch.zeros(1))
    with pytest.raises(ExportError, match=r"two tensors named 'stem\.weight_codes'"):
        Safetensors().write(
            model, ex.layers_of(model), SCHEMES, ex.quantized_by(model, SCHEMES), tmp_path / "o", {}
        )


def test_a_weight_that_is_computed(tmp_path: Path) -> None:
    model = ex.odd_net()
    layers = ex.layers_of(model)
    nn.utils.parametrizations.weight_norm(model.mix)
    with pytest.raises(ExportError, match="layer 'mix' has no plain weight"):
        Safetensors().write(
            model, layers, SCHEMES, ex.quantized_by(model, SCHEMES), tmp_path / "out", {}
        )


def test_a_model_that_is_one_layer(tmp_path: Path) -> None:
    model, schemes = nn.Linear(7, 3), {"": Scheme.parse("w3")}
    Safetensors().write(
        model, ex.layers_of(model), schemes, ex.quantized_by(model, schemes), tmp_path / "out", {}
    )
    fresh = load(nn.Linear(7, 3), tmp_path / "out")
    assert len(set(fresh.weight[0].tolist())) <= 8


@pytest.mark.parametrize("name", ["resnet20", "vit", "char_gpt"])
def test_real_networks(
    assets: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.syspath_prepend(str(assets))
    archs: Any = importlib.import_module("archs")

    made: dict[str, tuple[Callable[[], nn.Module], str, torch.Tensor]] = {
        "resnet20": (
            lambda: archs.ResNetCIFAR(20), "cifar10_resnet20/resnet20", torch.randn(2, 3, 32, 32)
        ),
        "vit": (archs.TinyViT, "cifar10_vit/vit", torch.randn(2, 3, 32, 32)),
        "char_gpt": (archs.CharGPT, "char_gpt_shakespeare/char_gpt", torch.arange(60).view(2, 30)),
    }  # fmt: skip
    make, weights, inputs = made[name]
    model = make().eval()
    model.load_state_dict(load_file(assets / f"{weights}.safetensors"))
    exporter = Safetensors()
    layers = ex.layers_of(model)
    schemes = ex.mix(exporter, layers, 3)
    quantized = ex.quantized_by(model, schemes)
    exporter.write(model, layers, schemes, quantized, tmp_path / "out", {})
    chosen = {layer: quantized(layer) for layer, scheme in schemes.items() if scheme != ex.KEEP}
    with applied(model, chosen), torch.no_grad():
        reference = model(inputs)
    opened = load(make().eval(), tmp_path / "out")
    with torch.no_grad():
        found = opened(inputs)
    assert torch.equal(*(x[0] if isinstance(x, tuple) else x for x in (found, reference)))
    assert tensor_bytes(tmp_path / "out") == predicted_bytes(exporter, model, layers, schemes)
