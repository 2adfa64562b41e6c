"""Rules of relevance against their definitions, input by input and output by output, in float64.

    J (outputs, inputs)   a layer's Jacobian, by finite columns of autograd: all it needs to know
    z = J x, b            contributions and the bias that is left; R at the outputs is random

Sums of some 40 products of numbers near 1, divided by denominators that may be near 0: results
agree to 1e-9 of the largest.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitfront.errors import InvalidInput, UnknownName
from bitfront.sensitivity.lrp_layers import affine, merged
from bitfront.sensitivity.lrp_rules import EPSILON, RULES, back, parse_rule
from tests.modules import CASES, make

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

Float = NDArray[np.float64]
# padding by repeated inputs gives one input several weights in one output, which the Jacobian adds
LAYERS = [c for c in CASES if not c.startswith("embedding") and "repl" not in c and "refl" not in c]
SPELLED = ["epsilon(0)", "epsilon(0.3)", "gamma", "zplus", "alpha_beta(1.5,0.5)", "flat"]


def stable(d: float, epsilon: float) -> float:
    return d - epsilon if d < 0 else d + epsilon


def literal(rule: str, z: Float, b: Float, J: Float, R: Float) -> tuple[Float, Float]:
    """Relevance of inputs, and what of each output's is lost to the bias and to ε.

    z, J: (outputs, inputs). b, R: (outputs,).
    """
    name, _, rest = rule.rstrip(")").partition("(")
    numbers = [float(n) for n in rest.split(",") if n]
    found, lost = np.zeros(z.shape[1]), np.zeros(len(R))
    for j, row in enumerate(z.tolist()):
        parts: list[tuple[float, list[float], float]]  # of R, contributions, the bias's
        epsilon = EPSILON
        if name == "epsilon":
            parts = [(1.0, row, b[j])]
            epsilon = numbers[0] if numbers else EPSILON
        elif name == "gamma":
            g, s = numbers[0] if numbers else 0.25, np.sign(sum(row) + b[j])
            more = [v + g * v if v * s > 0 else v for v in [*row, b[j]]]
            parts = [(1.0, more[:-1], more[-1])]
        elif name == "flat":
            parts = [(1.0, [float(w != 0) for w in J[j].tolist()], 0.0)]
        else:
            alpha, beta = (1.0, 0.0) if name == "zplus" else tuple(numbers) or (2.0, 1.0)
            parts = [
                (alpha, [max(v, 0.0) for v in row], max(b[j], 0.0)),
                (-beta, [min(v, 0.0) for v in row], min(b[j], 0.0)),
            ]
        for part, shares, bias in parts:
            D = stable(sum(shares) + bias, epsilon)
            found += part * np.array(shares) / D * R[j]
            lost[j] += part * R[j] * (1 - sum(shares) / D)
    return found, lost


def jacobian(module: nn.Module, x: Tensor) -> Float:
    J = torch.autograd.functional.jacobian(module, x)
    assert isinstance(J, Tensor)
    return J.reshape(-1, x.numel()).numpy()


@pytest.mark.parametrize("rule", SPELLED)
@pytest.mark.parametrize("case", LAYERS)
def test_every_rule_is_its_definition_on_every_layer(rule: str, case: str) -> None:
    module, x = make(case, torch.float64)
    y = module(x).detach()
    R = torch.randn(y.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    g = back(parse_rule(rule), affine(module), x, y, R / y)
    J = jacobian(module, x)
    z = J * x.flatten().numpy()
    expected, lost = literal(rule, z, y.flatten().numpy() - z.sum(1), J, R.flatten().numpy())
    scale = np.abs(expected).max()
    np.testing.assert_allclose((x * g).flatten().numpy(), expected, rtol=0, atol=1e-9 * scale)
    # conserved, but for what the bias and the stabilizer take
    kept = float(R.sum() - lost.sum())
    assert abs(float((x * g).sum()) - kept) < 1e-9 * scale * len(expected)


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "zplus", "flat"])
def test_without_a_bias_relevance_is_conserved(rule: str) -> None:
    module, x = make("conv2d-groups", torch.float64)
    x = x.abs()
    y = module(x).detach()
    R = y.abs()
    g = back(parse_rule(rule), affine(module), x, y, R / y)
    # an output loses ε of its denominator: 1e-3 for the smallest ones here, that have little
    assert float((x * g).sum()) == pytest.approx(float(R.sum()), rel=1e-4)


@pytest.mark.parametrize("rule", ["zplus", "alpha_beta(1,0)"])
def test_zplus_never_enlarges_relevance(rule: str) -> None:
    module, x = make("conv2d", torch.float64)
    y = module(x).detach()
    R = torch.randn(y.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    g = back(parse_rule(rule), affine(module), x, y, R / y)
    assert float((x * g).abs().sum()) <= float(R.abs().sum())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_a_merged_batch_norm_is_one_layer_with_its_own(bias: bool, transposed: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(4, 6, 3, bias=bias).double()
    norm = nn.BatchNorm2d(6).double().eval()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        tensor.copy_(torch.rand(6, generator=generator) + 0.1)
    norm.weight.data[0] *= -1
    x = torch.randn(2, 4, 5, 5, generator=generator, dtype=torch.float64)
    both = merged(affine(layer), norm, layer(x))
    y = both.apply(x, both.M) + (0 if both.b is None else both.b)
    torch.testing.assert_close(y, norm(layer(x)), rtol=0, atol=1e-12)


def test_inputs_that_are_zero_get_no_flat_share() -> None:
    module = nn.Linear(2, 1, bias=False).double()
    x = torch.tensor([[0.0, 3.0]], dtype=torch.float64)
    y = module(x).detach()
    g = back(parse_rule("flat"), affine(module), x, y, torch.ones_like(y))
    assert g[0, 0] == 0
    assert float(x[0, 1] * g[0, 1]) == pytest.approx(0.5 * float(y), rel=1e-5)


@pytest.mark.parametrize("name", list(RULES))
def test_rules_round_trip(name: str) -> None:
    rule = RULES[name]()
    assert parse_rule(str(rule)) == rule
    assert parse_rule(name) == rule


@pytest.mark.parametrize(
    "text", ["epsilon(-1)", "gamma(x)", "gamma(1", "alpha_beta(2,2)", "flat(1)", "gamma(nan)"]
)
def test_rules_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_rule(text)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(UnknownName, match="choose from epsilon"):
        parse_rule("deeplift")
