"""The names of explorers, told without torch, so that a server can tell them too."""

from __future__ import annotations

from bitfront.errors import UnknownName
from bitfront.search import EXPLORERS

REFINE = "refine"  # tempering and refinement, which need the model: no explorer of the registry


def check_explorer(explorer: str) -> None:
    """Raises ``UnknownName`` for what is neither ``refine`` nor registered."""
    known = (REFINE, *EXPLORERS)
    if explorer not in known:
        raise UnknownName(f"no explorer named {explorer!r}", f"choose from {', '.join(known)}")
