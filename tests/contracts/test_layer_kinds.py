"""Every layer kind: its matrix and patches multiply to the module's own forward, in float64.

Sums of some 40 products of numbers near 1 differ by a few units of 1e-16 a term: 1e-12 is ample.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bitfront.errors import ModelError
from bitfront.quant.layers import KINDS, adapter_for, adapter_of
from tests.modules import CASES, make

# torch says that it pads a copy: that is the case to be tested
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

assert_close = partial(torch.testing.assert_close, rtol=0.0, atol=1e-12)
WITH_PATCHES = [case for case in CASES if not case.startswith("embedding")]


def without_bias(module: nn.Module, x: Tensor) -> Tensor:
    y = module(x)
    bias = getattr(module, "bias", None)
    if bias is None:
        return y
    adapter: Any = adapter_of(module)
    trailing = 0 if adapter.kind in ("linear", "hf_conv1d") else adapter.dims
    return y - bias.view(-1, *[1] * trailing)


def test_every_kind_has_a_case() -> None:
    assert {adapter_of(make(case)[0]).kind for case in CASES} == set(KINDS)


@pytest.mark.parametrize("case", WITH_PATCHES)
def test_patches_times_matrix_is_the_output(case: str) -> None:
    module, x = make(case, torch.float64)
    adapter = adapter_of(module)
    M, P = adapter.matrix(module), adapter.patches(module, x)
    N, positions, G, cols = P.shape
    assert cols == M.shape[1]
    y = torch.einsum("npgk,grk->npgr", P, M.unflatten(0, (G, -1))).flatten(2)
    expected = adapter.outputs(module, without_bias(module, x))
    assert expected.shape == (N, positions, M.shape[0])
    assert_close(y, expected)


@pytest.mark.parametrize("case", CASES)
def test_apply_is_the_forward_without_bias(case: str) -> None:
    module, x = make(case, torch.float64)
    adapter = adapter_of(module)
    y = adapter.apply(module, x, adapter.matrix(module))
    assert_close(y, without_bias(module, x))
    doubled = adapter.apply(module, x, 2 * adapter.matrix(module))
    assert_close(doubled, 2 * y)


@pytest.mark.parametrize("case", CASES)
def test_matrix_and_assign_round_trip(case: str) -> None:
    module, x = make(case)
    adapter = adapter_of(module)
    before, weight = module(x), module.get_parameter("weight")
    M = adapter.matrix(module).clone()
    pointer, grad = weight.data_ptr(), weight.requires_grad
    adapter.assign(module, torch.zeros_like(M))
    assert not weight.any()
    adapter.assign(module, M)
    assert torch.equal(module(x), before)
    assert torch.equal(adapter.matrix(module), M)
    assert (weight.data_ptr(), weight.requires_grad) == (pointer, grad)


@pytest.mark.parametrize("case", WITH_PATCHES)
def test_multiplications_are_counted_from_real_shapes(case: str) -> None:
    module, x = make(case)
    adapter = adapter_of(module)
    y = module(x)
    M = adapter.matrix(module)
    P = adapter.patches(module, x)
    if adapter.kind.startswith("conv_transpose"):
        # of the zero-stuffed input only real entries are multiplied: each meets every weight
        batch = adapter.batched(module, x)
        inputs = batch.numel() // batch.shape[1]
        assert adapter.macs(module, x, y) == inputs * M.numel()
    else:
        assert adapter.macs(module, x, y) == P.shape[0] * P.shape[1] * M.numel()


def test_other_modules_are_refused() -> None:
    assert adapter_for(nn.BatchNorm2d(3)) is None
    with pytest.raises(ModelError, match="BatchNorm2d is not a quantizable layer"):
        adapter_of(nn.BatchNorm2d(3))
