"""Which rule of relevance propagation applies where: a composite, as data.

A composite is an ordered list of ``WHERE=RULE``; the first entry that fits decides. Spelled, with
spaces between entries, it parses back:

    name:blocks.0.*=gamma(0.1) first=flat conv*=zplus linear=epsilon(1e-06) softmax=detach

    where                     rules
    name:GLOB                 of layers (lrp_rules.py); the glob is one of module names
    first                     of layers; the layers whose input is the model's own
    a layer kind, or a glob   of layers; linear, conv2d, conv*, ...
    an operation              see ``OPERATIONS``

AttnLRP (Achtibat et al., arXiv:2402.05602) is where the rules of operations come from: ``half``
shares relevance equally between factors that both depend on the input (prop. 3.2 and 3.3),
``gradient`` takes the first-order Taylor expansion (prop. 3.1), ``detach`` holds a value constant,
so that the rest of its expression gets all relevance (prop. 3.4), ``identity`` hands all relevance
of an elementwise function on (eq. 9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from bitfront.errors import InvalidInput, UnknownName
from bitfront.quant.layers import KINDS, adapter_for
from bitfront.tasks.globs import matching

from .lrp_rules import Rule, parse_rule

NAME = "name:"
FIRST = "first"

# operation -> its rules
OPERATIONS = {
    "matmul": ("half", "gradient"),  # also within attention
    "product": ("half", "gradient"),  # elementwise: gates
    "softmax": ("gradient", "detach"),
    "norm": ("detach", "gradient"),  # its mean and deviation or root mean square
    "quotient": ("detach", "gradient"),  # its denominator; also negative powers
    "activation": ("identity", "gradient"),  # functions with f(0) = 0; others are ``gradient``
}

_OPERATIONS = "matmul=half product=half softmax=gradient norm=detach quotient=detach "
_OPERATIONS += "activation=identity"

# family -> its composite
FAMILIES = {
    "convolutional": "first=flat conv*=gamma(0.25) linear=epsilon hf_conv1d=epsilon " + _OPERATIONS,
    "transformer": "conv*=gamma(0.25) linear=epsilon hf_conv1d=epsilon " + _OPERATIONS,
}


@dataclass(frozen=True)
class Composite:
    """Entries (where, rule) in order of precedence, checked when made."""

    entries: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        for where, rule in self.entries:
            if where in OPERATIONS:
                if rule not in OPERATIONS[where]:
                    raise InvalidInput(
                        f"rule {rule!r} of {where}", f"choose from {', '.join(OPERATIONS[where])}"
                    )
            elif where != FIRST and not where.startswith(NAME) and not _kinds(where):
                places = ", ".join([f"{NAME}GLOB", FIRST, *KINDS, *OPERATIONS])
                raise UnknownName(f"no place {where!r} for a relevance rule", f"write {places}")
            else:
                parse_rule(rule)

    def layer(self, name: str, kind: str, *, first: bool) -> Rule:
        """The rule of a layer. first: whether its input is the model's own."""
        for where, rule in self.entries:
            if where in OPERATIONS:
                continue
            if where.startswith(NAME):
                found = fnmatchcase(name, where.removeprefix(NAME))
            else:
                found = first if where == FIRST else fnmatchcase(kind, where)
            if found:
                return parse_rule(rule)
        raise InvalidInput(f"no relevance rule for {kind} layers", f"add one, as {kind}=epsilon")

    def operation(self, kind: str) -> str:
        """The rule of an operation, ``gradient`` if there is none."""
        return next((rule for where, rule in self.entries if where == kind), "gradient")

    def check_names(self, layers: Sequence[str]) -> None:
        """Raises ``UnknownName`` for a glob that matches none of ``layers``."""
        for where, _ in self.entries:
            if where.startswith(NAME):
                matching(where.removeprefix(NAME), layers)

    def __str__(self) -> str:
        return " ".join(f"{where}={rule}" for where, rule in self.entries)


def parse_composite(text: str) -> Composite:
    """The composite that ``str`` spells. Raises ``InvalidInput`` and ``UnknownName``."""
    entries = []
    for word in text.split():
        where, sign, rule = word.rpartition("=")
        if not sign:
            raise InvalidInput(f"relevance rule {word!r}", "write WHERE=RULE, as conv2d=zplus")
        entries.append((where, rule))
    return Composite(tuple(entries))


def family_of(model: nn.Module) -> str:
    """``convolutional`` for models with convolutions and without layer or RMS norms."""
    modules = list(model.modules())
    names = [type(m).__name__ for m in modules]
    if any(name.endswith(("LayerNorm", "RMSNorm")) for name in names):
        return "transformer"
    adapters = [adapter_for(m) for m in modules]
    convolves = any(a is not None and a.kind.startswith("conv") for a in adapters)
    return "convolutional" if convolves else "transformer"


def _kinds(where: str) -> list[str]:
    return [kind for kind in KINDS if fnmatchcase(kind, where)]
