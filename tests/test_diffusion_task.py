"""Diffusion tasks: pipelines of every kind, users' samplers, recording, errors, the main job."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bitfront.errors import BitfrontError, DataError, InvalidInput, ModelError
from bitfront.tasks import DiffusionTask, Evaluator
from bitfront.tasks.fingerprint import batches_digest
from tests import pipelines
from tests.commands import Commands

ROOT = Path(__file__).resolve().parents[1]

SMALL: dict[str, Any] = {
    "steps": 4, "samples": 3, "eval_samples": 2, "batch": 2, "timesteps": 2, "timestep_groups": 2,
    "device": "cpu",
}  # fmt: skip
MADE: dict[str, tuple[Any, dict[str, Any]]] = {
    "unconditional": (pipelines.unconditional, {}),
    "by class": (pipelines.by_class, {"classes": [3, 7]}),
    "by prompt": (pipelines.by_prompt, {"calibration": ["a cat", "two dogs"]}),
}

BROUGHT = """
import torch
from torch import nn


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Conv2d(1, 4, 3, 1, 1)
        self.time, self.label = nn.Linear(1, 4), nn.Linear(1, 4)
        self.out = nn.Conv2d(4, 1, 3, 1, 1)

    def forward(self, x, t, y=None):
        h = self.image(x) + self.time(t[:, None])[..., None, None]
        if y is not None:
            h = h + self.label(y[:, None])[..., None, None]
        return self.out(torch.tanh(h))


def flow(steps=4):
    torch.manual_seed(0)
    net = Denoiser()

    def sample(generators, conditions):
        y = None if conditions is None else torch.tensor(conditions).float()
        x = torch.stack([torch.randn(1, 12, 12, generator=g) for g in generators])
        for i in range(steps):
            x = x + net(x, torch.full((len(x),), i / steps), y) / steps
        return x / 4 + 0.5

    return net, sample


def alone():
    return Denoiser()


def silent():
    return Denoiser(), lambda generators, conditions: torch.zeros(len(generators), 1, 4, 4)


def flat():
    net = Denoiser()
    return net, lambda g, c: net(torch.zeros(len(g), 1, 4, 4), torch.zeros(len(g))).flatten(1)


def distance(images, references):
    return (images - references).abs().amax((1, 2, 3))


def ssim(images, references):
    return torch.zeros(len(images))


def scalar(images, references):
    return 0.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("diffusion")
    (made / "mine.py").write_text(BROUGHT)
    return made


def task(folder: Path, kind: str = "unconditional", **changes: Any) -> DiffusionTask:
    make, given = MADE[kind]
    return DiffusionTask(make(folder / kind), **{**SMALL, **given, **changes})


def brought(folder: Path, name: str = "flow", **changes: Any) -> DiffusionTask:
    given = {k: v for k, v in SMALL.items() if k != "steps"}
    return DiffusionTask(f"{folder / 'mine.py'}:{name}", **{**given, **changes})


def disturb(model: nn.Module, by: float = 0.02) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(by * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))


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


def test_pieces_record_different_steps_of_a_stretch(folder: Path) -> None:
    found = brought(folder, arguments={"steps": 8}, samples=8)
    times = [float(batch.args[1][0]) * 8 for batch in found.calibration]
    assert times == [0, 4, 1, 5, 2, 6, 3, 7]


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


def test_a_users_sampler_in_another_dtype(folder: Path) -> None:
    found = brought(folder, classes=[1, 2], dtype="bfloat16")
    assert found.outputs(found.calibration[0]).dtype == torch.bfloat16
    assert found.calibration[0].args[0].dtype == torch.float32, "as the function gave it"
    assert found.calibration[0].args[2].tolist() == [1, 2]
    assert found.generated().dtype == torch.float32


