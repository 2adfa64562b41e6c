"""Denoisers at 4, 6 and 8 average bits: allocations of each profiler, and of the whole search.

    python -m benchmarks.diffusion > benchmarks/results/diffusion.json

JSON on standard output, tables on standard error. Denoiser SQNR and PSNR of final images, in dB,
against the full model's, on seeds that nothing was chosen by. Round to nearest, a scale a channel;
embeddings are left alone. ``uniform`` is one scheme for all layers; a profiler's name is what its
best table gives by itself; ``shares`` adds the outer search for the classes' parts of the budget;
``by
images`` judges by the images that calibration seeds lead to; ``search`` is what ``bitfront search``
answers, verified and refined as it does.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import bitfront
from benchmarks.common import arguments, fresh_study, head, parsed, show, write
from benchmarks.profilers import allocated
from bitfront.sensitivity import Profiler
from bitfront.sensitivity.decoupled import Decoupled
from bitfront.tasks import DiffusionTask
from bitfront.types import Trial

SCHEMES = "w2 w3 w4 w5 w6 w8 fp16"
BITS = (4, 6, 8)
PROFILERS = ("mse", "fisher", "decoupled")
STEPS = 25
FIRST = 950  # timestep: at 999 next to nothing of a prediction is left in the image
SHARES: dict[str, Any] = {"verify": False, "refine": 0}
BY_IMAGES = Decoupled(target="psnr")
SEARCHED: dict[str, tuple[str | Profiler, dict[str, Any]]] = {
    "decoupled, shares": ("decoupled", SHARES),
    "decoupled, search": ("decoupled", {}),
    "decoupled by images, shares": (BY_IMAGES, SHARES),
    "decoupled by images, search": (BY_IMAGES, {}),
    "fisher, search": ("fisher", {}),
}

Sample = Callable[[list[torch.Generator], list[int] | None], Tensor]


def networks(assets: Path) -> Any:
    """The module of the assets that defines the networks."""
    spec = importlib.util.spec_from_file_location("archs", assets / "archs.py")
    assert spec is not None
    assert spec.loader is not None
    archs = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = archs  # torch looks there when it traces
    spec.loader.exec_module(archs)
    return archs


def loaded(model: nn.Module, folder: Path) -> nn.Module:
    from safetensors.torch import load_file

    model.load_state_dict(load_file(next(folder.glob("*.safetensors"))))
    return model.eval()


def unet(assets: Path) -> tuple[nn.Module, Sample]:
    """MNIST U-Net with attention, DDIM."""
    archs = networks(assets)
    model = loaded(archs.AttnUNet(), assets / "mnist_attn_unet")

    def sample(generators: list[torch.Generator], conditions: list[int] | None) -> Tensor:
        alphas = model.alpha_bar()  # type: ignore[operator]
        steps = torch.linspace(FIRST, 0, STEPS).round().long().tolist()
        x = torch.stack([torch.randn(1, 28, 28, generator=g) for g in generators])
        for t, following in zip(steps, [*steps[1:], None], strict=True):
            a = alphas[t]
            b = torch.tensor(1.0) if following is None else alphas[following]
            noise = model(x, torch.full((len(x),), t))
            clean = ((x - (1 - a).sqrt() * noise) / a.sqrt()).clamp(-1, 1)
            noise = (x - a.sqrt() * clean) / (1 - a).sqrt()
            x = b.sqrt() * clean + (1 - b).sqrt() * noise
        return (x + 1) / 2

    return model, sample


def flow(assets: Path) -> tuple[nn.Module, Sample]:
    """MNIST flow-matching transformer, by class, Euler's method."""
    archs = networks(assets)
    model = loaded(archs.FlowViT(), assets / "mnist_flow_vit")

    def sample(generators: list[torch.Generator], conditions: list[int] | None) -> Tensor:
        x = torch.stack([torch.randn(1, 28, 28, generator=g) for g in generators])
        y = torch.tensor(conditions)
        for i in range(STEPS):
            clean = model(x, torch.full((len(x),), i / STEPS), y)
            x = x + (clean - x) / (STEPS - i)
        return x

    return model, sample


def task(name: str, assets: Path) -> DiffusionTask:
    if name == "flow transformer":
        return DiffusionTask(lambda: flow(assets), classes=range(10), batch=16, hold_back=0)
    return DiffusionTask(lambda: unet(assets), batch=16, hold_back=0)


def run(name: str, assets: Path) -> list[dict[str, Any]]:
    found: list[tuple[int, str, Trial]] = []
    with fresh_study(task(name, assets)) as study:
        for bits in BITS:
            (answer,) = bitfront.search(study, SCHEMES, [f"{bits}bpw"], solver="uniform", explore=0)
            found.append((bits, "uniform", answer.trial))
        for profiler in PROFILERS:
            layers = bitfront.tasks.select(study.task).layers
            tables = bitfront.profile(study, SCHEMES, profiler, layers=layers)
            best = next(iter(tables.values()))
            found += [(bits, profiler, allocated(study, best, SCHEMES, bits)) for bits in BITS]
        for row, (searched, options) in SEARCHED.items():
            answers = bitfront.search(
                study, SCHEMES, [f"{bits}bpw" for bits in BITS], profiler=searched, **options
            )
            found += [(b, row, a.trial) for b, a in zip(BITS, answers, strict=True)]
    rows = [
        {
            "bits": bits, "by": by,
            **{m: trial.metrics[m].value for m in ("sqnr", "psnr", "ssim")},
            "psnr stderr": trial.metrics["psnr"].stderr,
            **({"shares": trial.settings["shares"]} if "shares" in trial.settings else {}),
        }
        for bits, by, trial in sorted(found, key=lambda row: row[0])
    ]  # fmt: skip
    columns = ["bits", "by", "sqnr", "psnr", "ssim", "psnr stderr"]
    show(name, columns, [[row[c] for c in columns] for row in rows])
    return rows


def main() -> None:
    names = ["U-Net", "flow transformer"]
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    options = parsed(parser, threads=1)
    write({**head(), "models": {name: run(name, options.assets) for name in options.models}})


if __name__ == "__main__":
    main()
