"""What a diffusion task refuses, in one clear line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitfront.errors import BitfrontError, DataError, InvalidInput, ModelError
from bitfront.tasks import DiffusionTask, Evaluator
from tests.diffusion import MADE, SMALL, brought, task, written


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("diffusion"))


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
