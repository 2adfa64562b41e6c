"""Metrics against literal float64 versions, down to a KL of 1e-9 nats."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bitfront.tasks.metrics import METRICS, kl


def literal_kl(z: Tensor, y: Tensor) -> np.ndarray:
    """Σ p (log p − log q) of each position, in float64 and summed exactly."""
    found = []
    for a, b in zip(z.double().numpy(), y.double().numpy(), strict=True):
        log_p = a - a.max() - math.log(np.exp(a - a.max()).sum())
        log_q = b - b.max() - math.log(np.exp(b - b.max()).sum())
        found.append(math.fsum(np.exp(log_p) * (log_p - log_q)))
    return np.array(found)


def pairs(size: float, classes: int = 50) -> tuple[Tensor, Tensor]:
    """Logits, and others that differ by about ``size``; representable in float32."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(40, classes, generator=generator) * 3
    return z, z + size * torch.randn(40, classes, generator=generator)


@pytest.mark.parametrize("size", [1e-3, 1e-2, 0.1, 1.0, 10.0, 60.0])
def test_kl_is_the_literal_one(size: float) -> None:
    z, y = pairs(size)
    # float64's own rounding of the literal form is 1e-15, the metric's float32 a few 1e-7
    np.testing.assert_allclose(kl(z, y), literal_kl(z, y), rtol=2e-5, atol=1e-13)


def test_kl_of_a_billionth_keeps_its_digits() -> None:
    """Logits of up to 8 are known to 5e-7 in float32, so differences of 4.5e-5 are kept exactly
    (they are read off the rounded logits); what remains is rounding of each positive term."""
    z, y = pairs(6e-5)
    expected = literal_kl(z, y)
    assert 1e-10 < expected.mean() < 3e-9
    np.testing.assert_allclose(kl(z, y), expected, rtol=1e-4, atol=1e-14)
    usual = (torch.log_softmax(z, -1) - torch.log_softmax(y, -1)).mul(torch.softmax(z, -1)).sum(-1)
    assert np.abs(usual.numpy() / expected - 1).max() > 1, "the usual form would do: simplify"


def test_kl_of_sixteen_bit_logits_is_computed_in_float32() -> None:
    z, y = (t.bfloat16() for t in pairs(0.5))
    assert kl(z, y).dtype == torch.float32
    np.testing.assert_allclose(kl(z, y), literal_kl(z, y), rtol=2e-5)


def test_kl_survives_extreme_logits() -> None:
    z = torch.tensor([[0.0, 200.0, -300.0], [1e4, 0.0, 0.0]])
    y = torch.tensor([[200.0, 0.0, 100.0], [0.0, 1e4, 0.0]])
    np.testing.assert_allclose(kl(z, y), literal_kl(z, y), rtol=1e-6)


def test_kl_has_the_gradient_of_the_usual_form() -> None:
    z, y = (t.double() for t in pairs(0.3, 7))
    y.requires_grad_()
    (mine,) = torch.autograd.grad(kl(z, y).sum(), y)
    usual = (torch.softmax(z, -1) * (torch.log_softmax(z, -1) - torch.log_softmax(y, -1))).sum()
    (theirs,) = torch.autograd.grad(usual, y)
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)


def test_gaussian_kl_is_half_the_squared_distance() -> None:
    z, y = pairs(1.0)
    rows = zip(z.tolist(), y.tolist(), strict=True)
    expected = [math.fsum((p - q) ** 2 for p, q in zip(a, b, strict=True)) / 2 for a, b in rows]
    np.testing.assert_allclose(kl(z, y, None, "gaussian"), expected, rtol=1e-5)


def test_counting_metrics_are_the_literal_ones() -> None:
    z, y = pairs(2.0, 5)
    t = torch.arange(40) % 5
    first, second = z.numpy().argmax(1), y.numpy().argmax(1)
    literal = {
        "top1": second == t.numpy(),
        "flips": (first == t.numpy()) & (second != t.numpy()),
        "agreement": first == second,
    }
    for name, expected in literal.items():
        positions = METRICS[name].positions
        assert positions is not None
        np.testing.assert_array_equal(positions(z, y, t, "categorical"), expected)


def test_nll_is_minus_the_log_of_the_labels_probability() -> None:
    _, y = pairs(1.0, 5)
    t = torch.arange(40) % 5
    p = np.exp(y.double().numpy())
    expected = -np.log((p / p.sum(1, keepdims=True))[np.arange(40), t])
    positions = METRICS["nll"].positions
    assert positions is not None
    np.testing.assert_allclose(positions(y, y, t, "categorical"), expected, rtol=1e-5, atol=1e-6)
