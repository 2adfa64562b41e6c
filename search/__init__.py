"""Allocators: a problem in, an allocation out. No torch, no SQL; reads problem files."""

from . import bayes, evolution, greedy, ilp, lagrange, quadratic, randomized, uniform
from .base import ALLOCATORS, Allocator, allocate
from .cheapest import cheapest
from .explorer import EXPLORERS, Explorer, ExplorerFactory
from .lagrange import front
from .limits import fitting
from .neighbours import combined, near, within
from .problem_file import parse_problem, read_problem
from .proposals import Proposal, proposals
from .several import several
from .shares import factors, weighted

__all__ = [
    "ALLOCATORS",
    "EXPLORERS",
    "Allocator",
    "Explorer",
    "ExplorerFactory",
    "Proposal",
    "allocate",
    "bayes",
    "cheapest",
    "combined",
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
    "several",
    "uniform",
    "weighted",
    "within",
]
