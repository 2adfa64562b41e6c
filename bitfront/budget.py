"""The grammar of budgets: limits on a total cost, of a model or of a class of its layers.

    budget = [ class ":" ] ( [ sign ] number unit [ "@" target ] | resource sign number )
    sign   = "<=" (need not be written) | ">="
    unit   = "B" | "KB" | "MB" | "GB" | "TB" | "KiB" | "MiB" | "GiB"     resource "bytes"
           | "%"                                                          of the full model's bytes
           | "bpw"                                                        resource "bits"
           | "ebpw"                                                       resource "stored_bits"
           | "BOPs" | "KBOPs" | "MBOPs" | "GBOPs" | "TBOPs" | "%BOPs"     resource "bops"
           | "s" | "ms" | "us"                                            resource "seconds"
           | "Bkv" | "KBkv" | ... | "GiBkv" | "%kv"                       resource "kv"
           | "Bact" | "KBact" | ... | "GiBact" | "%act"                   resource "activations"

Units are read without regard to case; KB, MB, GB are powers of 1000. ``3.5bpw`` limits the average
*weight* bits, as published comparisons count them (a ``w4g32`` layer has 4); ``3.5ebpw`` limits
the *effective* bits: packed weights, scales and zero points together (4.5 for ``w4g32`` with
16-bit scales). Both are averaged over the weights in the study's declared denominator.

``>=3bpw`` is a lower limit. ``12ms@cpu:b1`` and ``60%@cpu:b1`` limit the seconds on a target, the
resource ``seconds@cpu:b1``. ``joules<=5`` limits any resource by its name, in its own unit.
``attention:3bpw`` limits the layers of one class, ``*.k_proj:3bpw`` those that a glob matches:
shares are then of their full bytes, averages over their weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from bitfront.errors import BudgetError

_METRIC = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_BINARY = {f"{k}i": 1024.0**i for i, k in enumerate("kmgt", start=1)}

ACTIVATIONS = "activations"  # bytes of activations that are live at once
SECONDS = "seconds"

# unit, in lower case -> (resource, factor, how the limit is meant)
_UNITS: dict[str, tuple[str, float, str]] = {
    **{f"{k}b": ("bytes", v, "total") for k, v in {**_METRIC, **_BINARY}.items()},
    **{f"{k}bact": (ACTIVATIONS, v, "total") for k, v in {**_METRIC, **_BINARY}.items()},
    **{f"{k}bkv": ("kv", v, "total") for k, v in {**_METRIC, **_BINARY}.items()},
    **{f"{k}bops": ("bops", v, "total") for k, v in _METRIC.items()},
    "%": ("bytes", 0.01, "share"),
    "%bops": ("bops", 0.01, "share"),
    "%act": (ACTIVATIONS, 0.01, "share"),
    "%kv": ("kv", 0.01, "share"),
    "bpw": ("bits", 1.0, "average"),
    "ebpw": ("stored_bits", 1.0, "average"),
    "s": (SECONDS, 1.0, "total"),
    "ms": (SECONDS, 1e-3, "total"),
    "us": (SECONDS, 1e-6, "total"),
}
_HELP = "write a number and a unit, like 700MB, 40%, 3.5bpw, 4.25ebpw or 8GBOPs"
_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?"
_CLASS = r"\s*(?:(?P<layers>[^<>=@:]*[^<>=@:\s])\s*:)?\s*"
_AMOUNT = re.compile(
    rf"{_CLASS}(?P<sign><=|>=)?\s*(?P<amount>{_NUMBER})\s*(?P<unit>%?[A-Za-z]*)"
    r"(?:@(?P<target>[^<>=@\s]+))?\s*"
)
_NAMED = re.compile(
    rf"{_CLASS}(?P<name>[^<>=@:\s](?:[^<>=@:]*[^<>=@:\s])?(?:@[^<>=@\s]+)?)\s*"
    rf"(?P<sign><=|>=)\s*(?P<amount>{_NUMBER})\s*"
)


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on one resource: ``amount`` of ``unit``, as it was spelled.

    sign: ``<=``, or ``>=`` for a lower limit. layers: the class of layers, or the glob, that is
    limited; empty for the whole model. target: what seconds are limited on. name: the resource,
    where ``unit`` is empty.
    """

    amount: float
    unit: str
    sign: str = "<="
    layers: str = ""
    target: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if self.sign not in ("<=", ">="):
            raise BudgetError(f"a budget with the sign {self.sign!r}", "use <= or >=")
        if not self.name and self.unit.lower() not in _UNITS:
            raise BudgetError(f"unknown unit in budget {str(self)!r}", _HELP)
        if not (math.isfinite(self.amount) and self.amount > 0):
            raise BudgetError(f"budget {str(self)!r} is not a positive number", _HELP)
        if self.target and self.unit != "%" and _UNITS[self.unit.lower()][0] != SECONDS:
            raise BudgetError(
                f"budget {str(self)!r} limits what no target changes",
                "leave out what follows @, or limit seconds, like 12ms@cpu, or 60%@cpu",
            )
        if self._base == ACTIVATIONS and self.floor:
            raise BudgetError(
                f"budget {str(self)!r} is a lower limit on what is live at once",
                "give an upper limit, like 2MBact",
            )
        if self._base == ACTIVATIONS and self.layers:
            raise BudgetError(
                f"budget {str(self)!r} is on one class of layers", "limit activations of the model"
            )

    @classmethod
    def parse(cls, text: str) -> Budget:
        """The budget that ``text`` spells. Raises ``BudgetError`` for anything else."""
        match = _AMOUNT.fullmatch(text) or _NAMED.fullmatch(text)
        if match is None or math.isinf(float(match["amount"])):
            raise BudgetError(f"cannot read budget {text!r}", _HELP)
        found = match.groupdict(default="")
        return cls(
            float(found["amount"]),
            found.get("unit", ""),
            found["sign"] or "<=",
            found["layers"],
            found.get("target", ""),
            found.get("name", ""),
        )

    def __str__(self) -> str:
        amount = f"{float(self.amount)!r}".removesuffix(".0")
        of = f"{self.layers}:" if self.layers else ""
        if self.name:
            return f"{of}{self.name}{self.sign}{amount}"
        sign = ">=" if self.floor else ""
        return f"{of}{sign}{amount}{self.unit}" + (f"@{self.target}" if self.target else "")

    @property
    def floor(self) -> bool:
        """Whether it is a lower limit."""
        return self.sign == ">="

    @property
    def _base(self) -> str:
        return self.name or (SECONDS if self.target else _UNITS[self.unit.lower()][0])

    @property
    def whole(self) -> str:
        """The resource that is limited, as it is counted of a whole model.

        ``bytes``, ``bits``, ``stored_bits``, ``bops``, ``kv``, ``activations``, ``seconds``,
        ``seconds@TARGET``, or what was named.
        """
        return f"{self._base}@{self.target}" if self.target else self._base

    @property
    def resource(self) -> str:
        """What is limited: ``whole``, or of a class of layers ``whole[class]``."""
        return of_class(self.whole, self.layers) if self.layers else self.whole

    def limit(self, full: Mapping[str, float], weights: float) -> float:
        """The limit on the resource's total.

        ``full`` maps resources to the full-precision model's totals (for shares; nan where that is
        not known), ``weights`` is the number of weights that averages are taken over.
        """
        _, factor, meaning = _UNITS[self.unit.lower()] if not self.name else ("", 1.0, "total")
        if self.resource not in full:
            counted = ", ".join(sorted(full))
            raise BudgetError(
                f"budget {str(self)!r} limits {self.resource}, which is not counted here",
                f"choose a budget on one of {counted}",
            )
        if meaning == "share":
            return self.amount * factor * full[self.resource]
        return self.amount * factor * (weights if meaning == "average" else 1)


def parse_bytes(text: str) -> int:
    """Bytes spelled as in a budget, like ``2GB``. Raises ``BudgetError`` for anything else."""
    budget = Budget.parse(text)
    if budget.resource != "bytes" or budget.floor or budget.name or budget.unit == "%":
        raise BudgetError(f"{text!r} is no number of bytes", "write it like 700MB or 2GiB")
    return int(budget.limit({"bytes": 0.0}, 0.0))


def of_class(resource: str, name: str) -> str:
    """The resource ``resource`` of the layers of class ``name`` alone."""
    return f"{resource}[{name}]"
