"""The command line: ``bitfront ...``. Thin: words to verbs, values to words.

A command is one file here with a function of its name, whose docstring is its help, and one line
in ``app``. At its top it imports nothing heavy (torch, transformers, OR-Tools, SQLAlchemy): those
stand inside the function, so that ``bitfront --help`` answers at once. It prints through
``output``, raises ``BitfrontError`` for what the user can mend, and leaves exit codes to ``app``.
"""

from __future__ import annotations

from .app import main

__all__ = ["main"]
