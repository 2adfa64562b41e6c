"""Metrics of denoisers: how far predictions, and their images, are from the full model's.

    z, y     outputs of the full model and of the model in question, (n, K)
    X, Y     images of the full model and of the model in question, (M, C, H, W) from 0 to 1
    SQNR     10 log10(Σ z² / Σ (y − z)²), sums over all positions                           [dB]
    PSNR     −10 log10 of the mean of (X − Y)² over all images                              [dB]
    SSIM     (2 μ_X μ_Y + C₁)(2 σ_XY + C₂) / ((μ_X² + μ_Y² + C₁)(σ_X² + σ_Y² + C₂))

Equal images have an SSIM of 1, and an SQNR or PSNR of inf. Worsenings are 0 for the full model: of
SQNR the noise as a share of the signal, of PSNR the mean squared error, of SSIM what is lost.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bitfront.errors import ModelError

from .boundary import foreign, function_at
from .metrics import Metric, wide

WINDOW, SIGMA = 11, 1.5  # of SSIM, in pixels
C1, C2 = 0.01**2, 0.03**2  # for values from 0 to 1

Values = NDArray[np.float64]


def noise(z: Tensor, y: Tensor, t: Tensor | None = None, output: str = "gaussian") -> Tensor:
    """Σ_k (y − z)²: (n,)."""
    return (wide(y) - wide(z)).square().sum(-1)


def signal(z: Tensor, y: Tensor, t: Tensor | None = None, output: str = "gaussian") -> Tensor:
    """Σ_k z²: (n,)."""
    return wide(z).square().sum(-1)


def mean_squared_error(
    z: Tensor, y: Tensor, t: Tensor | None = None, output: str = "gaussian"
) -> Tensor:
    """Mean over k of (y − z)²: (n,)."""
    return noise(z, y) / z.shape[-1]


def squared_errors(X: Tensor, Y: Tensor) -> Values:
    """Mean squared error of each image: (M,)."""
    return (X.double() - Y.double()).square().flatten(1).mean(1).numpy()


def structural_similarities(X: Tensor, Y: Tensor) -> Values:
    """SSIM of each image, mean over channels and places of the window: (M,).

    Z. Wang et al., Image Quality Assessment, IEEE Trans. Image Processing 13 (2004), eq. 13, with
    their Gaussian window, where it lies within the image. Images smaller than the window take the
    largest one of odd size that fits.
    """
    size = min(WINDOW, *(n - 1 + n % 2 for n in X.shape[-2:]))
    offsets = torch.arange(size, dtype=torch.float64) - size // 2
    g = torch.exp(-offsets.square() / (2 * SIGMA**2))
    w = torch.outer(g, g) / g.sum().square()

    def mean(image: Tensor) -> Tensor:
        return F.conv2d(image.flatten(0, 1)[:, None], w[None, None]).reshape(*image.shape[:2], -1)

    X, Y = X.double(), Y.double()
    mX, mY = mean(X), mean(Y)
    vX, vY = mean(X * X) - mX * mX, mean(Y * Y) - mY * mY
    cXY = mean(X * Y) - mX * mY
    found = (2 * mX * mY + C1) * (2 * cXY + C2) / ((mX * mX + mY * mY + C1) * (vX + vY + C2))
    return found.mean((1, 2)).numpy()


MSE = Metric("mse", mean_squared_error, "", worsening="itself")
SQNR = Metric(
    "sqnr", noise, "dB", "higher", "db", "itself", "noise / signal", weights=signal
)  # fmt: skip
PSNR = Metric("psnr", None, "dB", "higher", "db", "itself", "MSE", whole=squared_errors)
SSIM = Metric("ssim", None, "", "higher", whole=structural_similarities)


def brought_score(reference: str, better: str) -> Metric:
    """A user's function ``path/to/file.py:name``: (images, the full model's images) -> (M,).

    Raises ``ModelError`` where there is no such function; the metric does for other values than
    one finite number for each image.
    """
    function, name = function_at(reference), reference.rpartition(":")[2]

    def whole(X: Tensor, Y: Tensor) -> Values:
        with foreign(f"score {name!r}", "correct the function"):
            found: Any = function(Y, X)
            values = found.numpy(force=True) if isinstance(found, Tensor) else found
            values = np.asarray(values, dtype=np.float64)
        if values.shape != (len(X),) or not np.isfinite(values).all():
            raise ModelError(
                f"score {name!r} gave values of shape {values.shape}, "
                f"{int((~np.isfinite(values)).sum())} of them not finite",
                f"give one finite number for each of the {len(X)} images",
            )
        return values

    return Metric(name, None, "", better, whole=whole)
