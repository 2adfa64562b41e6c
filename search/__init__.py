"""Allocators: a problem in, an allocation out. No torch, no SQL; reads problem files."""

from . import greedy, ilp, lagrange, uniform
from .base import ALLOCATORS, Allocator, allocate
from .lagrange import front
from .problem_file import read_problem

__all__ = [
    "ALLOCATORS",
    "Allocator",
    "allocate",
    "front",
    "greedy",
    "ilp",
    "lagrange",
    "read_problem",
    "uniform",
]