def test_a_users_score_is_a_metric(folder: Path) -> None:
    found = brought(folder, score=f"{folder / 'mine.py'}:distance")
    evaluator = Evaluator(found, found.evaluation)
    disturb(found.model, 0.1)
    made, full = found.generated(), found.generated(reference=True)
    expected = float((made - full).abs().amax((1, 2, 3)).mean())
    assert evaluator.measure().estimates()["distance"].value == pytest.approx(expected)
    assert expected > 0
    assert found.fingerprint()["score"] != brought(folder).fingerprint()["score"]


def flux() -> Any:
    from diffusers import FluxTransformer2DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net: Any = FluxTransformer2DModel(
            in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=8, pooled_projection_dim=8,
            axes_dims_rope=(2, 2, 4),
        )  # fmt: skip

    def sample(generators: list[torch.Generator], conditions: Any) -> torch.Tensor:
        x = torch.stack([torch.randn(16, 4, generator=g) for g in generators])
        N = len(x)
        ids = torch.zeros(16, 3)
        ids[:, 1], ids[:, 2] = torch.arange(16) // 4, torch.arange(16) % 4
        for t in (1.0, 0.5):
            v = net(
                hidden_states=x, timestep=torch.full((N,), t), pooled_projections=torch.ones(N, 8),
                encoder_hidden_states=torch.ones(N, 3, 8), txt_ids=torch.zeros(3, 3), img_ids=ids,
            ).sample  # fmt: skip
            x = x - v / 2
        return x.reshape(N, 4, 4, 4) / 4 + 0.5

    return net, sample


def pixart() -> Any:
    from diffusers import PixArtTransformer2DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net: Any = PixArtTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4,
            num_layers=1, sample_size=8, cross_attention_dim=16, caption_channels=8,
            use_additional_conditions=False,
        )  # fmt: skip

    def sample(generators: list[torch.Generator], conditions: Any) -> torch.Tensor:
        x = torch.stack([torch.randn(4, 8, 8, generator=g) for g in generators])
        for t in (900, 400):
            text, time = torch.ones(len(x), 3, 8), torch.full((len(x),), t)
            kwargs: dict[str, Any] = {
                "added_cond_kwargs": dict.fromkeys(("resolution", "aspect_ratio"))
            }
            [v] = net(x, text, time, **kwargs, return_dict=False)
            x = x - v / 2
        return x / 4 + 0.5

    return net, sample


@pytest.mark.parametrize("make", [flux, pixart])
def test_transformers_of_other_pipelines(make: Any) -> None:
    """As a live function, which no other process can call again."""
    given = {k: v for k, v in SMALL.items() if k != "steps"}
    found = DiffusionTask(make, **given)
    attention = [{n.rpartition(".")[2] for n in group} for group in found.groups]
    assert {"to_q", "to_k", "to_v"} in [names & {"to_q", "to_k", "to_v"} for names in attention]
    evaluator = Evaluator(found, found.evaluation)
    assert evaluator.measure().estimates()["kl"].value == 0
    disturb(found.model)
    assert evaluator.measure().estimates()["ssim"].value < 1
    with pytest.raises(ModelError, match="live function"):
        found.recipe()


def test_images_are_judged_on_evaluation_data_only(folder: Path) -> None:
    found = brought(folder)
    assert "psnr" not in Evaluator(found, found.calibration).measure().estimates()
    evaluator = Evaluator(found, found.evaluation)
    assert "psnr" not in evaluator.measure(batches=[0]).estimates()
    assert "psnr" not in evaluator.measure().take([0]).estimates()
    assert "psnr" in evaluator.measure().estimates()


def test_a_search_by_predictions_but_not_by_images(folder: Path, tmp_path: Path) -> None:
    import bitfront

    with bitfront.open_study("flow", brought(folder), tmp_path / "b.db") as study:
        choices = bitfront.Choices(include=("image", "out"))
        options: dict[str, Any] = {"profiler": "perturb", "choices": choices}
        [answer] = bitfront.search(study, "w2 w8", ["5bpw"], metric="sqnr_t2", **options)
        assert answer.trial.metrics["calibration/sqnr_t2"].value > 0
        with pytest.raises(InvalidInput, match="perturb gives no table of metric 'psnr'"):
            bitfront.search(study, "w2 w8", ["6bpw"], metric="psnr", **options)


