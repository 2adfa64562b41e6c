"""Metrics: one number for each scored position, summed by sample.

    z, y  outputs of the full model and of the model in question, (n, K): n positions, K classes
    t     labels (n,)
    p, q  softmax of z and y
    d     y − z          m  Σ_k p_k d_k

KL(p ‖ q) = log Σ p e^(d−m) = log1p Σ p φ(d − m),  φ(x) = e^x − 1 − x,

since Σ p (d − m) = 0. Every term is positive, so that nothing cancels and a KL of 1e-9 nats keeps
its digits in float32; the usual Σ p (log p − log q) loses them at 1e-7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bitfront.registry import Registry

from .base import Batch

_WIDE = 30.0  # beyond this |d − m|, e^x may overflow and the usual form is as good

Positions = Callable[[Tensor, Tensor, "Tensor | None", str], Tensor]
Samples = Callable[[Tensor, Batch], NDArray[np.float64]]
Whole = Callable[[Tensor, Tensor], NDArray[np.float64]]


P = TypeVar("P", bound=Positions)


@dataclass(frozen=True)
class Metric:
    """A mean over scored positions (or over samples), and how its worsening is expressed.

    positions: (z, y, t, output kind) -> (n,), or None for a metric of whole samples.
    weights: the same, what each position counts for in the mean; None for 1.
    samples: (outputs (N, P, K), batch) -> (N,), or None.
    whole: (what the full model generated, what this one did: (M, ...) each) -> (M,), or None; a
        metric of ``Task.generated``, measured on all of the evaluation data at once, or not at all.
    part: the only part of the data (``Batch.part``) that counts, or None for all. Its name is then
        that of the metric of all parts, ``_``, a letter and the part's number from 1.
    unit: of the finished value. better: ``lower`` or ``higher``.
    finish: ``identity``, ``exp``, or ``db`` (-10 log10) of the mean.
    worsening: ``itself`` when the value is already relative to the full model, else
        ``difference``, signed so that positive is worse and taken before ``finish``.
    worsening_unit: unit of the worsening, where it is not ``unit``.
    """

    name: str
    positions: Positions | None
    unit: str
    better: str = "lower"
    finish: str = "identity"
    worsening: str = "difference"
    worsening_unit: str = ""
    needs_labels: bool = False
    samples: Samples | None = None
    weights: Positions | None = None
    whole: Whole | None = None
    part: int | None = None

    @property
    def wholes(self) -> tuple[str, ...]:
        """Its name where it is of wholes, which calibration data are not measured by unasked."""
        return () if self.whole is None else (self.name,)

    @property
    def increase_unit(self) -> str:
        """The unit of its worsening."""
        return self.worsening_unit or self.unit


def of_part(metric: Metric, index: int, mark: str) -> Metric:
    """``metric`` of one part of the data, counted from 0 in ``Batch.part`` and from 1 in the name.

    mark: what parts are called in the name, like the ``t`` of ``sqnr_t1``.
    """
    return replace(metric, name=f"{metric.name}_{mark}{index + 1}", part=index)


METRICS: Registry[Metric] = Registry("metric")


def _add(name: str, unit: str, **settings: Any) -> Callable[[P], P]:
    def file(positions: P) -> P:
        METRICS[name] = Metric(name, positions, unit, **settings)
        return positions

    return file


@_add("kl", "nats", worsening="itself")
def kl(z: Tensor, y: Tensor, t: Tensor | None = None, output: str = "categorical") -> Tensor:
    """KL to the full model; half the squared distance for gaussian outputs. Differentiable."""
    z, y = wide(z), wide(y)
    d = y - z
    if output == "gaussian":
        return 0.5 * d.square().sum(-1)
    p = torch.softmax(z, -1)
    x = d - (p * d).sum(-1, keepdim=True)
    result = torch.log1p((p * _phi(x.clamp(max=_WIDE))).sum(-1))
    far = x.detach().amax(-1) > _WIDE
    if far.any():
        usual = (p * (torch.log_softmax(z, -1) - torch.log_softmax(y, -1))).sum(-1)
        result = torch.where(far, usual, result)
    return result


@_add("perplexity", "", finish="exp", worsening_unit="nats", needs_labels=True)
@_add("nll", "nats", needs_labels=True)
def nll(z: Tensor, y: Tensor, t: Tensor | None, output: str) -> Tensor:
    """Negative log-likelihood of the labels."""
    assert t is not None
    return F.cross_entropy(wide(y), t, reduction="none")


@_add("top1", "share", better="higher", needs_labels=True)
def top1(z: Tensor, y: Tensor, t: Tensor | None, output: str) -> Tensor:
    """1 where the likeliest class is the label."""
    assert t is not None
    return torch.eq(y.argmax(-1), t)


@_add("flips", "share", worsening="itself", needs_labels=True)
def flips(z: Tensor, y: Tensor, t: Tensor | None, output: str) -> Tensor:
    """1 where the full model is right and this one is wrong."""
    assert t is not None
    return torch.eq(z.argmax(-1), t) & torch.ne(y.argmax(-1), t)


@_add("agreement", "share", better="higher")
def agreement(z: Tensor, y: Tensor, t: Tensor | None, output: str) -> Tensor:
    """1 where both models find the same class likeliest."""
    return z.argmax(-1) == y.argmax(-1)


def wide(tensor: Tensor) -> Tensor:
    """In float32, or float64 if it is that already."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _phi(x: Tensor) -> Tensor:
    """e^x − 1 − x without cancellation: its Taylor series where |x| < 0.1 (error below 1e-9 x²)."""
    series = x * x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x * (1 / 720 + x / 5040)))))
    return torch.where(x.abs() < 0.1, series, torch.expm1(x) - x)
