"""Every profiler on the denoisers of diffusers: U-Nets with and without text, DiT, PixArt, Flux."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bitfront.sensitivity import Subject
from bitfront.tasks import DiffusionTask
from tests.diffusion import MADE, task
from tests.profiling import MEASURING, ONE_BY_ONE, checked, profiled
from tests.test_diffusion_samplers import flux, pixart

LEAST: dict[str, Any] = {
    "samples": 2, "eval_samples": 1, "batch": 2, "timesteps": 2, "timestep_groups": 2,
    "device": "cpu",
}  # fmt: skip
BROUGHT = {"flux": flux, "pixart": pixart}


@pytest.fixture(scope="module", params=[*MADE, *BROUGHT])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    def made(folder: Path) -> DiffusionTask:
        if request.param in BROUGHT:
            return DiffusionTask(BROUGHT[request.param], **LEAST)
        return task(folder, request.param, **LEAST, steps=2)

    with profiled(made(tmp_path_factory.mktemp("denoiser"))) as found:
        yield found


@pytest.mark.parametrize("name", MEASURING)
def test_every_profiler_gives_finite_tables(name: str, subject: Subject) -> None:
    """Slow ones on a few layers from all over the network."""
    layers = subject.task.layers
    if name in ONE_BY_ONE:
        layers = layers[:: len(layers) // 4]
    checked(name, subject, layers)
