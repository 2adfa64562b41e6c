"""Every quantizer × schemes × every layer kind: what any of them promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bitfront.errors import SchemeError, UnknownName
from bitfront.quant.build import Builder
from bitfront.quant.formats import dequantize
from bitfront.quant.layers import adapter_of
from bitfront.quant.quantizers import QUANTIZERS, quantize
from bitfront.quant.scales import integer_range
from bitfront.quant.statistics import InputStatistics
from bitfront.quant.suitability import takes
from bitfront.scheme import QUANTIZERS as SPELLED
from bitfront.types import Scheme
from tests.modules import CASES, layer_of, make

# torch says that it pads a copy: that case is meant
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

FORMS = ("w2", "w4", "w8", "w3g4", "w4z", "w2g4z")
SCHEMES = [
    Scheme.parse(form if name == "rtn" else f"{form}+{name}")
    for name in QUANTIZERS
    for form in FORMS
]
each_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=str)
each_quantizer = pytest.mark.parametrize("name", list(QUANTIZERS))


def correlated(rows: int, cols: int, seed: int = 0) -> tuple[Tensor, InputStatistics]:
    generator = torch.Generator().manual_seed(seed)
    M = torch.randn(rows, cols, generator=generator)
    X = torch.randn(4 * cols, cols, generator=generator) @ torch.randn(
        cols, cols, generator=generator
    )
    return M, InputStatistics((X.T @ X / len(X))[None], len(X))


def test_the_grammar_spells_every_quantizer() -> None:
    assert set(QUANTIZERS) == set(SPELLED)
    with pytest.raises(
        UnknownName, match="no quantizer named 'awq': choose from rtn, gptq, gptq:act"
    ):
        QUANTIZERS["awq"]


@pytest.mark.parametrize("case", CASES)
@each_scheme
def test_every_kind_is_quantized_or_refused_with_a_reason(scheme: Scheme, case: str) -> None:
    module, x = make(case)
    model = nn.ModuleDict({"layer": module})
    layer = layer_of("layer", module)
    builder = Builder(model, [layer], lambda: module(x))
    reason = takes(layer, scheme)
    if reason is not None:
        assert layer.kind == "embedding" or layer.cols % (scheme.group or 1)
        with pytest.raises(SchemeError) as caught:
            builder.quantized("layer", scheme)
        assert "'layer'" in str(caught.value)
        assert str(scheme) in str(caught.value)
        assert reason in str(caught.value)
        return
    q = builder.quantized("layer", scheme).weight
    lo, hi = integer_range(scheme.bits, scheme.symmetric)
    assert q.scheme == scheme
    assert q.shape == (layer.rows, layer.cols)
    assert lo <= int(q.codes.min()) <= int(q.codes.max()) <= hi
    back = dequantize(q, torch.float32)
    assert torch.isfinite(back).all()
    if scheme.bits == 8:
        # a step is at most the row's range / 200; error feedback moves a weight by a few steps
        M = adapter_of(module).matrix(module)
        span = M.abs().amax(1, keepdim=True)
        assert ((back - M).abs() <= 0.05 * span + 1e-6).all()


@each_scheme
def test_pure_and_deterministic(scheme: Scheme) -> None:
    M, stats = correlated(12, 16)
    assert stats.H is not None
    before, H = M.clone(), stats.H.clone()
    a, b = quantize(M, scheme, stats), quantize(M, scheme, stats)
    assert torch.equal(a.codes, b.codes)
    assert torch.equal(M, before)
    assert torch.equal(stats.H, H)


@each_scheme
def test_rows_do_not_depend_on_each_other(scheme: Scheme) -> None:
    M, stats = correlated(12, 16)
    whole, part = quantize(M, scheme, stats), quantize(M[4:7].clone(), scheme, stats)
    # blocked products of other shapes round differently: a tie in float32 may fall elsewhere
    different = (whole.codes[4:7] != part.codes).any(1)
    assert int(different.sum()) <= 1


@each_scheme
def test_zero_rows_stay_zero(scheme: Scheme) -> None:
    M, stats = correlated(6, 16)
    M[2] = 0
    assert not dequantize(quantize(M, scheme, stats), M.dtype)[2].any()


@each_quantizer
def test_weights_that_are_not_finite_are_refused(name: str) -> None:
    M, stats = correlated(4, 16)
    M[0, 0] = float("nan")
    scheme = Scheme.parse("w4" if name == "rtn" else f"w4+{name}")
    with pytest.raises(SchemeError, match="not finite"):
        quantize(M, scheme, stats)


@pytest.mark.parametrize("name", [n for n, q in QUANTIZERS.items() if q.uses_inputs])
def test_missing_statistics_are_said(name: str) -> None:
    M, _ = correlated(4, 16)
    with pytest.raises(SchemeError, match="without input statistics: collect them"):
        quantize(M, Scheme.parse(f"w4+{name}"))
    with pytest.raises(SchemeError, match="without input statistics"):
        quantize(M, Scheme.parse(f"w4+{name}"), InputStatistics())
