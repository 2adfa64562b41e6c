"""Allocators: a problem in, an allocation out. No torch, no SQL, no I/O but problem files."""

from . import ilp
from .base import ALLOCATORS, Allocator, allocate

__all__ = ["ALLOCATORS", "Allocator", "allocate", "ilp"]