def test_bad_requests_are_one_clear_line(folder: Path, tmp_path: Path) -> None:
    index = {"_class_name": "DDPMPipeline", "vae": ["diffusers", "AutoencoderKL"]}
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "empty.txt").write_text("\n")
    pipeline = {k: MADE[k][0](folder / k) for k in MADE}
    mine = f"{folder / 'mine.py'}"
    cases: list[tuple[Any, dict[str, Any], type[BitfrontError], str]] = [
        (tmp_path, {}, ModelError, "no model_index.json"),
        (tmp_path / "nowhere", {}, ModelError, "no folder"),
        (tmp_path / "none", {}, ModelError, "no denoiser, its components are vae"),
        (f"{mine}", {}, ModelError, "names no function"),
        (pipeline["by prompt"], {}, DataError, "no prompts for a StableDiffusionPipeline"),
        (pipeline["by prompt"], {"classes": [1]}, DataError, "no prompts"),
        (pipeline["by class"], {}, DataError, "no classes for a DiTPipeline"),
        (pipeline["by class"], {"classes": [1.5]}, InvalidInput, "give class labels"),
        (pipeline["by class"], {"classes": [1], "calibration": ["a"]}, InvalidInput, "both"),
        (pipeline["unconditional"], {"calibration": ["a"]}, DataError, "it takes none"),
        (pipeline["unconditional"], {"guidance": 2.0}, InvalidInput, "takes no guidance_scale"),
        (pipeline["unconditional"], {"arguments": {"x": 1}}, InvalidInput, "argument 'x'"),
        (pipeline["unconditional"], {"timesteps": 3}, InvalidInput, "3 timesteps in 2 groups"),
        (pipeline["by prompt"], {"guidance": np.nan}, InvalidInput, "guidance nan"),
        (pipeline["unconditional"], {"samples": 0}, InvalidInput, "samples 0"),
        (pipeline["unconditional"], {"better": "up"}, InvalidInput, "use lower or higher"),
        (pipeline["by prompt"], {"calibration": "no.txt"}, DataError, "no file"),
        (pipeline["by prompt"], {"calibration": tmp_path / "empty.txt"}, DataError, "no calib"),
        (pipeline["by class"], {"classes": [1], "text_encoders": True}, InvalidInput, "has none"),
        (f"{mine}:flow", {}, InvalidInput, "steps for a sampler of a function"),
        (f"{mine}:alone", {"steps": None}, ModelError, "alone returned a Denoiser"),
        (f"{mine}:flow", {"steps": None, "score": f"{mine}:ssim"}, InvalidInput, "is built in"),
    ]
    for model, changes, error, message in cases:
        with pytest.raises(error, match=message) as caught:
            DiffusionTask(model, **{**SMALL, **changes})
        assert "\n" not in str(caught.value)


def test_what_goes_wrong_while_sampling_is_one_clear_line(folder: Path) -> None:
    def first(found: DiffusionTask) -> Any:
        return found.calibration[0]

    cases: list[tuple[DiffusionTask, str]] = [
        (task(folder, timesteps=6), "6 timesteps of a trajectory of 4 calls"),
        (task(folder, "by class", classes=[5000]), "running the pipeline failed"),
        (brought(folder, "silent"), "never calls the denoiser"),
        (brought(folder, "flat"), r"images of shape \(1, 16\)"),
    ]
    for found, message in cases:
        with pytest.raises(InvalidInput, match=message) as caught:
            first(found)
        assert "\n" not in str(caught.value)
    scored = brought(folder, score=f"{folder / 'mine.py'}:scalar")
    with pytest.raises(ModelError, match="'scalar' gave values of shape"):
        Evaluator(scored, scored.evaluation).measure()


