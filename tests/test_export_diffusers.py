"""Pipelines that diffusers loads by itself: what stands in them, what is refused, the audit."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import damage
from bitfront import pipeline_audit
from bitfront.audit import NOTHING
from bitfront.errors import ExportError
from bitfront.pipeline_audit import without_gradients
from bitfront.quant.export_diffusers import Diffusers, quantization_config
from bitfront.quant.sdnq_packing import pack
from bitfront.quant.sdnq_stored import UNITS
from bitfront.quant.surgery import applied
from bitfront.quant.tensorfiles import TensorFolder
from bitfront.quant.weights import QuantizedLayer, QuantizedWeight
from bitfront.tasks import DiffusionTask
from bitfront.types import Layer, Scheme, parse_schemes
from tests import exporting as ex
from tests.diffusion import task as diffusion_task
from tests.diffusion import written

EXPORTER = Diffusers()
POOL = parse_schemes("w2 w3 w4 w5 w6 w7 w8 w3z w8z w4g8 w2g4z w8g8 bf16 fp16 fp8")
LINEAR = Layer("a", "linear", 16, 64)
CONV = Layer("a", "conv2d", 16, 36, kernel=(3, 3))
POINT = Layer("a", "conv2d", 16, 32, kernel=(1, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ex.needs_sdnq()
    return written(tmp_path_factory.mktemp("pipelines"))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fresh process is this one."""
    monkeypatch.setattr(pipeline_audit, "ask", lambda room, module: pipeline_audit.respond(room))


def chosen(task: DiffusionTask, seed: int = 0) -> dict[str, Scheme]:
    return ex.mix(EXPORTER, task.layers, seed, pool=POOL)


def export(task: DiffusionTask, schemes: dict[str, Scheme], out: Path, **options: Any) -> Any:
    quantized = options.pop("quantized", ex.quantized_by(task.model, schemes))
    return pipeline_audit.export(task, EXPORTER, task.layers, schemes, quantized, out, {})


@pytest.mark.parametrize("bits", UNITS)
def test_packing_is_sdnqs(bits: int) -> None:
    ex.needs_sdnq()
    from sdnq.packed_int import pack_int

    codes = torch.randint(0, 1 << bits, (8 * 123,), generator=torch.Generator().manual_seed(bits))
    theirs = pack_int(codes.to(torch.uint8), f"uint{bits}")
    assert torch.equal(pack(codes.to(torch.uint8), bits), theirs)


@pytest.mark.parametrize(
    ("layer", "scheme", "reason"),
    [
        (LINEAR, "w8a8", "leaves inputs and outputs as they are"),
        (LINEAR, "fp8a8", "leaves inputs and outputs as they are"),
        (LINEAR, "w4kv8", "leaves inputs and outputs as they are"),
        (LINEAR, "nvfp4", "no scales like those of nvfp4; use integers or fp8"),
        (LINEAR, "mxfp8", "no scales like those of mxfp8"),
        (LINEAR, "w4g24", "group size 24 does not divide 64"),
        (CONV, "w4g9", "channels at one place; use schemes without g"),
        (CONV, "fp8", "fp8 is for two-dimensional weights"),
        (Layer("a", "linear", 3, 5), "w4", "packs 2 codes of 4 bits together, and it has 15"),
        (Layer("a", "linear", 6, 6), "w3", "packs 8 codes of 3 bits together, and it has 36"),
        (Layer("a", "linear", 16, 64, "bfloat16"), "w4z", "rounds zero points to bfloat16"),
        (Layer("a", "linear", 16, 64, "float64"), "w4", "it is float64"),
        (Layer("a", "conv_transpose2d", 16, 64), "w4", "a conv_transpose2d can only be kept"),
        (Layer("a", "hf_conv1d", 16, 64), "bf16", "a hf_conv1d can only be kept"),
        (Layer("a", "linear", 16, 64, shares="b"), "w4", "its weight is tied to 'b'"),
    ],
)
def test_pairs_it_cannot_hold(layer: Layer, scheme: str, reason: str) -> None:
    found = EXPORTER.reason(layer, Scheme.parse(scheme))
    assert found is not None
    assert reason in found


