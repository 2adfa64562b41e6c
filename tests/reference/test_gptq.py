"""The blocked, batched float32 GPTQ against the literal one in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bitfront.quant import gptq as module
from bitfront.quant.formats import dequantize
from bitfront.quant.quantizers import quantize
from bitfront.quant.scales import integer_range
from bitfront.quant.statistics import InputStatistics
from bitfront.types import Scheme

from .gptq_literal import gptq_row


def problem(G: int, R: int, cols: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Weights (G·R, cols) and second moments (G, cols, cols) of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    M = 0.1 * torch.randn(G * R, cols, generator=generator)
    mixing = torch.randn(G, cols, cols, generator=generator)
    X = torch.randn(G, 3 * cols, cols, generator=generator) @ mixing
    return M, X.transpose(1, 2) @ X / (3 * cols)


def literal(M: Tensor, H: Tensor, scheme: Scheme, scale: Tensor, zero: Tensor | None) -> Tensor:
    G, cols, _ = H.shape
    group = scheme.group or cols
    out = []
    for r, row in enumerate(M.double().numpy()):
        h = H[r // (len(M) // G)].double().numpy()
        order = list(range(cols))
        if scheme.quantizer == "gptq:act":
            order = list(np.argsort(-np.diag(h), kind="stable"))
        s = np.repeat(scale[r].double().numpy(), group)
        z = np.zeros(cols) if zero is None else np.repeat(zero[r].double().numpy(), group)
        out.append(gptq_row(row, h, s, z, integer_range(scheme.bits, scheme.symmetric), order))
    return torch.tensor(out)


@pytest.mark.parametrize("block", [5, 128])
@pytest.mark.parametrize("G", [1, 3])
@pytest.mark.parametrize("form", ["w2", "w3g6", "w4", "w4g8z", "w3z", "w8g12"])
@pytest.mark.parametrize("quantizer", ["gptq", "gptq:act"])
def test_codes_equal_the_literal_ones(
    form: str, quantizer: str, G: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    scheme = Scheme.parse(f"{form}+{quantizer}")
    M, H = problem(G, 4, 24)
    q = quantize(M, scheme, InputStatistics(H, 72))
    assert q.scale is not None
    expected = literal(M, H, scheme, q.scale, q.zero)
    # float32 may fall to the other side of a tie, after which the row rightly goes its own way:
    # at most one row in this problem, and its error must be as small
    wrong = (q.codes != expected).any(1)
    assert int(wrong.sum()) <= 1
    if wrong.any():
        twin = type(q)(scheme, expected.to(q.codes.dtype), q.scale, q.zero)
        ours, theirs = (output_error(dequantize(x, M.dtype) - M, H) for x in (q, twin))
        assert ours == pytest.approx(theirs, rel=0.05)


def output_error(D: Tensor, H: Tensor) -> float:
    D = D.unflatten(0, (len(H), -1)).double()
    return float(((D @ H.double()) * D).sum())


def test_inverse_factor() -> None:
    _, H = problem(2, 1, 40)
    U = module.inverse_factor(H).double()
    damped = H.double()
    damped += 0.01 * torch.diag_embed(
        damped.diagonal(dim1=1, dim2=2).mean(1, keepdim=True).expand(2, 40)
    )
    assert torch.equal(U, U.triu())
    eye = (U.mT @ U) @ damped
    # condition number of some 1e4 in float32 (6e-8)
    torch.testing.assert_close(
        eye, torch.eye(40, dtype=torch.float64).expand(2, 40, 40), rtol=0, atol=5e-3
    )


def test_dead_inputs_are_rounded_to_nearest() -> None:
    M, H = problem(1, 6, 16)
    dead = [0, 7, 15]
    H[:, dead] = 0
    H[:, :, dead] = 0
    for text in ("w3+gptq", "w3g4+gptq:act"):
        scheme = Scheme.parse(text)
        q = quantize(M, scheme, InputStatistics(H, 48))
        assert q.scale is not None
        s = q.scale.float().repeat_interleave(scheme.group or 16, 1)
        nearest = (M / s).round().clamp(-4, 3)
        assert torch.equal(q.codes[:, dead].float(), nearest[:, dead])


def test_inputs_that_are_always_zero_give_round_to_nearest() -> None:
    M, _ = problem(1, 6, 16)
    q = quantize(M, Scheme.parse("w3g4+gptq"), InputStatistics(torch.zeros(1, 16, 16), 5))
    assert torch.equal(q.codes, quantize(M, Scheme.parse("w3g4")).codes)


def test_fewer_samples_than_inputs() -> None:
    """A singular H is damped, not refused."""
    M, _ = problem(1, 8, 64)
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(5))
    q = quantize(M, Scheme.parse("w4g32+gptq"), InputStatistics((x.T @ x / 3)[None], 3))
    assert torch.isfinite(dequantize(q, M.dtype)).all()
