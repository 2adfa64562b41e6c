"""The decoupled profiler against literal measuring, class by class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bitfront
from bitfront.errors import InvalidInput, ModelError, UnknownName
from bitfront.quant.formats import dequantize
from bitfront.quant.surgery import applied
from bitfront.sensitivity.decoupled import Decoupled
from bitfront.tasks import DiffusionTask, ModuleTask
from bitfront.tasks.boundary import function_at
from bitfront.tasks.fidelity import structural_similarities
from bitfront.tasks.roles import classes
from bitfront.types import Scheme, Sensitivities
from tests import diffusion
from tests.small_tasks import attentive

SCHEMES = ("w2", "w4")


def rounded(study: bitfront.Study, layer: str, scheme: str) -> nn.Module:
    """A copy of the model with one layer's weights rounded."""
    copy = deepcopy(study.task.model)
    module = copy.get_submodule(layer)
    assert isinstance(module.weight, Tensor)
    weight = study.builder.quantized(layer, Scheme.parse(scheme)).weight
    with torch.no_grad():
        module.weight.copy_(dequantize(weight, torch.float32).reshape(module.weight.shape))
    return copy


def profiled(study: bitfront.Study, **settings: object) -> Mapping[str, Sensitivities]:
    return bitfront.profile(study, SCHEMES, Decoupled(**settings))  # type: ignore[arg-type]


def test_each_class_has_its_own_metric_at_its_own_rate(tmp_path: Path) -> None:
    with bitfront.open_study("s", attentive(), tmp_path / "b.db") as study:
        tables = profiled(study, metrics="self-attention=agreement, name:*e*=kl, *=agreement")
        batches = list(study.task.calibration)

        def logits(model: nn.Module) -> Tensor:
            return torch.cat([model(*b.args) for b in batches]).flatten(0, 1).double().detach()

        z = logits(study.task.model)
        p = z.softmax(-1)
        kl, lost = np.zeros((2, len(study.task.layers), len(SCHEMES)))
        names = [layer.name for layer in study.task.layers]
        for i, name in enumerate(names):
            for j, scheme in enumerate(SCHEMES):
                y = logits(rounded(study, name, scheme))
                kl[i, j] = (p * (p.log() - y.log_softmax(-1))).sum(-1).mean()
                lost[i, j] = (z.argmax(-1) != y.argmax(-1)).double().mean()
    # float32 logits: a KL of 1e-4 keeps some four digits
    np.testing.assert_allclose(tables["kl"].values, kl, rtol=2e-3)
    np.testing.assert_allclose(tables["agreement"].values, lost, atol=1e-12)
    of = np.array(
        ["self-attention" if n in "qkv" else "name:*e*" if "e" in n else "" for n in names]
    )
    roles = classes(attentive())
    of = np.array([cls or roles[n] for cls, n in zip(of, names, strict=True)])
    expected = kl.copy()
    for cls in set(of) - {"name:*e*"}:
        expected[of == cls] = lost[of == cls] * (kl[of == cls].sum() / lost[of == cls].sum())
    table = tables["decoupled"]
    assert table.classes == tuple(of)
    assert table.target == "kl"
    assert next(iter(tables)) == "decoupled"
    np.testing.assert_allclose(table.values, expected, rtol=2e-3)
    for cls in set(of):  # the same in the target, class by class
        assert table.values[of == cls].sum() == pytest.approx(kl[of == cls].sum(), rel=2e-3)
    rows, rate = of == "self-attention", table.notes["rate of self-attention (agreement)"]
    np.testing.assert_allclose(table.stderr[rows], rate * tables["agreement"].stderr[rows])


def test_the_worst_group_of_timesteps_counts(tmp_path: Path) -> None:
    found = diffusion.brought(diffusion.written(tmp_path))
    with bitfront.open_study("s", found, tmp_path / "b.db") as study:
        tables = profiled(study, metrics="convolution=sqnr_t*, *=kl")
    rows = [cls == "convolution" for cls in tables["decoupled"].classes]
    parts = np.stack([tables[f"sqnr_t{g}"].values[rows] for g in (1, 2)])
    assert (parts[0] != parts[1]).all()
    rate = tables["decoupled"].notes["rate of convolution (sqnr_t*)"]
    np.testing.assert_allclose(tables["decoupled"].values[rows], rate * parts.max(0))


def test_images_come_from_the_calibration_seeds(tmp_path: Path) -> None:
    folder = diffusion.written(tmp_path)
    found = diffusion.brought(folder, samples=4)
    with bitfront.open_study("s", found, tmp_path / "b.db") as study:
        tables = profiled(study, metrics="*=ssim", images=3)
        model, sample = diffusion_sampler(folder)
        table = tables["ssim"]

        def images(changed: nn.Module) -> Tensor:
            model.load_state_dict(changed.state_dict())
            seeds = [torch.Generator().manual_seed(2 * i) for i in range(3)]
            with torch.no_grad():  # in pieces of two, as the task samples
                pieces = [sample(seeds[:2], None), sample(seeds[2:], None)]
            return torch.cat(pieces).clamp(0, 1)

        full = images(study.task.model)
        for i, name in enumerate(table.layers):
            for j, scheme in enumerate(table.schemes):
                lost = 1 - structural_similarities(full, images(rounded(study, name, scheme)))
                assert table.values[i, j] == pytest.approx(lost.mean(), abs=1e-6)
                assert table.stderr[i, j] == pytest.approx(lost.std(ddof=1) / 3**0.5, abs=1e-6)


