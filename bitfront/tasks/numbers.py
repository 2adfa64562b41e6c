"""Numbers that a task or a search is given, checked before anything is loaded."""

from __future__ import annotations

from bitfront.errors import InvalidInput


def require(least: int, **given: int | None) -> None:
    """Raises ``InvalidInput`` for the first number below ``least``; None is no number."""
    for name, value in given.items():
        if value is not None and value < least:
            raise InvalidInput(f"{name} {value}", f"give at least {least}")
