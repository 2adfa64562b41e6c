"""Relevance through whole networks, against public implementations; skipped where they are not.

They carry relevance itself, Bitfront a gradient that times the activation is relevance, and so adds
ε to fewer denominators. With ε = 1e-12 in both and float64, what divisions by small numbers leave
is below 1e-8 of the largest relevance.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitfront.sensitivity import lrp_rules
from bitfront.sensitivity.lrp_composite import FAMILIES, Composite, parse_composite
from bitfront.sensitivity.lrp_propagation import propagating
from tests import oracles

TINY, TOLERANCE = 1e-12, 1e-8


def seeded(model: nn.Module) -> nn.Module:
    """Random weights and batch statistics, float64, evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    model = model.double().eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight, generator=generator)
            if module.bias is not None:
                torch.nn.init.normal_(module.bias, std=0.1, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.eps = 0.0  # zennit puts the identity in its place, but keeps this in it
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            nn.init.normal_(module.weight, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
    return model


def relevance(model: nn.Module, x: Tensor, composite: Composite) -> Tensor:
    """Of the inputs, for the largest output."""
    x = x.clone().requires_grad_()
    with propagating(model, composite, lambda name, R: None):
        z = model(x)
    z.backward(F.one_hot(z.argmax(-1), z.shape[-1]).to(z))
    assert x.grad is not None
    return (x * x.grad).detach()


def check(found: Tensor, expected: Tensor) -> None:
    scale = float(expected.abs().max())
    off = float((found - expected).abs().max()) / scale
    print(f"largest difference / largest relevance: {off:.1e}")
    assert off < TOLERANCE


class Plain(nn.Sequential):
    """Convolutions with batch norms, pooling, two linear layers."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
            nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Flatten(),
            nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 5),
        )  # fmt: skip


class Block(nn.Module):
    def __init__(self, add: nn.Module, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.add, self.relu = add, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.add(torch.stack([self.body(x), x], dim=-1)))


class Residual(nn.Module):
    def __init__(self, add: Any) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.Sequential(Block(add(), 8), Block(add(), 8))
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.blocks(self.stem(x))).flatten(1))


# rule -> its name there, and its numbers
RULES: dict[str, tuple[str, dict[str, float]]] = {
    "zplus": ("ZPlus", {}),
    "gamma(0.25)": ("Gamma", {"gamma": 0.25}),
    "alpha_beta(2,1)": ("AlphaBeta", {"alpha": 2.0, "beta": 1.0}),
}


@pytest.mark.parametrize("kind", ["plain", "residual"])
@pytest.mark.parametrize("rule", list(RULES))
def test_convolutional_networks_agree_with_zennit(
    kind: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lrp_rules, "EPSILON", TINY)
    composites, canonizers, layers, rules = oracles.zennit(
        "composites", "canonizers", "layer", "rules"
    )
    model = seeded(Plain() if kind == "plain" else Residual(layers.Sum))
    x = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = f"first=flat conv*={rule} linear=epsilon({TINY}) {FAMILIES['convolutional']}"
    found = relevance(model, x, parse_composite(ours))

    given = x.clone().requires_grad_()
    name, numbers = RULES[rule]
    theirs = composites.SpecialFirstLayerMapComposite(
        layer_map=[
            *composites.layer_map_base(TINY),
            (nn.Conv2d, getattr(rules, name)(stabilizer=TINY, **numbers)),
            (nn.Linear, rules.Epsilon(TINY)),
        ],
        first_map=[(nn.Conv2d, rules.Flat(stabilizer=TINY))],
        canonizers=[canonizers.SequentialMergeBatchNorm()],
    )
    with theirs.context(model) as changed:
        z = changed(given)
        start = z.detach() * F.one_hot(z.argmax(-1), 5)
        (expected,) = torch.autograd.grad(z, given, start)
    check(found, expected)


class Transformer(nn.Module):
    """A block of attention and a gate, over either kind of functions and norms."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(6, 6) for _ in range(4))
        self.gate, self.up, self.down = nn.Linear(6, 9), nn.Linear(6, 9), nn.Linear(9, 6)
        self.norm, self.scale = nn.LayerNorm(6), nn.Parameter(torch.linspace(0.5, 2, 6))
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (m(h).unflatten(-1, (2, 3)).transpose(1, 2) for m in (self.q, self.k, self.v))
        weights = torch.softmax(q @ k.transpose(-1, -2) / 3**0.5, dim=-1)
        x = x + self.o((weights @ v).transpose(1, 2).flatten(2))
        h = self.scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))
        x = x + self.down(self.gate(h) * self.up(h))
        return self.head(x).mean(1)

    def explicit(self, x: Tensor, lf: Any) -> Tensor:
        """The same in functions of lxt, whose backward passes carry relevance."""

        def linear(m: nn.Linear, h: Tensor) -> Tensor:
            return lf.linear_epsilon(h, m.weight, m.bias, TINY)

        h = lf.layer_norm_grad_fn.apply(x, self.norm.weight, self.norm.bias, self.norm.eps, TINY)
        q, k, v = (
            linear(m, h).unflatten(-1, (2, 3)).transpose(1, 2) for m in (self.q, self.k, self.v)
        )
        scores = lf.mul2(lf.matmul(q, k.transpose(-1, -2), False, TINY), 3**-0.5)
        mixed = lf.matmul(lf.softmax(scores, -1), v, False, TINY)
        x = lf.add2(x, linear(self.o, mixed.transpose(1, 2).flatten(2)), False, TINY)
        # its rms_norm_identity computes in float32
        h = lf.mul2(x, torch.rsqrt(x.detach().pow(2).mean(-1, keepdim=True) + 1e-5) * self.scale)
        x = lf.add2(
            x, linear(self.down, lf.mul2(linear(self.gate, h), linear(self.up, h))), False, TINY
        )
        return lf.mean(linear(self.head, x), 1, False, TINY)


def test_attention_norms_and_gates_agree_with_lxt() -> None:
    (lf,) = oracles.lxt("explicit.functional")
    model = seeded(Transformer())
    assert isinstance(model, Transformer)
    x = torch.randn(3, 7, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    composite = f"linear=epsilon({TINY}) {FAMILIES['transformer']}"
    found = relevance(model, x, parse_composite(composite))

    given = x.clone().requires_grad_()
    for p in model.parameters():
        p.requires_grad_(False)
    z = model.explicit(given, lf)
    start = z.detach() * F.one_hot(z.argmax(-1), 5)
    (expected,) = torch.autograd.grad(z, given, start)
    check(found, expected)
