"""What every exporter promises, over every registered one."""

from __future__ import annotations

import copy
import errno
import gc
import json
import weakref
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from bitfront.errors import ExportError, UnknownName
from bitfront.quant import export_base
from bitfront.quant.exporters import EXPORTERS, Exporter, predicted_bytes, tensor_bytes
from bitfront.quant.surgery import applied
from bitfront.quant.tensorfiles import TensorFolder
from bitfront.quant.weights import QuantizedLayer
from bitfront.types import Layer, Scheme
from tests import exporting as ex
from tests.disk import file_limit

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

Subject = tuple[nn.Module, dict[str, Tensor]]  # a model, and what it is called with


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pipelines")


def subjects(exporter: Exporter, dtype: torch.dtype, pipelines: Path) -> list[Subject]:
    """Models that the exporter holds, with inputs."""
    x, ids = ex.odd_inputs(dtype)
    words = {"input_ids": ex.token_ids()}
    models: list[Subject] = [
        (ex.odd_net(dtype=dtype), {"x": x, "ids": ids}),
        (ex.tiny_llama(tied=True, dtype=dtype), words),
        (ex.tiny_llama(tied=False, dtype=dtype), words),
        (ex.tiny_gpt2(dtype), words),
        *(ex.denoiser(kind, pipelines, dtype) for kind in ex.DENOISERS),
    ]
    return [(model, call) for model, call in models if exporter.reason_model(model) is None]


def blank(model: Any) -> nn.Module:
    """A model of the same architecture with other weights."""
    from diffusers import ModelMixin
    from transformers import AutoModelForCausalLM

    dtype = next(model.parameters()).dtype
    if isinstance(model, ModelMixin):  # cast when it is made anew, its buffers would be others
        other: nn.Module = copy.deepcopy(cast(Any, model))
        for parameter in other.parameters():
            parameter.data += 1
        return other
    if isinstance(model, ex.OddNet):
        return ex.odd_net(9, dtype)
    torch.manual_seed(9)
    return AutoModelForCausalLM.from_config(model.config, dtype=dtype).eval()


