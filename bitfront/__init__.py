"""Mixed-precision search and allocation for neural networks: the public verbs.

Everything here loads on first use, so that ``import bitfront`` costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitfront.answering import Answer
    from bitfront.deploy import export
    from bitfront.handover import recipe
    from bitfront.importing import Import, import_scores
    from bitfront.pipeline import Choices, cost, profile
    from bitfront.quant.load import load
    from bitfront.queries import Front, front, show, studies
    from bitfront.reporting import Report, report
    from bitfront.search import allocate
    from bitfront.searching import search
    from bitfront.settling import Settled, profile_until
    from bitfront.smallest import Smallest, smallest
    from bitfront.study import Study, open_study

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Choices",
    "Front",
    "Import",
    "Report",
    "Settled",
    "Smallest",
    "Study",
    "allocate",
    "cost",
    "export",
    "front",
    "import_scores",
    "load",
    "open_study",
    "profile",
    "profile_until",
    "recipe",
    "report",
    "search",
    "show",
    "smallest",
    "studies",
]

_LAZY = {
    "Answer": "answering",
    "Choices": "pipeline",
    "Front": "queries",
    "Import": "importing",
    "Report": "reporting",
    "Settled": "settling",
    "Smallest": "smallest",
    "Study": "study",
    "allocate": "search",
    "cost": "pipeline",
    "export": "deploy",
    "front": "queries",
    "import_scores": "importing",
    "load": "quant.load",
    "open_study": "study",
    "profile": "pipeline",
    "profile_until": "settling",
    "recipe": "handover",
    "report": "reporting",
    "search": "searching",
    "show": "queries",
    "smallest": "smallest",
    "studies": "queries",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Package(ModuleType):
    """Keeps ``bitfront.search`` the verb when the room of the same name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _LAZY and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
