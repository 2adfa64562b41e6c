"""Allocators: a problem in, an allocation out. No torch, no SQL; reads problem files."""

from . import bayes, evolution, greedy, ilp, lagrange, quadratic, randomized, uniform
from .base import ALLOCATORS, INTERACTING, Allocator, allocate, require_additive
from .cheapest import cheapest
from .explorer import EXPLORERS, Explorer, ExplorerFactory
from .limits import fitting
from .neighbours import near, within
from .problem_arrays import write_arrays
from .problem_file import parse_problem, read_problem
from .proposals import proposals
from .several import several
from .shares import factors, weighted
from .supported import Front, front
from .uniform import alike

__all__ = [
    "ALLOCATORS",
    "EXPLORERS",
    "INTERACTING",
    "Allocator",
    "Explorer",
    "ExplorerFactory",
    "Front",
    "alike",
    "allocate",
    "bayes",
    "cheapest",
    "evolution",
    "factors",
    "fitting",
    "front",
    "greedy",
    "ilp",
    "lagrange",
    "near",
    "parse_problem",
    "proposals",
    "quadratic",
    "randomized",
    "read_problem",
    "require_additive",
    "several",
    "uniform",
    "weighted",
    "within",
    "write_arrays",
]