def outputs(model: nn.Module, call: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        found = model(**call)
    if isinstance(found, Tensor):
        return found
    return found.logits if hasattr(found, "logits") else found.sample


@pytest.fixture(params=[name for name, e in EXPORTERS.items() if isinstance(e, Exporter)])
def exporter(request: pytest.FixtureRequest) -> Exporter:
    found = EXPORTERS[request.param]
    assert isinstance(found, Exporter)
    if request.param == "diffusers":
        ex.needs_sdnq()
    return found


@pytest.fixture
def subject(exporter: Exporter, pipelines: Path) -> Subject:
    """One model that the exporter holds: the tied Llama where it can."""
    found = subjects(exporter, torch.float32, pipelines)
    return found[1 if isinstance(found[0][0], ex.OddNet) else 0]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def odd_layer(model: nn.Module) -> str:
    """A linear layer whose inputs 32 does not divide."""
    layers = [layer for layer in ex.layers_of(model) if layer.kind == "linear"]
    return next(layer.name for layer in layers if layer.cols % 32)


def export(
    exporter: Exporter, model: nn.Module, schemes: dict[str, Scheme], folder: Path, **options: Any
) -> tuple[Layer, ...]:
    layers = ex.layers_of(model)
    exporter.write(
        model, layers, schemes, ex.quantized_by(model, schemes), folder, {"kl": 0.25}, **options
    )
    return layers


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_opens_as_the_quantized_model_in_the_predicted_bytes(
    exporter: Exporter, dtype: torch.dtype, pipelines: Path, tmp_path: Path
) -> None:
    for i, (model, call) in enumerate(subjects(exporter, dtype, pipelines)):
        layers = ex.layers_of(model)
        for seed in range(3):
            schemes = ex.mix(exporter, layers, seed)
            folder = tmp_path / f"{i}-{seed}"
            export(exporter, model, schemes, folder)
            assert tensor_bytes(folder) == predicted_bytes(exporter, model, layers, schemes)
            quantized = ex.quantized_by(model, schemes)
            changed = {name: quantized(name) for name, s in schemes.items() if s != ex.KEEP}
            with applied(model, changed):
                expected = outputs(model, call)
            opened = exporter.open(folder, None if exporter.stands_alone else blank(model))
            assert torch.equal(outputs(opened, call), expected)


def test_bytes_of_many_mixes(exporter: Exporter, pipelines: Path, tmp_path: Path) -> None:
    for i, (model, _) in enumerate(subjects(exporter, torch.float32, pipelines)):
        layers = ex.layers_of(model)
        for seed in range(10, 18):
            schemes = ex.mix(exporter, layers, seed)
            export(exporter, model, schemes, tmp_path / f"{i}-{seed}")
            predicted = predicted_bytes(exporter, model, layers, schemes)
            assert tensor_bytes(tmp_path / f"{i}-{seed}") == predicted


def test_stored_is_what_stands_in_the_file(
    exporter: Exporter, pipelines: Path, tmp_path: Path
) -> None:
    model, _ = subjects(exporter, torch.float32, pipelines)[-1]
    layers = ex.layers_of(model)
    schemes = ex.mix(exporter, layers, 4)
    export(exporter, model, schemes, tmp_path / "out")
    specs = TensorFolder(tmp_path / "out").specs
    for layer in layers:
        scheme = schemes[layer.name]
        if scheme == ex.KEEP:
            continue
        for suffix, (dtype, shape) in exporter.stored(layer, scheme).items():
            spec = specs[f"{layer.name}.{suffix}"]
            assert (spec.dtype, spec.shape) == (dtype, shape)


def test_everything_kept_is_the_model_unchanged(
    exporter: Exporter, subject: Subject, tmp_path: Path
) -> None:
    model, call = subject
    export(exporter, model, {}, tmp_path / "out")
    opened = exporter.open(tmp_path / "out", blank(model))
    assert torch.equal(outputs(opened, call), outputs(model, call))


def test_shards_hold_the_same(exporter: Exporter, subject: Subject, tmp_path: Path) -> None:
    model, call = subject
    schemes = ex.mix(exporter, ex.layers_of(model), 5)
    export(exporter, model, schemes, tmp_path / "one")
    export(exporter, model, schemes, tmp_path / "many", shard_bytes=4_000)
    assert len(list((tmp_path / "many").rglob("*model-0*-of-0*.safetensors"))) > 2
    one, many = TensorFolder(tmp_path / "one"), TensorFolder(tmp_path / "many")
    assert one.specs == many.specs
    opened = [exporter.open(tmp_path / name, blank(model)) for name in ("one", "many")]
    assert torch.equal(outputs(opened[0], call), outputs(opened[1], call))


@pytest.fixture
def tied(exporter: Exporter) -> nn.Module:
    model: nn.Module = ex.tiny_llama()
    reason = exporter.reason_model(model)
    if reason is not None:
        pytest.skip(f"{exporter.name} cannot hold a model with tied weights: {reason}")
    return model


def test_tied_tensors_stand_there_once(exporter: Exporter, tied: nn.Module, tmp_path: Path) -> None:
    export(exporter, tied, {}, tmp_path / "out")
    names = set(TensorFolder(tmp_path / "out").specs)
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names


def test_manifest(exporter: Exporter, subject: Subject, tmp_path: Path) -> None:
    schemes = ex.mix(exporter, ex.layers_of(subject[0]), 6)
    layers = export(exporter, subject[0], schemes, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "bitfront.json").read_text())
    assert manifest["exporter"] == exporter.name
    assert manifest["about"] == {"kl": 0.25}
    assert manifest["tensor_bytes"] == tensor_bytes(tmp_path / "out")
    assert manifest["versions"]["torch"] == torch.__version__
    assert {k: v["scheme"] for k, v in manifest["layers"].items()} == {
        layer.name: str(schemes[layer.name]) for layer in layers
    }


