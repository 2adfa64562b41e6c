"""What crosses a room's border: frozen values over numpy, never a tensor.

L layers, C schemes, N calibration samples. Tables are float64 arrays (L, C), read-only.
Sensitivities are in the metric's unit (nats for KL), costs in their resource's:
bytes, bits, stored_bits (bits with scales and zero points), bops, seconds.
"""

from __future__ import annotations

from bitfront.budget import Budget
from bitfront.scheme import Activation, Scheme, parse_schemes

from .arrays import Float, frozen
from .conversions import Conversions
from .layers import Layer, closure
from .measured import Estimate, Measurement, Place, Timing, Trial, content_key
from .problem import Allocation, Problem
from .tables import Costs, Interactions, Part, Sensitivities

__all__ = [
    "Activation",
    "Allocation",
    "Budget",
    "Conversions",
    "Costs",
    "Estimate",
    "Float",
    "Interactions",
    "Layer",
    "Measurement",
    "Part",
    "Place",
    "Problem",
    "Scheme",
    "Sensitivities",
    "Timing",
    "Trial",
    "closure",
    "content_key",
    "frozen",
    "parse_schemes",
]
