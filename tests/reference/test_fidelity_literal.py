"""Metrics of predictions and images against their definitions, literally, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bitfront.tasks.base import Batch
from bitfront.tasks.evaluation import Measured, judge, worsening
from bitfront.tasks.fidelity import (
    MSE,
    PSNR,
    SQNR,
    squared_errors,
    structural_similarities,
)
from bitfront.tasks.metrics import Metric, of_part
from bitfront.tasks.ratios import finished, ratio


def literal_ssim(X: NDArray[np.float64], Y: NDArray[np.float64], size: int = 11) -> float:
    """Eq. 13 of Wang et al. 2004 at every place of the window, one number after another."""
    weights = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            distance = (i - size // 2) ** 2 + (j - size // 2) ** 2
            weights[i, j] = math.exp(-distance / (2 * 1.5**2))
    weights /= weights.sum()
    C1, C2, found = 0.01**2, 0.03**2, []
    for channel in range(X.shape[0]):
        for top in range(X.shape[1] - size + 1):
            for left in range(X.shape[2] - size + 1):
                x = X[channel, top : top + size, left : left + size]
                y = Y[channel, top : top + size, left : left + size]
                mx, my = (weights * x).sum(), (weights * y).sum()
                vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
                c = (weights * (x - mx) * (y - my)).sum()
                above = (2 * mx * my + C1) * (2 * c + C2)
                found.append(above / ((mx**2 + my**2 + C1) * (vx + vy + C2)))
    return float(np.mean(found))


def images(seed: int, height: int = 15, width: int = 13) -> torch.Tensor:
    return torch.rand(3, 2, height, width, generator=torch.Generator().manual_seed(seed))


def test_ssim_is_wangs() -> None:
    X, noise = images(0), images(1)
    for Y in (noise, 0.9 * X + 0.1 * noise, 1 - X, torch.zeros_like(X)):
        expected = [
            literal_ssim(x, y) for x, y in zip(X.double().numpy(), Y.double().numpy(), strict=True)
        ]
        # float64 both; variances are differences of moments here, of deviations there
        np.testing.assert_allclose(structural_similarities(X, Y), expected, atol=1e-11)


def test_ssim_of_small_images_takes_the_window_that_fits() -> None:
    for height, size in ((10, 9), (7, 7), (1, 1)):
        X, Y = images(0, height, 14), images(1, height, 14)
        expected = literal_ssim(X[0].double().numpy(), Y[0].double().numpy(), size)
        assert structural_similarities(X, Y)[0] == pytest.approx(expected, abs=1e-11)


def test_equal_images_are_alike() -> None:
    assert structural_similarities(images(0), images(0)) == pytest.approx(np.ones(3), abs=1e-12)
    mean = ratio(squared_errors(images(0), images(0)), np.ones(3))
    assert finished(mean, PSNR.finish).value == math.inf


def test_psnr_is_of_the_mean_squared_error_over_all_images() -> None:
    X, Y = images(0), images(1)
    found = finished(ratio(squared_errors(X, Y), np.ones(3)), PSNR.finish)
    every = ((X.double() - Y.double()) ** 2).numpy()
    assert found.value == pytest.approx(-10 * math.log10(every.mean()))
    errors = [image.mean() for image in every]
    spread = np.std(errors, ddof=1) / math.sqrt(3)
    assert found.stderr == pytest.approx(10 / math.log(10) * spread / every.mean())


def measured(metric: Metric, z: torch.Tensor, y: torch.Tensor, part: list[int]) -> Measured:
    batch = Batch((), samples=len(z), part=torch.tensor(part))
    found = judge({"m": metric}, z, y, batch, "gaussian")
    sums, counts = ({k: v[i] for k, v in found.items()} for i in (0, 1))
    return Measured(sums, counts, (0,), (len(z),), {"m": metric})


def test_sqnr_and_mse_are_those_of_all_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4, 1, 6, generator=generator)
    y = z + 0.1 * torch.randn(4, 1, 6, generator=generator)
    part = [0, 1, 0, 1]
    Z, N = z.double().numpy(), (y.double() - z.double()).numpy()
    decibels = 10 * math.log10((Z**2).sum() / (N**2).sum())
    found = measured(SQNR, z, y, part)
    assert found.estimates()["m"].value == pytest.approx(decibels, rel=1e-5)
    worse = worsening(found, measured(SQNR, z, z, part))["m"].value
    assert worse == pytest.approx((N**2).sum() / (Z**2).sum(), rel=1e-5)
    assert measured(MSE, z, y, part).estimates()["m"].value == pytest.approx(
        (N**2).mean(), rel=1e-5
    )
    second = measured(of_part(SQNR, 1, "t"), z, y, part).estimates()["m"]
    decibels = 10 * math.log10((Z[1::2] ** 2).sum() / (N[1::2] ** 2).sum())
    assert second.value == pytest.approx(decibels, rel=1e-5)
    assert second.samples == 2
