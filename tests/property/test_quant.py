"""What must hold for any weights: hypothesis looks for those where it does not."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
import torch
from hypothesis import given, settings
from torch import Tensor

from bitfront.quant.formats import dequantize
from bitfront.quant.integers import grid
from bitfront.quant.quantizers import quantize
from bitfront.quant.scales import integer_range
from bitfront.quant.statistics import InputStatistics
from bitfront.types import Scheme

integers = st.builds(
    lambda bits, group, zero: Scheme("int", bits=bits, group=group, symmetric=not zero),
    st.integers(2, 8),
    st.sampled_from([None, 1, 4, 8, 16]),
    st.booleans(),
)
quick = settings(max_examples=60, derandomize=True)


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    """(rows, 16) of any shape of distribution and any scale between 1e-3 and 1e3."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    M = torch.randn(draw(st.integers(1, 4)), 16, generator=generator)
    M = M.sign() * M.abs() ** draw(st.sampled_from([0.0, 0.3, 1.0, 3.0]))
    if draw(st.booleans()):
        M = M.abs()
    M[torch.rand(M.shape, generator=generator) < draw(st.sampled_from([0.0, 0.5, 0.95]))] = 0
    return M * 10 ** draw(st.floats(-3, 3))


def squared_error(M: Tensor, scheme: Scheme) -> Tensor:
    """Per row."""
    return (dequantize(quantize(M, scheme), torch.float64) - M).square().sum(1)


def plain_error(M: Tensor, scheme: Scheme) -> Tensor:
    """Per row, in float64, with the textbook grid from least to greatest weight."""
    w = M.double().unflatten(1, (-1, scheme.group or 16))
    lo, hi = integer_range(scheme.bits, scheme.symmetric)
    if scheme.symmetric:
        s, z = w.abs().amax(-1, keepdim=True) / hi, torch.zeros(())
    else:
        low, high = w.amin(-1, keepdim=True).clamp(max=0), w.amax(-1, keepdim=True).clamp(min=0)
        s = (high - low) / hi
        z = torch.nan_to_num((-low / s).round())
    back = (torch.nan_to_num(w / s).round() + z).clamp(lo, hi).sub(z) * s
    return (back - w).square().flatten(1).sum(1)


@quick
@given(weights(), integers)
def test_the_search_is_no_worse_than_the_textbook_grid(M: Tensor, scheme: Scheme) -> None:
    # a float16 scale is off by at most 2^-11, or 2^-25 where it is subnormal, which moves a weight
    # by that much of its size, or of the greatest code's 2^b
    s = grid(M, scheme)[0].double().amax(1)
    rounding = (2.0**-11 * M.double().abs().amax(1) + 2.0**-25 * 2**scheme.bits + 2.0**-12 * s) ** 2
    plain = plain_error(M, scheme)
    slack = 16 * rounding + 2 * (16 * rounding * plain).sqrt()
    assert (squared_error(M, scheme) <= plain + slack).all()


@quick
@given(st.integers(0, 10**6), st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([None, 4, 8]))
def test_error_falls_with_bits(seed: int, power: float, group: int | None) -> None:
    """A bit more divides the step by 2 and the error by about 4; half of that must be seen.

    Over many weights: a row of few numbers may be hit exactly by a coarse grid.
    """
    M = torch.randn(32, 32, generator=torch.Generator().manual_seed(seed))
    M = M.sign() * M.abs() ** power
    for symmetric in (True, False):
        schemes = [Scheme("int", bits=b, group=group, symmetric=symmetric) for b in range(2, 9)]
        errors = [float(squared_error(M, scheme).sum()) for scheme in schemes]
        assert all(fine <= coarse / 2 for coarse, fine in pairwise(errors))


@quick
@given(weights(), integers, st.sampled_from([-4, -1, 1, 3]))
def test_powers_of_two_pass_through(M: Tensor, scheme: Scheme, exponent: int) -> None:
    M = M.clamp(-100, 100)
    if not scheme.symmetric or float(M.abs().max()) < 0.5:
        return  # float16 scales are subnormal for small weights, and not then proportional
    tops = M.unflatten(1, (-1, scheme.group or 16)).abs().amax(-1)
    if (tops[tops > 0] < 2.0**-13 * 2**scheme.bits * 64).any():
        return
    a, b = quantize(M, scheme), quantize(M * 2.0**exponent, scheme)
    assert torch.equal(a.codes, b.codes)


@quick
@given(weights(), integers)
def test_negating_a_symmetric_row_at_most_moves_its_outermost_code(
    M: Tensor, scheme: Scheme
) -> None:
    if scheme.symmetric and scheme.bits > 4:
        a, b = squared_error(M, scheme), squared_error(-M, scheme)
        s = grid(M, scheme)[0].double().amax(1)
        assert ((a.sqrt() - b.sqrt()).abs() <= 4 * s).all()


def test_gptq_beats_rounding_to_nearest_on_correlated_inputs() -> None:
    """In output error: measured over 1000 cases, better in 99 %, the ratio's median 0.50 to 0.68.

    GPTQ is greedy, so it may lose: on small problems (16 inputs), by up to 16 %.
    """
    ratios = []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        cols = (16, 32, 64)[seed % 3]
        M = torch.randn(8, cols, generator=generator)
        mixing = torch.randn(cols, cols, generator=generator)
        X = torch.randn(4 * cols, cols, generator=generator) @ mixing
        H = (X.T @ X / len(X))[None]
        for form in ("w2", "w3g8", "w4", "w3z"):
            error = {}
            for quantizer in ("", "+gptq", "+gptq:act"):
                q = quantize(M, Scheme.parse(form + quantizer), InputStatistics(H, len(X)))
                D = (dequantize(q, torch.float32) - M).double()
                error[quantizer] = float(((D @ H[0].double()) * D).sum())
            ratios += [error["+gptq"] / error[""], error["+gptq:act"] / error[""]]
    result = torch.tensor(ratios)
    assert float((result < 1).float().mean()) >= 0.97
    assert float(result.max()) < 1.25
    assert float(result.median()) < 0.7
