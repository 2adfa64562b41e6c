"""What may be named in a request, told without torch, so that a server can tell it too."""

from __future__ import annotations

from bitfront.errors import UnknownName
from bitfront.quant.stored import STORED
from bitfront.search import ALLOCATORS, EXPLORERS

REFINE = "refine"  # tempering and refinement, which need the model: no explorer of the registry


def check_solver(solver: str) -> None:
    """Raises ``UnknownName`` for what is not registered."""
    _ = ALLOCATORS[solver]


def check_container(container: str) -> None:
    """Raises ``UnknownName`` for what is not registered."""
    _ = STORED[container]


def check_explorer(explorer: str) -> None:
    """Raises ``UnknownName`` for what is neither ``refine`` nor registered."""
    known = (REFINE, *EXPLORERS)
    if explorer not in known:
        raise UnknownName(f"no explorer named {explorer!r}", f"choose from {', '.join(known)}")
