"""Importers: scores that other programs measured, in their own files."""

from . import autoround, csv_table, exllamav2, mlx_lm, modelopt
from .base import IMPORTERS, Asked, Importer, Score, Scores
from .mapping import Mapped, mapped
from .reading import read
from .source import Source

__all__ = [
    "IMPORTERS",
    "Asked",
    "Importer",
    "Mapped",
    "Score",
    "Scores",
    "Source",
    "autoround",
    "csv_table",
    "exllamav2",
    "mapped",
    "mlx_lm",
    "modelopt",
    "read",
]
