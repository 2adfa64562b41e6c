"""Costs and metrics in words, the same wherever people read them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitfront.types import Estimate

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_UNITS = {"bytes": "B", "bits": "bit", "stored_bits": "bit", "bops": "BOPs"}


def unit_of(resource: str, value: float) -> tuple[float, str]:
    """Size and name of the unit that suits ``value``."""
    if resource.partition("@")[0] in ("seconds", "latency"):
        return 1e-3, "ms"
    if resource not in _UNITS:
        return 1.0, ""
    size, prefix = next((p for p in _PREFIXES if abs(value) >= p[0]), _PREFIXES[-1])
    return size, prefix + _UNITS[resource]


def amount(resource: str, value: float) -> str:
    """A cost in the unit that suits it."""
    size, unit = unit_of(resource, value)
    return f"{value / size:.4g} {unit}".strip()


def figure(estimate: Estimate) -> str:
    """A value, with its standard error unless it is exact or unknown."""
    error = estimate.stderr
    known = math.isfinite(error) and error > 0
    return f"{estimate.value:.4g}" + (f" ± {error:.1g}" if known else "")