@pytest.mark.parametrize("scheme", ["keep", "w8", "w3", "w4z", "bf16"])
@pytest.mark.parametrize("layer", [LINEAR, CONV, POINT, Layer("a", "embedding", 16, 64)], ids=str)
def test_pairs_it_holds(layer: Layer, scheme: str) -> None:
    assert EXPORTER.reason(layer, Scheme.parse(scheme)) is None


def test_convolutions_of_one_place_have_groups() -> None:
    assert EXPORTER.reason(POINT, Scheme.parse("w4g16")) is None


def test_models_it_cannot_hold(folder: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DModel

    class Other(nn.Linear):
        pass

    def refused(model: nn.Module, reason: str) -> None:
        with pytest.raises(ExportError, match=reason):
            EXPORTER.write(model, (), {}, ex.quantized_by(model, {}), tmp_path / "out", {})

    refused(ex.tiny_llama(), "for a pipeline's denoiser")
    conditioned = diffusion_task(folder, "by prompt", text_encoders=True)
    refused(conditioned.model, "without its text encoders")
    found, _ = ex.denoiser("unconditional", folder, torch.float32)
    model: Any = found
    refused(UNet2DModel.from_config({**model.config, "_name_or_path": ""}), "not from the folder")
    layers = ex.layers_of(model)
    model.conv_in = Other(3, 4)
    schemes = {"conv_in": Scheme.parse("w4")}
    with pytest.raises(ExportError, match="SDNQ quantizes no Other: keep it"):
        EXPORTER.write(
            model, layers, schemes, ex.quantized_by(model, schemes), tmp_path / "out", {}
        )
    assert list(tmp_path.iterdir()) == []


def test_config_names_every_layer(folder: Path) -> None:
    model, _ = ex.denoiser("unconditional", folder, torch.float32)
    schemes = {"conv_in": "w4", "mid_block.attentions.0.to_q": "w3g8", "conv_out": "bf16"}
    config = quantization_config(model, {name: Scheme.parse(s) for name, s in schemes.items()})
    assert config["modules_quant_config"] == {
        "conv_in.weight": {"weights_dtype": "int4", "group_size": -1},
        "mid_block.attentions.0.to_q.weight": {"weights_dtype": "int3", "group_size": 8},
    }
    names = {f"{layer.name}.weight" for layer in ex.layers_of(model)}
    assert set(config["modules_to_not_convert"]) == names - set(config["modules_quant_config"])


def test_other_components_are_the_pipelines_files(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ex.pipelines.by_prompt(folder / "by prompt"), source)
    weights = source / "vae" / "diffusion_pytorch_model.safetensors"
    shutil.copyfile(weights, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    weights.with_suffix(".bin").write_bytes(b"old")
    (source / "sd.safetensors").write_bytes(b"all of it again")
    task = DiffusionTask(
        str(source), ["a cat"], steps=2, samples=1, eval_samples=1, batch=1, timesteps=1,
        timestep_groups=1, hold_back=0, device="cpu",
    )  # fmt: skip
    out = tmp_path / "out"
    schemes: dict[str, Scheme] = {}
    EXPORTER.write(task.model, task.layers, schemes, ex.quantized_by(task.model, {}), out, {})
    files = {str(p.relative_to(source)) for p in source.rglob("*") if p.is_file()}
    skipped = {"vae/diffusion_pytorch_model.fp16.safetensors",
               "vae/diffusion_pytorch_model.bin", "sd.safetensors"}  # fmt: skip
    found = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert found == files - skipped | {"bitfront.json"}
    for name in files - skipped:
        if not name.startswith("unet/"):
            assert (out / name).read_bytes() == (source / name).read_bytes()
    kept = TensorFolder(out)
    for name, tensor in task.model.state_dict().items():
        assert torch.equal(kept.read(name), tensor)
    assert "quantization_config" not in json.loads((out / "unet" / "config.json").read_text())


@pytest.mark.parametrize("kind", ["unconditional", "by class", "by prompt"])
def test_plain_from_pretrained_samples_the_trials_images(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    from diffusers import DiffusionPipeline

    task = diffusion_task(folder, kind)
    schemes = chosen(task, 1)
    quantized = ex.quantized_by(task.model, schemes)
    made = {name: quantized(name) for name, s in schemes.items() if s != ex.KEEP}
    full = task.generated(reference=True)
    with torch.no_grad(), applied(task.model, made), without_gradients(task.model):
        expected = task.generated()
    EXPORTER.write(task.model, task.layers, schemes, quantized, tmp_path / "out", {})
    opened = DiffusionPipeline.from_pretrained(tmp_path / "out")
    assert opened.dtype == torch.float32
    images = sample(task, opened)
    # weights are the same to the bit, elsewhere in memory, where some kernels sum in another order
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)
    assert float((images - full).abs().max()) > 1e-3


COMPILED = """
import torch
from diffusers import DiffusionPipeline
from sdnq.common import check_torch_compile

assert check_torch_compile()
args, kwargs = torch.load("call.pt")
model = DiffusionPipeline.from_pretrained("out").unet
with torch.no_grad():
    torch.save(model(*args, **kwargs).sample, "output.pt")
"""


def test_layers_that_sdnq_compiles(folder: Path, tmp_path: Path) -> None:
    """As it does unless told not to."""
    task = diffusion_task(folder, "unconditional")
    quantizable = [la for la in task.layers if EXPORTER.reason(la, Scheme.parse("w3z")) is None]
    schemes = {la.name: Scheme.parse("w3z") for la in quantizable[1:3]}
    quantized = ex.quantized_by(task.model, schemes)
    EXPORTER.write(task.model, task.layers, schemes, quantized, tmp_path / "out", {})
    args, kwargs = tuple(task.evaluation[0].args), dict(task.evaluation[0].kwargs)
    torch.save((args, kwargs), tmp_path / "call.pt")
    environment = {k: v for k, v in os.environ.items() if k != "SDNQ_USE_TORCH_COMPILE"}
    command = [sys.executable, "-c", COMPILED]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    with torch.no_grad(), applied(task.model, {name: quantized(name) for name in schemes}):
        expected = task.called(args, kwargs)
    torch.testing.assert_close(torch.load(tmp_path / "output.pt"), expected, rtol=0, atol=1e-5)


def sample(task: DiffusionTask, pipeline: Any) -> Tensor:
    """The task's evaluation images by another pipeline."""
    from bitfront.tasks.pipeline_sampling import PipelineSampler
    from bitfront.tasks.trajectories import sampled

    assert task.pipeline is not None
    component = "unet" if hasattr(pipeline, "unet") else "transformer"
    pipeline.set_progress_bar_config(disable=True)
    return sampled(PipelineSampler((pipeline, component), **task.pipeline), task.plan(2))


@pytest.mark.parametrize(
    ("kind", "dtype"), [("unconditional", "bfloat16"), ("by prompt", "float32")]
)
def test_in_a_fresh_process(kind: str, dtype: str, folder: Path, tmp_path: Path) -> None:
    task = diffusion_task(folder, kind, dtype=dtype)
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    found = export(task, chosen(task, 2), tmp_path / "out")
    assert found.ok
    assert found.max_difference == 0.0
    assert found.bytes == found.predicted_bytes
    assert found.spread > 0
    assert json.loads((tmp_path / "out" / "bitfront.json").read_text())["dtype"] == dtype
    for name, tensor in task.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_task_without_a_pipeline(folder: Path, tmp_path: Path) -> None:
    from tests.diffusion import brought

    with pytest.raises(ExportError, match="a diffusion task without one: study the pipeline's"):
        export(brought(folder), {}, tmp_path / "out")


def test_without_sdnq_nothing_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers.utils

    task = diffusion_task(folder)
    monkeypatch.setattr(diffusers.utils, "is_sdnq_available", lambda: False)
    with pytest.raises(ExportError, match=r"sdnq is missing.*pip install 'bitfront\[diffusers\]'"):
        export(task, {}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def flipped(out: Path) -> str:
    damage.flip(out / "unet" / "diffusion_pytorch_model.safetensors", -1, 2)
    return "is damaged"


def other_scheduler(out: Path) -> str:
    path = out / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "beta_end": 0.5}))
    return "an image from the same seed differs by up to"


