"""Rules of layer-wise relevance propagation through one affine layer, as data.

    x_i, y_j   input and output of the layer, y = W x + b          z_ij = w_ij x_i, z_0j = b_j
    v⁺, v⁻     positive and negative part of v
    G, R       what the backward pass carries at the output, and relevance R_j = y_j G_j
    g          the same at the input: R_i = x_i g_i
    ε          ``EPSILON``, added to denominators with their own sign

    rule         relevance of input i is Σ_j R_j times                              paper
    epsilon      z_ij / (y_j + ε)                                                   Bach, eq. 58
    gamma        (z_ij + γ z_ij^s) / Σ_i' (...), s the sign of y_j                  Montavon, 10.2.3
    alpha_beta   α z_ij⁺ / Σ_i' z_i'j⁺ - β z_ij⁻ / Σ_i' z_i'j⁻,  α - β = 1          Bach, eq. 60
    zplus        z_ij⁺ / Σ_i' z_i'j⁺: alpha_beta with α = 1, β = 0
    flat         1 / (number of inputs of j), whatever they are                     Bach, fig. 5

(Bach et al., PLoS ONE 10(7), 2015; Montavon et al., LNCS 11700, 2019, in the form for inputs of
either sign.) Sums over i' include the bias i' = 0 (but for ``flat``). Of a denominator D with the
bias's part D_0, inputs get Σ_i R_i = Σ_j R_j (D - D_0) / (D + ε): all, up to ε, without a bias.
``alpha_beta`` keeps this promise for its α and β parts apart, and loses the part of an output that
has no contributions of that sign.

Every rule is a sum of terms: weights A for positive and B for negative inputs, and a part of R, so
that one function runs them all, over all kinds of layers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from bitfront.errors import InvalidInput
from bitfront.registry import Registry

from .lrp_layers import Affine

EPSILON = 1e-6

RULES: Registry[type[Rule]] = Registry("relevance rule")


class Term(NamedTuple):
    """Relevance ``part · R`` shared in proportion to x⁺ A + x⁻ B + c. part: as y, or a number."""

    A: Tensor
    B: Tensor
    c: Tensor | None
    part: Tensor | float


class Rule(ABC):
    """How a layer hands relevance on. Subclasses are frozen dataclasses of numbers."""

    @property
    def stabilizer(self) -> float:
        """The ε of its denominators."""
        return EPSILON

    @abstractmethod
    def terms(self, layer: Affine, y: Tensor) -> Iterator[Term]:
        """The terms whose relevances add up."""

    def contributing(self, x: Tensor) -> Tensor:
        """What takes the input's place in the shares."""
        return x

    def __str__(self) -> str:
        name = next(name for name, kind in RULES.items() if kind is type(self))
        values = [f"{getattr(self, field.name):g}" for field in fields(self)]  # type: ignore[arg-type]
        return f"{name}({','.join(values)})" if values else name


@RULES.register("epsilon")
@dataclass(frozen=True)
class Epsilon(Rule):
    """In proportion to contributions, of either sign. Shares explode where they cancel."""

    epsilon: float = EPSILON

    def __post_init__(self) -> None:
        if not self.epsilon >= 0:
            raise InvalidInput(f"epsilon {self.epsilon:g}", "give a number from 0")

    @property
    def stabilizer(self) -> float:
        return self.epsilon

    def terms(self, layer: Affine, y: Tensor) -> Iterator[Term]:
        yield Term(layer.M, layer.M, layer.b, 1.0)


@RULES.register("gamma")
@dataclass(frozen=True)
class Gamma(Rule):
    """Contributions of the output's own sign count 1 + γ times: between epsilon and zplus."""

    gamma: float = 0.25

    def __post_init__(self) -> None:
        if not self.gamma >= 0:
            raise InvalidInput(f"gamma {self.gamma:g}", "give a number from 0")

    def terms(self, layer: Affine, y: Tensor) -> Iterator[Term]:
        M, b = layer.M, layer.b
        up, down = M + self.gamma * M.clamp(min=0), M + self.gamma * M.clamp(max=0)
        for sign, A, B in ((1, up, down), (-1, down, up)):
            more = _part(b, sign)
            c = None if b is None or more is None else b + self.gamma * more
            yield Term(A, B, c, (y.sign() == sign).to(y))


