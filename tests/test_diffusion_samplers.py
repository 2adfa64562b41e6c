"""Diffusion tasks with samplers of users, and how their images are judged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from bitfront.errors import InvalidInput, ModelError
from bitfront.tasks import DiffusionTask, Evaluator
from tests.diffusion import SMALL, brought, disturb, written

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("diffusion"))


def test_pieces_record_different_steps_of_a_stretch(folder: Path) -> None:
    found = brought(folder, arguments={"steps": 8}, samples=8, hold_back=0)
    times = [float(batch.args[1][0]) * 8 for batch in found.calibration]
    assert times == [0, 4, 1, 5, 2, 6, 3, 7]


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
