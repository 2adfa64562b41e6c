"""What was measured: of one layer under one scheme, and of whole allocations."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


def content_key(value: Any) -> str:
    """SHA-256 (hex) of a JSON-like value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over samples, with its standard error (0 if exact, nan if unknown)."""

    value: float
    stderr: float
    samples: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is timed: a target's name, its runtime and device with versions, threads."""

    target: str
    runtime: str
    device: str
    threads: int


@dataclass(frozen=True, slots=True)
class Timing:
    """seconds: the median of ``repeats`` runs. spread: half of what lies between the quartiles."""

    seconds: float
    spread: float
    repeats: int


@dataclass(frozen=True, eq=False)
class Measurement:
    """One profiled (layer, scheme) pair: the unit of work, found again by its content.

    settings: content key of the profiler's settings. values: metric -> estimate of its increase.
    vectors: name -> per-sample array (N,), kept for interactions and bootstraps.
    seconds: what it took (a share of the pass when one pass measured many pairs).
    """

    profiler: str
    settings: str
    layer: str
    scheme: str
    values: Mapping[str, Estimate]
    vectors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Trial:
    """An allocation that was built and measured.

    schemes: layer -> scheme. predicted: total of the sensitivities it was chosen by, nan for a
    baseline chosen without. costs: resource -> total. metrics: name -> estimate on the evaluation
    data. settings: what else made it (solver, seed, budgets, profiler, denominator).
    id: 0 until stored.
    """

    schemes: Mapping[str, str]
    solver: str
    predicted: float
    bound: float
    costs: Mapping[str, float]
    metrics: Mapping[str, Estimate]
    seconds: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    id: int = 0
    created: str = ""  # ISO 8601, UTC

    @property
    def key(self) -> str:
        """Content key of the allocation: equal for equal schemes, whoever chose them."""
        return content_key(dict(self.schemes))

    @property
    def expected(self) -> float:
        """The loss on the calibration data that was expected before it was measured there.

        In the unit of the metric's worsening; nan where nothing was.
        """
        return float(self.settings.get("expected", math.nan))
