"""The grammar of budgets: upper limits on a total cost.

    budget = number unit
    unit   = "B" | "KB" | "MB" | "GB" | "TB" | "KiB" | "MiB" | "GiB"     resource "bytes"
           | "%"                                                          of the full model's bytes
           | "bpw"                                                        resource "bits"
           | "ebpw"                                                       resource "stored_bits"
           | "BOPs" | "KBOPs" | "MBOPs" | "GBOPs" | "TBOPs" | "%BOPs"     resource "bops"
           | "s" | "ms" | "us"                                            resource "seconds"

Units are read without regard to case; KB, MB, GB are powers of 1000. ``3.5bpw`` limits the average
*weight* bits, as published comparisons count them (a ``w4g32`` layer has 4); ``3.5ebpw`` limits
the *effective* bits: packed weights, scales and zero points together (4.5 for ``w4g32`` with
16-bit scales). Both are averaged over the weights in the study's declared denominator.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from bitfront.errors import BudgetError

_METRIC = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}

# unit, in lower case -> (resource, factor, how the limit is meant)
_UNITS: dict[str, tuple[str, float, str]] = {
    **{f"{k}b": ("bytes", v, "total") for k, v in _METRIC.items()},
    **{f"{k}ib": ("bytes", 1024.0**i, "total") for i, k in enumerate("kmgt", start=1)},
    **{f"{k}bops": ("bops", v, "total") for k, v in _METRIC.items()},
    "%": ("bytes", 0.01, "share"),
    "%bops": ("bops", 0.01, "share"),
    "bpw": ("bits", 1.0, "average"),
    "ebpw": ("stored_bits", 1.0, "average"),
    "s": ("seconds", 1.0, "total"),
    "ms": ("seconds", 1e-3, "total"),
    "us": ("seconds", 1e-6, "total"),
}
_HELP = "write a number and a unit, like 700MB, 40%, 3.5bpw, 4.25ebpw or 8GBOPs"


@dataclass(frozen=True, slots=True)
class Budget:
    """An upper limit on one resource: ``amount`` of ``unit``, as it was spelled."""

    amount: float
    unit: str

    def __post_init__(self) -> None:
        if self.unit.lower() not in _UNITS:
            raise BudgetError(f"unknown unit in budget {str(self)!r}", _HELP)
        if not (math.isfinite(self.amount) and self.amount > 0):
            raise BudgetError(f"budget {str(self)!r} is not a positive number", _HELP)

    @classmethod
    def parse(cls, text: str) -> Budget:
        """The budget that ``text`` spells. Raises ``BudgetError`` for anything else."""
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(%?[A-Za-z]*)\s*", text)
        if match is None:
            raise BudgetError(f"cannot read budget {text!r}", _HELP)
        return cls(float(match[1]), match[2])

    def __str__(self) -> str:
        return f"{float(self.amount)!r}".removesuffix(".0") + self.unit

    @property
    def resource(self) -> str:
        """What is limited: ``bytes``, ``bits``, ``stored_bits``, ``bops`` or ``seconds``."""
        return _UNITS[self.unit.lower()][0]

    def limit(self, full: Mapping[str, float], weights: int) -> float:
        """The limit on the resource's total.

        ``full`` maps resources to the full-precision model's totals (for shares), ``weights`` is
        the number of weights that averages are taken over.
        """
        resource, factor, meaning = _UNITS[self.unit.lower()]
        if resource not in full:
            counted = ", ".join(sorted(full))
            raise BudgetError(
                f"budget {str(self)!r} limits {resource}, which is not counted here",
                f"choose a budget on one of {counted}",
            )
        if meaning == "share":
            return self.amount * factor * full[resource]
        return self.amount * factor * (weights if meaning == "average" else 1)
