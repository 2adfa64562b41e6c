"""Diffusion tasks of pipelines: what is recorded, fingerprints, text encoders, the main job."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitfront.tasks import DiffusionTask, Evaluator
from bitfront.tasks.fingerprint import batches_digest
from tests.commands import Commands
from tests.diffusion import MADE, SMALL, disturb, task, written


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("diffusion"))


@pytest.mark.parametrize("kind", list(MADE))
def test_every_kind_of_pipeline(kind: str, folder: Path) -> None:
    found = task(folder, kind)
    twice = 1 if kind == "unconditional" else 2  # guidance: with the condition and without
    assert [b.samples for b in found.calibration] == [2 * twice] * 2 + [twice] * 2
    assert [int(b.part[0]) for b in found.calibration if b.part is not None] == [0, 1, 0, 1]
    evaluator = Evaluator(found, found.evaluation)
    full = evaluator.baseline.estimates()
    assert (full["sqnr"].value, full["psnr"].value) == (np.inf, np.inf)
    assert full["ssim"].value == pytest.approx(1, abs=1e-12)
    disturb(found.model)
    measured = evaluator.measure()
    worse = evaluator.worsening(measured)
    assert all(worse[name].value > 0 for name in found.metrics)
    assert measured.estimates()["psnr"].samples == 2
    assert measured.estimates()["kl"].value == pytest.approx(
        measured.estimates()["mse"].value * found.outputs(found.evaluation[0]).shape[-1] / 2
    )


def test_prompts_of_a_file(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\n\n two dogs \n")
    found = task(folder, "by prompt", calibration=file)
    assert found.fingerprint() == task(folder, "by prompt").fingerprint()
    assert found.recipe()["calibration"] == str(file)


def test_text_encoders_are_layers_when_asked_for(folder: Path) -> None:
    plain, found = task(folder, "by prompt"), task(folder, "by prompt", text_encoders=True)
    for one, two in zip(plain.evaluation, found.evaluation, strict=True):
        assert two.args[0] == ["a cat", "two dogs"]
        with torch.no_grad():
            torch.testing.assert_close(plain.outputs(one), found.outputs(two))
    names = {layer.name.partition(".")[0] for layer in found.layers}
    assert names == {"unet", "text_encoder"}
    qkv = {n.rpartition(".")[2] for g in found.groups for n in g if n.startswith("text_encoder")}
    assert qkv == {"q_proj", "k_proj", "v_proj"}
    assert task(folder, "by prompt", text_encoders=True).fingerprint() == found.fingerprint()
    evaluator = Evaluator(found, found.evaluation)
    assert evaluator.measure().estimates()["kl"].value == 0
    disturb(found.model.get_submodule("text_encoder"))
    worse = evaluator.worsening(evaluator.measure())
    assert all(worse[name].value > 0 for name in found.metrics)


def test_gradients_reach_text_encoders(folder: Path) -> None:
    """The one-pass profiler scores their layers, and finds them worse at fewer bits."""
    from bitfront.quant.build import Builder
    from bitfront.scratch import Scratch
    from bitfront.sensitivity import PROFILERS, Subject
    from bitfront.sensitivity.base import NoCheckpoints
    from bitfront.types import Scheme

    found = task(folder, "by prompt", text_encoders=True)
    layers = [la for la in found.layers if la.name.endswith("layers.0.mlp.fc1")]
    pairs = [(layers[0], Scheme.parse(s)) for s in ("w2", "w8")]

    def run() -> None:
        for batch in found.calibration:
            found.outputs(batch)

    with Scratch() as scratch:
        subject = Subject(found, Builder(found.model, found.layers, run, scratch), scratch)
        [measured] = PROFILERS["fisher"]().measure(subject, pairs, NoCheckpoints())
    low, high = (m.values["sample@1"].value for m in measured)
    assert low > 10 * high > 0


def test_groups_follow_attention(folder: Path) -> None:
    names = [[n.rpartition(".")[2] for n in group] for group in task(folder, "by prompt").groups]
    assert ["to_q", "to_k", "to_v"] in names, "self-attention"
    assert ["to_k", "to_v"] in names, "cross-attention, whose queries read the image"


def test_variance_channels_are_no_prediction(folder: Path) -> None:
    found = task(folder, "by class")
    batch = found.calibration[0]
    full = found.model(*batch.args, **batch.kwargs).sample
    assert full.shape[1:] == (8, 8, 8)
    assert torch.equal(found.outputs(batch)[:, 0], full[:, :4].flatten(1))


def test_batches_are_calls_along_the_pipelines_own_trajectory(folder: Path) -> None:
    """The DDPM loop, literally: seeds 0 and 2, and the noisiest step of each half."""
    found = task(folder, samples=2, batch=2, timesteps=4)
    from diffusers import DDPMScheduler, UNet2DModel

    source = folder / "unconditional"
    unet = UNet2DModel.from_pretrained(source, subfolder="unet", low_cpu_mem_usage=False)
    scheduler = DDPMScheduler.from_pretrained(source, subfolder="scheduler")
    scheduler.set_timesteps(4)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 2)]
    x = torch.cat([torch.randn(1, 1, 16, 16, generator=g) for g in generators])
    for batch, t in zip(found.calibration, scheduler.timesteps, strict=True):
        torch.testing.assert_close(batch.args[0], x)
        assert batch.args[1] == t
        with torch.no_grad():
            x = scheduler.step(unet(x, t).sample, t, x, generator=generators).prev_sample
    assert [int(b.part[0]) for b in found.calibration if b.part is not None] == [0, 0, 1, 1]


def test_same_seeds_same_batches_and_held_out_ones_differ(folder: Path) -> None:
    for kind in ("unconditional", "by prompt"):
        one, two = task(folder, kind), task(folder, kind)
        assert batches_digest(one.calibration) == batches_digest(two.calibration)
        assert torch.equal(one.generated(), two.generated(reference=True))
        assert one.fingerprint() == two.fingerprint()
    seen = {tuple(b.args[0][i].flatten()[:3].tolist()) for b in one.calibration for i in range(2)}
    held = {tuple(b.args[0][i].flatten()[:3].tolist()) for b in one.evaluation for i in range(2)}
    assert not seen & held
    state = torch.random.get_rng_state()
    one.generated()
    assert torch.equal(state, torch.random.get_rng_state())


def test_images_do_not_depend_on_how_many_are_sampled_together(folder: Path) -> None:
    one, two = task(folder), task(folder, batch=1)
    torch.testing.assert_close(one.generated(), two.generated(), atol=1e-5, rtol=0)


DIFFERENT: dict[str, tuple[dict[str, Any], list[str]]] = {
    "seed": ({"seed": 1}, ["calibration", "evaluation"]),
    "prompts": ({"calibration": ["a cat"]}, ["calibration", "evaluation"]),
    "evaluation prompts": ({"evaluation": ["a bird"]}, ["evaluation"]),
    "steps": ({"steps": 5}, ["sampling"]),
    "guidance": ({"guidance": 3.0}, ["sampling"]),
    "arguments": ({"arguments": {"eta": 0.5}}, ["sampling"]),
    "timesteps": ({"timesteps": 4}, ["calibration", "evaluation"]),
}


@pytest.mark.parametrize("case", list(DIFFERENT))
def test_the_fingerprint_tells_settings_apart(case: str, folder: Path) -> None:
    changes, fields = DIFFERENT[case]
    before = task(folder, "by prompt").fingerprint()
    after = task(folder, "by prompt", **changes).fingerprint()
    assert [k for k in before if before[k] != after[k]] == fields


@pytest.mark.parametrize(
    ("file", "key", "value", "field"),
    [
        ("scheduler/scheduler_config.json", "beta_end", 0.03, "scheduler"),
        ("unet/config.json", "norm_eps", 1e-3, "denoiser"),
        ("vae/config.json", "scaling_factor", 0.5, "components"),
    ],
)
def test_the_fingerprint_covers_the_folder(
    file: str, key: str, value: Any, field: str, folder: Path, tmp_path: Path
) -> None:
    before = task(folder, "by prompt").fingerprint()
    copy = shutil.copytree(folder / "by prompt", tmp_path / "copy")
    config = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps({**config, key: value}))
    found = DiffusionTask(copy, **{**SMALL, **MADE["by prompt"][1]}).fingerprint()
    changed = [k for k in before if before[k] != found[k]]
    assert field in changed
    assert set(changed) <= {field, "architecture"}


def test_the_main_job_on_the_command_line(bitfront: Commands, folder: Path, tmp_path: Path) -> None:
    """Later commands know the study by its name; the export opens again and gives the same."""
    model = MADE["by class"][0](folder / "by class")
    options = [
        "--task", "diffusion", "--model", model, "--classes", "1,7", "--steps", 2,
        "--guidance", 1.5, "--samples", 2, "--eval-samples", 2, "--batch", 2, "--timesteps", 2,
        "--timestep-groups", 2, "--device", "cpu",
    ]  # fmt: skip
    schemes = ["--schemes", "w4 w8", "--budget", "6bpw", "--explore", 0, "--max-measurements", 0]
    found = bitfront.ok("search", "dit", *options, *schemes, "--json").document
    [answer] = found["answers"]
    assert answer["trial"]["metrics"]["psnr"]["value"] > 10
    assert "calibration/psnr" not in answer["trial"]["metrics"]
    again = bitfront.ok("search", "dit", *schemes, "--json").document
    assert again["answers"][0]["trial"]["id"] == answer["trial"]["id"]
    assert "ssim" in bitfront.ok("front", "dit", "--metric", "ssim", "--metric", "psnr").out
    written = bitfront.ok("export", "dit", answer["trial"]["id"], tmp_path / "out", "--json")
    assert written.document["max_difference"] == 0
    line = bitfront.refused("search", "dit", *schemes, "--seed", 3)
    assert "calibration" in line
    assert "class labels like" in bitfront.refused("search", "dit", *schemes, "--classes", "cat")
