"""Profilers: how much each metric worsens when one layer takes one scheme."""

from . import decoupled, eigen, fisher, hutchinson, imported, lrp, mse, perturb
from .base import PROFILERS, Checkpoints, NoCheckpoints, Profiler, Subject, assemble
from .configured import configured
from .fisher import heavy_tail_warning

__all__ = [
    "PROFILERS",
    "Checkpoints",
    "NoCheckpoints",
    "Profiler",
    "Subject",
    "assemble",
    "configured",
    "decoupled",
    "eigen",
    "fisher",
    "heavy_tail_warning",
    "hutchinson",
    "imported",
    "lrp",
    "mse",
    "perturb",
]