@RULES.register("alpha_beta")
@dataclass(frozen=True)
class AlphaBeta(Rule):
    """Positive and negative contributions apart."""

    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        if not (self.beta >= 0 and abs(self.alpha - self.beta - 1) < 1e-9):
            raise InvalidInput(
                f"alpha {self.alpha:g} and beta {self.beta:g}",
                "give a beta from 0, and an alpha that is greater by 1",
            )

    def terms(self, layer: Affine, y: Tensor) -> Iterator[Term]:
        up, down = layer.M.clamp(min=0), layer.M.clamp(max=0)
        yield Term(up, down, _part(layer.b, 1), self.alpha)
        if self.beta:
            yield Term(down, up, _part(layer.b, -1), -self.beta)


@RULES.register("zplus")
@dataclass(frozen=True)
class ZPlus(Rule):
    """Positive contributions only: the sum of |R| never grows."""

    def terms(self, layer: Affine, y: Tensor) -> Iterator[Term]:
        return AlphaBeta(1.0, 0.0).terms(layer, y)


@RULES.register("flat")
@dataclass(frozen=True)
class Flat(Rule):
    """All inputs of an output alike: for the first layer.

    The backward pass carries R_i / x_i, so what belongs to inputs that are exactly 0 is lost.
    """

    def terms(self, layer: Affine, y: Tensor) -> Iterator[Term]:
        ones = torch.ones_like(layer.M)
        yield Term(ones, ones, None, 1.0)

    def contributing(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


def back(rule: Rule, layer: Affine, x: Tensor, y: Tensor, G: Tensor) -> Tensor:
    """g at the layer's input x, from G at its output y."""
    R, a = y * G, rule.contributing(x)
    mixed = bool((a < 0).any())
    g = torch.zeros_like(x)
    for term in rule.terms(layer, y):
        with torch.enable_grad():
            if term.A is term.B or not mixed:
                inputs = [a.detach().requires_grad_()]
                z = layer.apply(inputs[0], term.A)
            else:
                inputs = [p.detach().requires_grad_() for p in (a.clamp(min=0), a.clamp(max=0))]
                z = layer.apply(inputs[0], term.A) + layer.apply(inputs[1], term.B)
        D = z.detach() if term.c is None else z.detach() + term.c
        shares = torch.autograd.grad(z, inputs, term.part * R / _stable(D, rule.stabilizer))
        g += shares[0] if len(shares) == 1 else torch.where(a < 0, shares[1], shares[0])
    return g if a is x else torch.where(x == 0, 0, a * g / torch.where(x == 0, 1, x))


def parse_rule(text: str) -> Rule:
    """The rule that ``str`` spells. Raises ``UnknownName`` and ``InvalidInput``."""
    name, bracket, rest = text.partition("(")
    kind = RULES[name]
    try:
        if bracket and not rest.endswith(")"):
            raise ValueError
        return kind(*(float(n) for n in rest[:-1].split(",") if n))
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"relevance rule {text!r}", f"write it like {kind()}") from None


def _part(b: Tensor | None, sign: int) -> Tensor | None:
    if b is None:
        return None
    return b.clamp(min=0) if sign > 0 else b.clamp(max=0)


def _stable(D: Tensor, epsilon: float) -> Tensor:
    """D with its absolute value enlarged by ε, 0 counting as positive and never staying 0."""
    least = max(epsilon, torch.finfo(D.dtype).tiny)
    return torch.where(D < 0, D - epsilon, torch.where(D == 0, least, D + epsilon))