def test_not_a_number(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folder / "unconditional", tmp_path / "copy")
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.weight"][0] = torch.nan
    save_file(tensors, file)
    with pytest.raises(ModelError, match=r"'conv_in.weight' have 9 elements that are NaN"):
        DiffusionTask(copy, **SMALL)
    del tensors["conv_in.weight"]
    save_file(tensors, file)
    with pytest.raises(ModelError, match=r"no weights for 'conv_in.weight'"):
        DiffusionTask(copy, **SMALL)
    found = task(folder)
    assert found.calibration
    with torch.no_grad():
        found.model.conv_in.weight.fill_(torch.nan)  # type: ignore[operator, union-attr]
    with pytest.raises(ModelError, match="not finite"):
        found.outputs(found.calibration[0])
    with pytest.raises(ModelError, match="the images are not finite"):
        found.generated()


def test_pickles_are_not_read(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder / "unconditional", tmp_path / "copy")
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ModelError, match="must be safetensors") as caught:
        DiffusionTask(copy, **SMALL)
    assert "\n" not in str(caught.value)


def test_the_main_job_on_the_command_line(bitfront: Commands, folder: Path, tmp_path: Path) -> None:
    """Later commands know the study by its name; the export opens again and gives the same."""
    model = MADE["by class"][0](folder / "by class")
    options = [
        "--task", "diffusion", "--model", model, "--classes", "1,7", "--steps", 2,
        "--guidance", 1.5, "--samples", 2, "--eval-samples", 2, "--batch", 2, "--timesteps", 2,
        "--timestep-groups", 2, "--device", "cpu",
    ]  # fmt: skip
    schemes = ["--schemes", "w4 w8", "--budget", "6bpw", "--refine", 0, "--max-measurements", 0]
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


def test_the_example_of_the_documentation_runs() -> None:
    pytest.importorskip("sklearn")
    found = DiffusionTask(
        str(ROOT / "examples" / "diffusion_task.py:digits"), classes=range(10),
        arguments={"epochs": 10}, samples=10, eval_samples=10, batch=10, device="cpu",
    )  # fmt: skip
    images = found.generated(reference=True)
    inside, rim = images[:, :, :, 2:6].mean(), images[:, :, :, [0, 7]].mean()
    assert inside > 2 * rim, "digits stand in the middle"
    assert [b.samples for b in found.calibration] == [10] * 8


def test_a_real_unet(assets: Path, tmp_path: Path) -> None:
    """The MNIST U-Net with its sampler, started where the first step does not magnify errors."""
    shutil.copy(assets / "archs.py", tmp_path)
    (tmp_path / "mnist.py").write_text(
        "from safetensors.torch import load_file\n"
        "from archs import AttnUNet, ddim_sample\n\n"
        "def unet(weights, steps):\n"
        "    model = AttnUNet()\n"
        "    model.load_state_dict(load_file(weights))\n"
        "    def sample(generators, conditions):\n"
        "        n = len(generators)\n"
        "        return ddim_sample(model, model.alpha_bar(), n, steps, 950, generators[0])\n"
        "    return model, sample\n"
    )
    weights = str(assets / "mnist_attn_unet" / "attn_unet.safetensors")
    found = DiffusionTask(
        f"{tmp_path / 'mnist.py'}:unet", arguments={"weights": weights, "steps": 8},
        samples=2, eval_samples=4, batch=4, device="cpu",
    )  # fmt: skip
    assert len(found.layers) == 43
    assert [b.samples for b in found.evaluation] == [4] * 8
    evaluator = Evaluator(found, found.evaluation)
    images = found.generated(reference=True)
    assert 0.1 < float(images.mean()) < 0.2, "digits are a seventh white"
    disturb(found.model, 1e-3)
    measured = evaluator.measure().estimates()
    assert measured["sqnr"].value > 25
    assert measured["psnr"].value > 20