def test_one_layer_at_a_time(exporter: Exporter, subject: Subject, tmp_path: Path) -> None:
    """A layer's codes are gone before the next layer is asked for."""
    model, _ = subject
    layers = ex.layers_of(model)
    schemes = ex.mix(exporter, layers, 1, pool=[Scheme.parse("w4")])
    make, asked = ex.quantized_by(model, schemes), []
    alive: list[weakref.ref[Tensor]] = []

    def quantized(name: str) -> QuantizedLayer:
        gc.collect()
        assert all(reference() is None for reference in alive)
        layer = make(name)
        alive.append(weakref.ref(layer.weight.codes))
        asked.append(name)
        return layer

    exporter.write(model, layers, schemes, quantized, tmp_path / "out", {})
    owned = {layer.name for layer in layers if layer.shares is None}
    assert sorted(asked) == sorted(n for n, s in schemes.items() if s != ex.KEEP and n in owned)


def test_refuses_a_pair_naming_layer_and_reason(
    exporter: Exporter, subject: Subject, tmp_path: Path
) -> None:
    name = odd_layer(subject[0])
    with pytest.raises(ExportError, match=rf"{name}' as w4g32: group size 32 does"):
        export(exporter, subject[0], {name: Scheme.parse("w4g32")}, tmp_path / "out")
    with pytest.raises(ExportError, match="no such layer"):
        export(exporter, subject[0], {"nowhere": ex.KEEP}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_tied_layers_must_agree(exporter: Exporter, tied: nn.Module, tmp_path: Path) -> None:
    schemes = {"model.embed_tokens": Scheme.parse("fp16")}
    with pytest.raises(ExportError, match=r"lm_head.*shares its weight with 'model\.embed_tokens'"):
        export(exporter, tied, schemes, tmp_path / "out")


def test_refuses_weights_that_are_not_there(
    exporter: Exporter, subject: Subject, tmp_path: Path
) -> None:
    model = copy.deepcopy(subject[0]).to("meta")
    with pytest.raises(ExportError, match="meta device"):
        exporter.write(model, (), {}, ex.quantized_by(model, {}), tmp_path / "out", {})
    assert list(tmp_path.iterdir()) == []


def test_existing_folders(exporter: Exporter, subject: Subject, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export(exporter, subject[0], {}, out)  # an empty folder is as good as none
    (out / "mine.txt").write_text("old")
    with pytest.raises(ExportError, match="not empty"):
        export(exporter, subject[0], {}, out)
    assert (out / "mine.txt").exists()
    export(exporter, subject[0], {}, out, overwrite=True)
    assert not (out / "mine.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_bad_targets(exporter: Exporter, subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="create it first"):
        export(exporter, subject[0], {}, tmp_path / "no" / "out")
    with pytest.raises(ExportError, match="is a file"):
        export(exporter, subject[0], {}, tmp_path / "file")
    with pytest.raises(ExportError, match="create it first"):
        export(exporter, subject[0], {}, tmp_path / "file" / "out")


def test_nothing_is_left_of_a_failure(exporter: Exporter, subject: Subject, tmp_path: Path) -> None:
    old = tmp_path / "out"
    export(exporter, subject[0], {}, old)
    before = contents(old)

    def broken(name: str) -> QuantizedLayer:
        raise KeyboardInterrupt

    def refuse(folder: Path) -> None:
        assert (folder / "bitfront.json").exists()
        raise ExportError("not the same")

    layers = ex.layers_of(subject[0])
    schemes = {odd_layer(subject[0]): Scheme.parse("w4")}
    with pytest.raises(KeyboardInterrupt):
        exporter.write(subject[0], layers, schemes, broken, old, {}, overwrite=True)
    with pytest.raises(ExportError, match="not the same"):
        export(exporter, subject[0], {}, old, overwrite=True, check=refuse)
    assert contents(old) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_full_disk(
    exporter: Exporter, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with file_limit(20_000), pytest.raises(ExportError, match="cannot write 'out'"):
        export(exporter, subject[0], {}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export_base, "write_files", full)
    with pytest.raises(ExportError, match="the disk is full"):
        export(exporter, subject[0], {}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_unknown_exporter() -> None:
    with pytest.raises(UnknownName, match="safetensors"):
        EXPORTERS["exl2"]
