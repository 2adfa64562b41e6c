"""The scale search against literal rounding, and against the best of very many scales."""

from __future__ import annotations

import pytest
import torch

from bitfront.quant.floats import E2M1, e2m1_codes, e2m1_values
from bitfront.quant.scales import (
    asymmetric_scales,
    encode,
    integer_range,
    round_,
    symmetric_scales,
)


def test_rounding_is_torchs_own() -> None:
    halves = torch.arange(-4000, 4001) / 2
    x = torch.cat(
        [halves, torch.nextafter(halves, torch.tensor(torch.inf)), torch.randn(9999) * 300]
    )
    assert torch.equal(round_(x.clone()), x.round())


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_codes_are_rounded_then_clamped(bits: int) -> None:
    generator = torch.Generator().manual_seed(0)
    w = 10 * torch.randn(100, 64, generator=generator)
    s = torch.rand(100, 1, generator=generator) + 0.01
    w[0], s[0] = torch.arange(64) / 2 - 16, 1.0
    w[1], w[2], s[1:3] = 3e38, -3e38, 1e-7
    lo, hi = integer_range(bits, symmetric=True)
    assert torch.equal(encode(w, s, None, lo, hi), (w / s).round().clamp(lo, hi))
    z = torch.randint(0, 1 << bits, (100, 1), generator=generator).float()
    lo, hi = integer_range(bits, symmetric=False)
    assert torch.equal(encode(w, s, z, lo, hi), ((w / s).round() + z).clamp(lo, hi))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_symmetric_search_is_near_the_best_scale(bits: int, weighted: bool) -> None:
    """Over groups together: a single group may stay in a local minimum."""
    generator = torch.Generator().manual_seed(bits)
    w = torch.randn(64, 4, 32, generator=generator)
    v = torch.rand(1, 4, 32, generator=generator) ** 4 if weighted else None
    lo, hi = integer_range(bits, symmetric=True)

    def error(s: torch.Tensor) -> torch.Tensor:
        d = (w / s).round().clamp(lo, hi) * s - w
        return (d.double().square() * (1.0 if v is None else v)).sum(-1)

    s = symmetric_scales(w, bits, torch.float16, v).float().unsqueeze(-1)
    top = w.abs().amax(-1, keepdim=True)
    best = torch.stack([error(top * r / hi) for r in torch.linspace(0.1, 1.2, 2000)]).amin(0)
    assert float(error(s).sum()) <= (1.02 if weighted else 1.01) * float(best.sum())
    # importance must help: without it the same groups do worse
    if weighted:
        plain = symmetric_scales(w, bits, torch.float16).float().unsqueeze(-1)
        assert float(error(s).sum()) < float(error(plain).sum())


@pytest.mark.parametrize("shift", [0.0, 0.7, 3.0])
@pytest.mark.parametrize("bits", [2, 4])
def test_asymmetric_search_is_near_the_best_scale_and_zero_point(bits: int, shift: float) -> None:
    w = torch.randn(32, 2, 32, generator=torch.Generator().manual_seed(0)) + shift
    lo, hi = integer_range(bits, symmetric=False)

    def error(s: torch.Tensor, z: torch.Tensor | float) -> torch.Tensor:
        q = ((w / s).round() + z).clamp(lo, hi)
        return ((q - z) * s - w).double().square().sum(-1)

    scale, zero = asymmetric_scales(w, bits, torch.float16)
    ours = error(scale.float().unsqueeze(-1), zero.unsqueeze(-1))
    span = w.amax(-1, keepdim=True).clamp(min=0) - w.amin(-1, keepdim=True).clamp(max=0)
    best = torch.full(ours.shape, torch.inf, dtype=torch.float64)
    for r in torch.linspace(0.2, 1.6, 120):
        for z in range(hi + 1):
            best = torch.minimum(best, error(span * r / hi, float(z)))
    # measured: at most 1 % above the exhaustive search
    assert float(ours.sum()) <= 1.02 * float(best.sum())


def test_e2m1_codes_are_the_nearest_values() -> None:
    x = torch.cat([torch.linspace(-8, 8, 4001), torch.tensor([-0.0, 0.0])])
    values = torch.tensor([*E2M1, *(-v for v in E2M1)])
    assert torch.equal(e2m1_values(torch.arange(16, dtype=torch.uint8)), values)
    nearest = (x[:, None] - values).abs().amin(1)
    got = (e2m1_values(e2m1_codes(x)) - x).abs()
    torch.testing.assert_close(got, nearest, rtol=0, atol=0)