def test_images_may_be_what_a_search_judges_by(tmp_path: Path) -> None:
    found = diffusion.brought(diffusion.written(tmp_path))
    with bitfront.open_study("s", found, tmp_path / "b.db") as study:
        by_images = Decoupled(metrics="*=sqnr", target="psnr", images=2)
        tables = bitfront.profile(study, SCHEMES, by_images)
        assert tables["decoupled"].target == "psnr"
        rates = tables["psnr"].values.sum() / tables["sqnr"].values.sum()
        assert tables["decoupled"].values.sum() == pytest.approx(
            rates * tables["sqnr"].values.sum()
        )
        (answer,) = bitfront.search(study, SCHEMES, ["3bpw"], profiler=by_images, shares=4)
        measured = [t for t in study.trials() if "calibration/psnr" in t.metrics]
        start = min(measured, key=lambda t: t.id)  # after the full model, which has none
        figures = [t.metrics["calibration/psnr"].value for t in (answer.trial, start)]
        assert figures[0] >= figures[1]
        full = found.generated(reference=True, calibration=True)
        schemes = {n: Scheme.parse(s) for n, s in answer.trial.schemes.items() if s != "keep"}
        quantized = {n: study.builder.quantized(n, s) for n, s in schemes.items()}
        with applied(found.model, quantized):
            made = found.generated(calibration=True)
        psnr = -10 * float((full.double() - made.double()).square().mean().log10())
        assert answer.trial.metrics["calibration/psnr"].value == pytest.approx(psnr)


def diffusion_sampler(folder: Path) -> tuple[nn.Module, Callable[..., Tensor]]:
    model, sample = function_at(f"{folder / 'mine.py'}:flow")()
    return model, sample


def test_nothing_is_sampled_where_no_metric_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = diffusion.brought(diffusion.written(tmp_path))

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("sampled")

    with bitfront.open_study("s", found, tmp_path / "b.db") as study:
        monkeypatch.setattr(DiffusionTask, "generated", refuse)
        assert "psnr" not in profiled(study)  # no layer of the class that ssim is for
        with pytest.raises(AssertionError, match="sampled"):
            profiled(study, metrics="*=psnr")


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"metrics": "*=kll"}, UnknownName, "no metric 'kll'"),
        ({"metrics": "kl"}, InvalidInput, "write CLASS=METRIC"),
        ({"metrics": "self-attention=kl"}, InvalidInput, "end with"),
        ({"metrics": "name:none.*=kl, *=kl"}, UnknownName, "no layer matches 'none.\\*'"),
        ({"target": "psnr"}, UnknownName, "no metric 'psnr'"),
        ({"images": 0}, InvalidInput, "images 0"),
    ],
)
def test_nonsense_is_refused(
    settings: dict[str, object], kind: type[Exception], words: str, tmp_path: Path
) -> None:
    with (
        bitfront.open_study("s", attentive(), tmp_path / "b.db") as study,
        pytest.raises(kind, match=words),
    ):
        profiled(study, **settings)


def test_a_metric_that_never_moves_is_no_metric(tmp_path: Path) -> None:
    """Labels that the model never finds likeliest: no right answer can flip."""

    def make() -> dict[str, object]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
        x = torch.randn(8, 4)
        with torch.no_grad():
            wrong = model(x).argmin(-1)
        return {"model": model, "calibration": [x], "evaluation": [x], "labels": lambda raw: wrong}

    with (
        bitfront.open_study("s", ModuleTask(make), tmp_path / "b.db") as study,
        pytest.raises(ModelError, match="flips of other does not worsen"),
    ):
        profiled(study, metrics="*=flips")


def test_reports_know_the_classes(tmp_path: Path) -> None:
    from bitfront.rebuilding import rebuilt

    settings = {"metrics": "self-attention=agreement, *=kl", "target": "agreement"}
    with bitfront.open_study("s", attentive(), tmp_path / "b.db") as study:
        made = profiled(study, **settings)["decoupled"]
        with closing(study.store):
            recorded = list(study.store.measurements(study.record, "decoupled"))
            tables = rebuilt(recorded, made.layers, "kl", dict.fromkeys(study.task.metrics, 0))
    (again,) = (t.table for t in tables if t.table.metric == "decoupled")
    assert (again.classes, again.target) == (made.classes, "agreement")
    np.testing.assert_array_equal(again.values, made.values)