def other_arithmetic(out: Path) -> str:
    path = out / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "norm_eps": 0.5}))
    return "outputs differ by up to .*; the first layer to differ is"


def other_norm(out: Path) -> str:
    """By a last bit, which no output shows, and as if it had been written so."""
    damage.bit(out, "conv_norm_out.weight")
    damage.sign(out)
    return "^tensor 'conv_norm_out.weight' differs, of 1$"


@pytest.mark.parametrize("harm", [flipped, other_scheduler, other_arithmetic, other_norm])
def test_what_is_wrong_is_named(
    harm: Callable[[Path], str], folder: Path, tmp_path: Path, here: None
) -> None:
    task, out = diffusion_task(folder), tmp_path / "out"
    schemes = {"conv_in": Scheme.parse("w4")}
    quantized = ex.quantized_by(task.model, schemes)
    EXPORTER.write(task.model, task.layers, schemes, quantized, out, {})
    arguments = (task, EXPORTER, out, task.layers, schemes, quantized)
    assert pipeline_audit.compare(*arguments).ok
    line = harm(out)
    found = pipeline_audit.compare(*arguments)
    assert not found.ok
    assert "\n" not in "".join(found.failures)
    assert re.search(line, "; ".join(found.failures))


def test_other_components_are_what_was_copied(folder: Path, tmp_path: Path, here: None) -> None:
    task, out = diffusion_task(folder, "by prompt"), tmp_path / "out"
    EXPORTER.write(task.model, task.layers, {}, ex.quantized_by(task.model, {}), out, {})
    damage.flip(out / "vae" / "diffusion_pytorch_model.safetensors", -1)
    quantized = ex.quantized_by(task.model, {})
    found = pipeline_audit.compare(task, EXPORTER, out, task.layers, {}, quantized)
    changed = "vae/diffusion_pytorch_model.safetensors has changed since it was written"
    assert changed in found.failures


def test_a_wrong_scale_is_found_by_its_weights(folder: Path, tmp_path: Path, here: None) -> None:
    """And the folder does not appear."""
    task = diffusion_task(folder)
    schemes = {"conv_in": Scheme.parse("w4"), "conv_out": Scheme.parse("w8")}
    make, calls = ex.quantized_by(task.model, schemes), list[str]()

    def fickle(name: str) -> QuantizedLayer:
        calls.append(name)
        q = make(name).weight
        assert q.scale is not None
        wrong = name == "conv_out" and calls.count(name) == 1
        return QuantizedLayer(QuantizedWeight(q.scheme, q.codes, q.scale * (1.01 if wrong else 1)))

    with pytest.raises(ExportError, match="weights of layer 'conv_out' differ") as caught:
        export(task, schemes, tmp_path / "out", quantized=fickle)
    assert "conv_in" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_open_is_a_fault(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = diffusion_task(folder)
    answer = {**NOTHING, "failures": ["it does not open: ValueError: no such class"]}
    monkeypatch.setattr(pipeline_audit, "ask", lambda room, module: answer)
    with pytest.raises(ExportError, match="not what was measured: it does not open"):
        export(task, {}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
