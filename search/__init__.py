"""Allocators: a problem in, an allocation out. No torch, no SQL; reads problem files."""

from . import greedy, ilp, lagrange, randomized, uniform
from .base import ALLOCATORS, Allocator, allocate
from .cheapest import cheapest
from .neighbours import combined, near, within
from .problem_arrays import write_arrays
from .problem_file import parse_problem, read_problem
from .several import several
from .shares import factors, weighted
from .supported import Front, front

__all__ = [
    "ALLOCATORS",
    "Allocator",
    "Front",
    "allocate",
    "cheapest",
    "combined",
    "factors",
    "front",
    "greedy",
    "ilp",
    "lagrange",
    "near",
    "parse_problem",
    "randomized",
    "read_problem",
    "several",
    "uniform",
    "weighted",
    "within",
    "write_arrays",
]
